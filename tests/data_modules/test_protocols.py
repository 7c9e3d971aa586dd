import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules.protocols import PROTOCOLS, folds, is_split, without_fold
from mer import InputError

TABLES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=80).map(
    lambda rows: pd.DataFrame([(database, f"s{subject}") for database, subject in rows], columns=["dataset", "subject"])
)


@given(TABLES, st.sampled_from(["loso", "lodo", "groups2", "groups5"]))
def test_every_clip_is_held_out_once_with_its_whole_subject(clips, split):
    try:
        found = folds(clips, split)
    except InputError as error:
        assert "subjects make" in str(error) or "at least two" in str(error)
        return
    assert sorted(row for rows in found.values() for row in rows) == list(range(len(clips)))
    assert list(found) == sorted(found) and len(found) >= 2
    subjects = [set(zip(clips["dataset"][rows], clips["subject"][rows])) for rows in found.values()]
    assert len(set.union(*subjects)) == sum(map(len, subjects))
    assert found == folds(clips.assign(target="anything"), split)


@given(TABLES, st.integers(2, 6))
def test_groups_are_balanced_and_do_not_depend_on_the_order_of_the_table(clips, count):
    subjects = (clips["dataset"] + clips["subject"]).value_counts()
    if len(subjects) < count:
        return
    found = folds(clips, f"groups{count}")
    sizes = [len(rows) for rows in found.values()]
    assert len(found) == count and max(sizes) - min(sizes) <= subjects.max()

    def named(table, groups):
        return {name: sorted(table["dataset"][rows] + table["subject"][rows]) for name, rows in groups.items()}

    turned = clips.iloc[::-1].reset_index(drop=True)
    assert named(clips, found) == named(turned, folds(turned, f"groups{count}"))


def test_databases_are_left_out_by_name():
    clips = pd.DataFrame({"dataset": ["samm", "casme2", "samm"], "subject": ["006", "sub01", "007"]})
    assert folds(clips, "lodo") == {"casme2": [1], "samm": [0, 2]}
    with pytest.raises(InputError, match="at least two databases"):
        folds(clips[clips["dataset"] == "samm"].reset_index(drop=True), "lodo")


@pytest.mark.parametrize(
    "split",
    ["", "groups", "groups0", "groups-1", "groups5x", "LOSO", "../loso", "loso-without-smic-s1"],
)
def test_an_unknown_split_is_named(split):
    assert not is_split(split)
    with pytest.raises(InputError, match="there are loso .*lodo .*groups<k>"):
        folds(pd.DataFrame({"dataset": ["a"], "subject": ["b"]}), split)


@given(TABLES, st.sampled_from(["loso", "lodo", "groups3"]), st.data())
def test_without_a_fold_its_subjects_are_gone_and_the_others_are_whole(clips, split, data):
    try:
        outer = folds(clips, split)
    except InputError:
        return
    name = data.draw(st.sampled_from(sorted(outer)))
    left = without_fold(clips, split, name)
    assert left.equals(clips.drop(index=outer[name]).reset_index(drop=True))
    subjects = [set(zip(table["dataset"], table["subject"])) for table in (left, clips.iloc[outer[name]])]
    assert subjects[0].isdisjoint(subjects[1]) and set.union(*subjects) == set(zip(clips["dataset"], clips["subject"]))


def test_an_outer_fold_that_there_is_not_is_named():
    clips = pd.DataFrame({"dataset": ["samm", "casme2", "samm"], "subject": ["006", "sub01", "007"]})
    with pytest.raises(InputError, match="no outer fold 'samm-008'; outer split 'loso' has casme2-sub01, samm-006"):
        without_fold(clips, "loso", "samm-008")
    with pytest.raises(InputError, match="no outer fold 'group3'; outer split 'groups2' has group1, group2"):
        without_fold(clips, "groups2", "group3")


def test_too_many_groups_are_named():
    with pytest.raises(InputError, match="2 subjects make 2 to 2 groups"):
        folds(pd.DataFrame({"dataset": ["a", "a"], "subject": ["b", "c"]}), "groups3")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_published_counts_add_up(name):
    rules = PROTOCOLS[name]
    assert set(rules.parts) == set(rules.emotions)
    for database, (clips, _, classes) in rules.parts.items():
        assert sum(classes) == clips and len(classes) == len(rules.classes)
        assert set(rules.emotions[database].values()) <= set(rules.classes)


def test_megc2019_is_the_official_composite():
    parts = PROTOCOLS["megc2019"].parts.values()
    assert sum(clips for clips, _, _ in parts) == 442 and sum(subjects for _, subjects, _ in parts) == 68
    assert [sum(classes) for classes in zip(*(classes for _, _, classes in parts))] == [250, 109, 83]
