import json
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from rich.console import Console

from data_modules import protocols
from data_modules.cache import store
from experiments import report
from experiments.cli import main
from experiments.report import tables
from experiments.report.comparison import LOOK_UP, MAJORITY, NEAREST_MEAN, SUPPORT_VECTORS, read_comparisons
from experiments.report.formatting import interval, number, signed, spread
from experiments.report.leaderboard import HEADER
from experiments.report.scores import KINDS
from experiments.report.terminal import LEADERBOARD
from experiments.results import Cell, cells
from mer.evaluation import scoring
from tests import sweeps
from tests.pages import Tables

KEY = "megc2019-megc2019-loso"
SCORES = ("UF1", "95 % interval", "UAR", "UAR interval", "accuracy", "accuracy interval")


def status(results, capsys):
    capsys.readouterr()
    assert main(["status", "--json", "--results", str(results)]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_page_shows_what_status_says(root, page, capsys):
    leaderboard, parts, classes, optimism = (
        {line[0]: line[1:] for line in Tables(page).tables[f"{KEY}-{name}"][1:]}
        for name in ("leaderboard", "databases", "classes", "optimism")
    )
    for cell in status(root / "results", capsys)[:3]:
        name, summary = f"{cell['model']} ({cell['digest'][:6]})", cell["summary"]
        honest, optimistic = summary["honest"], summary["optimistic"]
        texts = [text for score in honest.values() for text in (spread(score), interval(score))]
        shown = dict(zip(HEADER[1:], leaderboard[name], strict=True))
        assert [shown[column] for column in SCORES] == texts
        assert (shown["seeds"], shown["folds"]) == ("2", "20 / 20")
        assert shown["seeds together, UF1"] == number(cell["ensemble"]["uf1"])
        assert shown["optimistic UF1"] == spread(optimistic["uf1"])
        assert optimism[name][:2] == [number(kind["uf1"]["mean"]) for kind in (honest, optimistic)]
        expected = []
        for part in summary["parts"].values():
            uf1, uar = part["honest"]["uf1"], part["honest"]["uar"]
            expected += [spread(uf1), interval(uf1), spread(uar)]
        assert parts[name] == expected
        by_class = summary["classes"].values()
        assert classes[name] == [spread(scores[score]) for scores in by_class for score in ("f1", "recall")]


def test_the_terminal_prints_the_tables_of_the_page(root, page):
    console = Console(record=True, width=200)
    report.show(root / "results", console)
    printed = [[text.strip() for text in line.strip("│┃").split("│")] for line in console.export_text().splitlines()]
    header, *lines = Tables(page).tables[f"{KEY}-leaderboard"]
    places = [header.index(name) for name in LEADERBOARD]
    for line in lines:
        assert [line[place] for place in places] in printed
    for name, *texts in Tables(page).tables[f"{KEY}-databases"][1:]:
        assert [name, *texts[::3]] in printed


def test_the_summary_is_made_of_the_seeds_and_of_the_pool(root, capsys):
    for content, cell in zip(status(root / "results", capsys), cells(root / "results"), strict=True):
        tables = [cell.pooled(seed) for seed in cell.seeds()]
        for kind, column in KINDS.items():
            for name in scoring.SCORES:
                figure = content["summary"][kind][name]
                values = [seed[kind][name] for seed in content["seeds"]]
                assert figure["mean"] == pytest.approx(np.mean(values), abs=1e-15)
                assert figure["deviation"] == (pytest.approx(np.std(values, ddof=1)) if len(values) > 1 else None)
                assert (figure["low"], figure["high"]) == scoring.interval(tables, cell.classes, name, column)
        uf1 = np.mean([scores["f1"]["mean"] for scores in content["summary"]["classes"].values()])
        assert uf1 == pytest.approx(content["summary"]["honest"]["uf1"]["mean"])


def test_markdown_has_the_same_tables(root, page):
    text = (root / "results/report/report.md").read_text()
    for key, rows in Tables(page).tables.items():
        if "-confusion-" not in key:  # there the page shows shares too
            for row in rows:
                assert "| " + " | ".join(row) + " |" in text


def test_confusion_counts_every_clip_of_every_seed(comparison, page):
    shown = Tables(page).tables
    for model in comparison.models:
        expected = sum(scoring.confusion(table, comparison.classes) for table in model.tables)
        table = tables.confusion(model)
        assert [[int(text) for text in line.texts[1:]] for line in table.lines] == expected.tolist()
        assert expected.sum() == 2 * len(comparison.clips) and table.key in shown


def test_seeds_together_stand_beside(root, comparison, page):
    shown = {line[0]: line for line in Tables(page).tables[f"{KEY}-leaderboard"]}
    column = shown["model"].index("seeds together, UF1")
    cells_of = {cell["model"]: cell for cell in report.status(root / "results") if cell["protocol"] == "megc2019"}
    for model in comparison.models:
        uf1 = scoring.scores(scoring.ensemble(model.tables, comparison.classes), comparison.classes)["uf1"]
        assert shown[model.name][column] == number(uf1)
        assert cells_of[model.cell.model]["ensemble"]["uf1"] == uf1
    assert not shown["majority class"][column]


def test_the_answers_come_first(comparison, page):
    first = comparison.tests[0]
    assert [model.cell.model for model in comparison.models] == ["ahmsa_net", "hsta", "ststnet"]
    assert (first.first, first.second) == (comparison.models[0].name, comparison.models[1].name)
    assert first.subjects == 10 and first.clips == 60 and first.seeds == 2
    uf1 = [model.uf1 for model in comparison.models]
    assert first.difference == pytest.approx(uf1[0] - uf1[1])
    assert first.corrected == min(1, max(test.corrected for test in comparison.tests if test.p <= first.p))
    answers = page.split('<dl class="answers">')[1].split("</dl>")[0]
    for word in ("ahmsa_net", signed(first.difference), "Yes", "It depends on the class", "surprise middle"):
        assert word in answers
    assert page.index("answers") < page.index("<table")


def test_an_unfinished_model_is_not_ranked(root, tmp_path):
    shutil.copytree(root / "results/megc2019", tmp_path / "megc2019")
    for path in tmp_path.glob("*/*/*/ahmsa_net-*/seed1/samm-*.csv"):
        path.unlink()
    report.write(tmp_path)
    ((comparison,), _) = read_comparisons(tmp_path)
    assert [model.cell.model for model in comparison.models] == ["hsta", "ststnet", "ahmsa_net"]
    assert (
        not comparison.models[2].complete
        and comparison.test(*(comparison.models[place].name for place in (0, 2))).subjects == 7
    )
    text = (tmp_path / "report/report.md").read_text()
    assert "17 / 20" in text and "not ranked: ahmsa_net (012345)" in text


def test_chance_is_the_majority_class_where_the_other_model_is_not_finished(root, tmp_path):
    first = next((root / "results/megc2019").glob("*/*/ahmsa_net-*"))
    for digest in ("0123456789ab", "fedcba987654"):  # the same predictions twice
        shutil.copytree(first, tmp_path / f"megc2019/megc2019/loso/ahmsa_net-{digest}")
    next(tmp_path.glob("*/*/*/ahmsa_net-fed*/seed1/samm-*.csv")).unlink()
    text = report.write(tmp_path).with_name("report.md").read_text()
    assert "- Is it more than chance? **Yes** UF1 against the majority class +" in text


def test_models_on_other_clips_are_told(root, tmp_path):
    shutil.copytree(root / "results/megc2019", tmp_path / "megc2019")
    cell = Cell(tmp_path, "megc2019", "megc2019", "loso", "timm_baseline", "0123456789ab")
    classes = protocols.protocol("megc2019").classes
    sweeps.write_cell(cell, sweeps.clip_table({"smic": 3, "casme3": 2}, 6, classes, coded=()), 1, 9.0)
    text = report.write(tmp_path).with_name("report.md").read_text()
    assert text.count("Not on the clips of the first, so not comparable here: ahmsa_net (012345), hsta") == 1
    assert "| timm_baseline (012345) | ahmsa_net (012345) | 3 | 18 | 1 |" in text


def test_references_stand_beside(comparison, page):
    shown = {line[0]: line for line in Tables(page).tables[f"{KEY}-leaderboard"][1:]}
    chance = scoring.scores(comparison.references[MAJORITY], comparison.classes)
    assert shown["majority class"][2] == number(chance["uf1"])
    assert f"{LOOK_UP} (42 of 60 clips)" in shown
    assert not [name for name in shown if "STSTNet" in name]  # these are not the published clips


def test_every_model_is_tested_against_the_support_vectors_too(comparison, page):
    names = [model.name for model in comparison.models]
    against = [(test.first, test.second) for test in comparison.tests]
    assert against[3:] == [(name, other) for name in names for other in (MAJORITY, SUPPORT_VECTORS)]
    assert "against the support vectors" in page.split('<dl class="answers">')[1].split("</dl>")[0]
    assert f"Support vectors and nearest class mean: on the flow maps of {names[0]}." in page


def test_without_the_flow_map_of_every_clip_there_is_no_classifier(root, tmp_path):
    shutil.copytree(root / "results/megc2019", tmp_path / "megc2019")
    fold = "samm-sub01.safetensors"
    next(tmp_path.glob(f"*/*/*/ahmsa_net-*/seed0/{fold}")).unlink()  # another seed has it
    ((comparison,), _) = read_comparisons(tmp_path)
    assert comparison.flow[0] == comparison.models[0].name and SUPPORT_VECTORS in comparison.references
    next(tmp_path.glob(f"*/*/*/ahmsa_net-*/seed1/{fold}")).unlink()
    ((comparison,), _) = read_comparisons(tmp_path)
    assert comparison.flow[0] == comparison.models[1].name and NEAREST_MEAN in comparison.references
    for place, path in enumerate(tmp_path.glob(f"*/*/*/*/seed*/{fold}")):
        store.write(path, {"flow": np.zeros((6, 3, 12, 11))}) if place % 2 else path.write_bytes(b"broken")
    ((comparison,), _) = read_comparisons(tmp_path)
    assert comparison.flow is None and list(comparison.references) == [MAJORITY, LOOK_UP]
    assert {test.second for test in comparison.tests}.isdisjoint({SUPPORT_VECTORS})
    assert SUPPORT_VECTORS.capitalize() not in report.write(tmp_path).with_name("report.md").read_text().split("## ")[1]


def test_texts_of_files_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    classes = protocols.protocol("megc2019").classes
    clips = sweeps.clip_table({"smic": 3}, 6, classes, coded=("smic",))
    clips = clips.assign(clip=clips["clip"] + evil, action_units=clips["action_units"] + evil, dataset="smic<b>")
    clips["subject"] += '"><img src=x>'
    cell = Cell(tmp_path, "<u>", "megc2019", "groups2", "<em>", "0123456789ab")
    sweeps.write_cell(cell, clips, 1, 1.0, maps=True, facts={"device": evil})
    page = report.write(tmp_path).read_text()
    assert evil not in page and "<img src=x>" not in page and "<u>" not in page and "smic<b>" not in page
    assert "&lt;script&gt;" in page and "&lt;u&gt;" in page and "Gallery" in page


def test_the_page_needs_nothing_but_itself(page):
    parsed = Tables(page)
    assert parsed.addresses and all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert "link" not in parsed.tags or page.count("<link") == 1
    assert "@import" not in page and "url(" not in page and "http" not in re.sub("base64,[^\"']*", "", page)


def test_the_same_results_give_the_same_page(root, page, tmp_path):
    shutil.copytree(root / "results", tmp_path / "results")
    assert report.write(tmp_path / "results", root / "cache").read_text() == page


def test_no_torch_is_imported(root, tmp_path):
    code = "import sys, experiments.cli as cli\n" + (
        f"cli.main(['report', '--results', {str(root / 'results')!r}, '--cache', {str(root / 'cache')!r}])\n"
        "print([name for name in ('torch', 'lightning', 'mediapipe', 'wandb') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.endswith("[]\n") and "index.html" in shown.stdout
    assert shown.stderr.startswith("next: ") and shown.stderr.count("\n") == 1


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_without_results_there_is_one_message(what, tmp_path, capsys):
    results = tmp_path / "results"
    if what == "empty":
        results.mkdir()
    elif what == "file":
        results.write_text("")
    assert main(["report", "--results", str(results)]) == 2
    out, error = capsys.readouterr()
    assert error.count("\n") == 1 and str(results) in error and "--results" in error and not out
    assert not (tmp_path / "results/report").exists()


@pytest.mark.parametrize(
    ("pattern", "content", "folds", "words"),
    [
        ("seed0/samm-sub01.csv", "dataset,subject\n", "19 / 20", "its columns are dataset, subject"),
        ("seed0/samm-sub01.json", "{", "20 / 20", ""),
        ("clips.csv", "a,b\n", "", "clip table"),
        ("config.yaml", "[", "20 / 20", ""),
    ],
)
def test_a_damaged_file_is_left_out_and_named(root, tmp_path, capsys, pattern, content, folds, words):
    shutil.copytree(root / "results/megc2019", tmp_path / "megc2019")
    path = next(tmp_path.glob(f"*/*/*/hsta-*/{pattern}"))
    path.write_text(content)
    report.show(tmp_path, Console(width=150))
    printed = capsys.readouterr().out
    assert (f"left out: {path}: " in printed and words in printed) if words else "left out" not in printed
    row = next((line for line in printed.splitlines() if line.startswith("│ hsta")), "")
    assert folds in row if folds else not row
    faults = [text for cell in status(tmp_path, capsys) for text in cell["left_out"]]
    assert len(faults) == bool(words) and all(words in text for text in faults)
    assert path.read_text() == content  # reading changes nothing


def test_recipes_of_one_model_are_told_apart(root, tmp_path):
    shutil.copytree(root / "results/megc2019", tmp_path / "megc2019")
    first = next(tmp_path.glob("*/*/*/ststnet-*"))
    second = first.with_name("ststnet-fedcba987654")
    shutil.copytree(first, second)
    (second / "config.yaml").write_text((first / "config.yaml").read_text().replace("lr: 0.5", "lr: 0.25"))
    page = report.write(tmp_path).read_text()
    shown = Tables(page).tables[f"{KEY}-recipes"]
    assert "Several recipes of ststnet: who keeps the best of them has tuned it here." in page
    assert sorted(row[1:] for row in shown[1:]) == [["model.lr", "0.25"], ["model.lr", "0.5"]]


def test_a_few_subjects_cannot_tell(root, tmp_path):
    clips = sweeps.clip_table({"smic": 4}, 6, protocols.protocol("megc2019").classes, coded=())
    for model, skill in (("hsta", 9.0), ("ststnet", 0.1)):
        sweeps.write_cell(Cell(tmp_path, "megc2019", "megc2019", "loso", model, "0123456789ab"), clips, 1, skill)
    assert "Too few subjects to tell" in report.write(tmp_path).with_name("report.md").read_text()


def test_a_fold_of_other_clips_is_none(root, tmp_path, capsys):
    shutil.copytree(root / "results/samm", tmp_path / "samm")
    (seed,) = tmp_path.glob("*/*/*/*/seed0")
    (seed.parent / "seed1").mkdir()
    next(seed.glob("*.csv")).rename(seed.parent / "seed1/samm-gone.csv")
    (content,) = status(tmp_path, capsys)
    assert [(seed["seed"], seed["folds_done"]) for seed in content["seeds"]] == [(0, 3)]
    assert "3 / 4" in report.write(tmp_path).read_text()


def test_nothing_done_yet_is_a_page_too(tmp_path):
    assert "No fold is done yet" in report.write(tmp_path).read_text()
    console = Console(record=True, width=100)
    report.show(tmp_path, console)
    assert "no fold is done yet" in console.export_text()


def test_small_databases_warn_once_in_the_table(tmp_path):
    clips = sweeps.clip_table({"casme2": 2, "smic": 2}, 6, protocols.protocol("megc2019").classes, coded=())
    clips = clips[(clips["dataset"] != "smic") | (clips["target"] != "surprise")].reset_index(drop=True)
    sweeps.write_cell(Cell(tmp_path, "megc2019", "megc2019", "loso", "hsta", "0123456789ab"), clips, 1, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.write(tmp_path)
    assert "smic has no clip of surprise" in (tmp_path / "report/report.md").read_text()
