import io
from base64 import b64decode
from types import SimpleNamespace

import pandas as pd
import pytest

from experiments.report.comparison import SUPPORT_VECTORS
from experiments.report.data_files import files
from experiments.report.formatting import p_value, signed
from experiments.report.leaderboard import HEADER, leaderboard, settings
from mer.evaluation import scoring
from tests.browser import CHROMIUM, look
from tests.pages import Tables

KEY = "megc2019-megc2019-loso"
DATABASES = ["casme2", "samm", "smic"]
NOT_DECLARED = "not declared what it was tuned on"


@pytest.mark.parametrize(
    ("facts", "config", "text"),
    [
        ({"recipe": "quick", "tuned_on": ["casme2", "smic"]}, {}, "quick; tuned here: casme2, smic"),
        ({"recipe": "quick", "tuned_on": ["casme3"]}, {}, "quick"),
        ({"recipe": "paper", "tuned_on": []}, {}, "paper"),
        ({"recipe": "quick"}, {}, f"quick; {NOT_DECLARED}"),
        ({}, {}, NOT_DECLARED),
        (
            {"recipe": "quick", "tuned_on": ["smic"], "options": ["--model.lr", "--data.split"]},
            {},
            "quick; by hand: model.lr; tuned here: smic",
        ),
        (
            {"recipe": "quick", "tuned_on": ["smic"], "options": ["--model.lr"]},
            {"search": {}},
            "searched from quick; tuned here: smic",
        ),
    ],
)
def test_settings_say_what_they_were_chosen_by(facts, config, text):
    model = SimpleNamespace(facts=[facts, facts], cell=SimpleNamespace(config=lambda: config))
    assert settings(model, DATABASES) == text


def test_one_fold_that_declares_nothing_is_enough():
    folds = [{"recipe": "quick", "tuned_on": ["smic"]}, {"recipe": "quick"}]
    model = SimpleNamespace(facts=folds, cell=SimpleNamespace(config=dict))
    assert settings(model, DATABASES) == f"quick; tuned here: smic; {NOT_DECLARED}"


def test_the_row_of_a_model_has_its_tests_and_costs(comparison):
    best, second, *_ = comparison.models
    rows = {line.texts[0]: dict(zip(HEADER, line.texts, strict=True)) for line in leaderboard(comparison).lines}
    assert rows[best.name]["p against the best"] == ""
    assert rows[second.name]["p against the best"] == p_value(comparison.test(best.name, second.name).corrected)
    classic = comparison.test(second.name, SUPPORT_VECTORS)
    assert rows[second.name]["p against support vectors"] == p_value(classic.corrected)
    expected = p_value(comparison.test(best.name, SUPPORT_VECTORS).corrected)
    assert rows[SUPPORT_VECTORS]["p against the best"] == expected
    assert rows[SUPPORT_VECTORS]["settings"] == "grid tuned here: casme2, smic"
    scores = best.summary
    gap = scores["optimistic"]["uf1"]["mean"] - scores["honest"]["uf1"]["mean"]
    assert rows[best.name]["optimistic less honest"] == signed(gap)
    costs = ("settings", "parameters", "s per fold", "device")
    expected = ("quick; tuned here: casme2, smic", "39,072", "6.5", "cpu")
    assert tuple(rows[best.name][name] for name in costs) == expected


def test_leaderboard_md_has_the_table_of_the_page(root, page):
    text = (root / "results/report/leaderboard.md").read_text()
    for row in Tables(page).tables[f"{KEY}-leaderboard"]:
        assert "| " + " | ".join(row) + " |" in text
    assert "Tuned here: its values were chosen" in text and "39,072" in text


def test_the_data_are_in_the_page_and_beside_it(root, page, comparison):
    texts = files(comparison)
    shown = {address.split(",")[1] for address in Tables(page).addresses if address.startswith("data:text/csv")}
    shown = {b64decode(content).decode() for content in shown}
    for name, text in texts.items():
        assert text in shown and (root / "results/report/data" / name).read_text() == text
    clips, predictions, folds = (pd.read_csv(io.StringIO(text), dtype={"fold": str}) for text in texts.values())
    assert len(clips) == len(predictions) == len(comparison.clips)
    for model in comparison.models:
        own = folds[folds["digest"] == model.cell.digest]
        assert len(own) == 2 * len(model.cell.folds)
        for seed, pool in model.pools.items():
            column = f"{model.cell.model}-{model.cell.digest} seed {seed}"
            keys = ["dataset", "subject", "clip"]
            pd.testing.assert_series_equal(
                predictions.set_index(keys)[column].sort_index(),
                pool.table.set_index(keys)["prediction"].sort_index(),
                check_names=False,
            )
            (one,) = own[(own["seed"] == seed) & (own["fold"] == "smic-sub01")].to_dict("records")
            table = pool.table[(pool.table["dataset"] == "smic") & (pool.table["subject"] == "sub01")]
            counts = scoring.confusion(table, comparison.classes)
            assert list(one.values())[4:] == counts.ravel().tolist()


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_a_click_on_a_column_sorts_by_it(page, tmp_path):
    places = {name: HEADER.index(name) for name in ("UF1", "seeds", "settings")}
    column = f"""(place) => [...document.getElementById("{KEY}-leaderboard").tBodies[0].rows].map(
        (row) => row.cells[place].textContent.trim())"""
    click = f"""(place) => document.getElementById("{KEY}-leaderboard").rows[0].cells[place].firstChild.click()"""
    seen, console = look(
        page, tmp_path, 1440, False,
        f"""sorted: ((column, click) => [{places["UF1"]}, {places["UF1"]}, {places["seeds"]}, {places["settings"]}].map(
            (place) => (click(place), column(place))))({column}, {click}),""",
    )  # fmt: skip
    down, up, seeds, words = seen["sorted"]
    numbers = [float(text.split()[0]) for text in down]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) > 5 and not console
    assert [float(text.split()[0]) for text in up] == numbers[::-1]
    assert seeds[:3] == ["2"] * 3 and set(seeds[3:]) == {""}  # what has no figure is last
    assert words == sorted(filter(None, words), key=str.lower) + [""] * words.count("")
