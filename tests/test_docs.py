import inspect
import re
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import cv2
import numpy as np
import pytest
import torch
import yaml
from skimage.data import astronaut

import mer
from experiments.benchmarks.model_table import PAGE, TITLES, build, count, page, short
from mer import onnx_export
from mer.training.mfvan_task import MFVANTask
from tests.experiments.demo.conftest import write_model, write_video

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
SITE = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
ISSUES = [str(path.relative_to(ROOT)) for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")]
SECTIONS = {section.split("\n")[0]: section for section in PAGE.read_text().split("\n## ")}


def shapes(model, recipe):
    """Shapes of one clip in a network, joined as they are written: inputs, what every part gives, kernels."""
    network, clip = build(model, recipe)
    seen = {value.shape[1:] for value in clip.values()}

    def note(part, _, output):
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, torch.Tensor):
            seen.add(output.shape[1:])
            seen.add((output.shape[-1], *output.shape[1:-1]))  # channels first, as the diagrams say it
        seen.add(getattr(part, "kernel_size", ()))

    for part in network.modules():
        part.register_forward_hook(note)
    count(network, clip)
    return {"×".join(map(str, shape)) for shape in seen if isinstance(shape, tuple)}


def test_the_table_is_what_the_networks_make():
    assert PAGE.read_text() == page(), "run python -m experiments.benchmarks.model_table"


@pytest.mark.parametrize("model", ["ahmsa_net", "hsta", "htnet", "mfvan", "off_apexnet", "rcn"])
def test_the_shapes_in_the_diagrams_are_those_of_the_network(model):
    diagrams = "".join(re.findall(r"```mermaid\n(.*?)```", SECTIONS[TITLES[model]], flags=re.S))
    written = set(re.findall(r"\d+(?:×\d+)+", diagrams))
    assert len(written) > 2
    assert written <= shapes(model, "quick") | shapes(model, "paper")


def test_the_text_on_mfvan_has_its_sizes_and_weights():
    network, _ = build("mfvan", "paper")
    for part in (network, network.encoder, network.identities, network.decoder, network.attentions):
        assert short(sum(value.numel() for value in part.parameters())) in SECTIONS["MFVAN"]
    default = {name: value.default for name, value in inspect.signature(MFVANTask).parameters.items()}
    for weight, name in {"λ_mask": "lambda_mask", "λ_identity": "lambda_identity", "ρ": "mask_share"}.items():
        assert f"{weight} = {default[name]:g}" in SECTIONS["MFVAN"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
    if DOCS in path.parents:  # else the link works in the repository and not on the site
        assert [link for link in links if not (path.parent / link).resolve().is_relative_to(DOCS)] == []


def pages_of(entries):
    """Paths in a part of the site's navigation."""
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else pages_of(value)


def test_every_page_is_in_the_navigation():
    assert {str(path.relative_to(DOCS)) for path in PAGES if DOCS in path.parents} <= set(pages_of(SITE["nav"]))


def test_the_reference_names_what_there_is():
    pages = [path.read_text() for path in (DOCS / "reference").glob("*.md")]
    names = re.findall(r"^::: ([\w.]+)$", "\n".join(pages), flags=re.M)
    assert len(names) > 30
    for name in names:
        resolve_name(name)


@pytest.mark.parametrize("path", [".github/workflows/docs.yml", *ISSUES])
def test_yaml_of_the_forge_opens(path):
    assert isinstance(yaml.safe_load((ROOT / path).read_text()), dict)


def test_a_multiply_add_counts_as_two():
    convolutions, linear = 28 * 28 * 16 * 27, 400 * 3
    assert count(*build("ststnet", "paper")) == (1683, 2 * (convolutions + linear))


def examples(name):
    """The Python of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / f"docs/{name}.md").read_text(), flags=re.S)


@pytest.fixture
def model_and_clip(tmp_path, monkeypatch):
    """What the pages on models name lies in the current folder: a model with its ONNX file, a video, two pictures."""
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    folder = write_model(Path("models/casme3-ststnet"), 0)
    model = mer.load(folder, device="cpu")
    (folder / "model.onnx").write_bytes(onnx_export.export(model.tasks, {"flow": torch.randn(2, 3, 28, 28)})[0])
    onset = cv2.cvtColor(astronaut()[:300, 60:400], cv2.COLOR_RGB2BGR)
    y, x = np.mgrid[:300, :340].astype(np.float32)
    lift = 2 * np.exp(-(((y - 85) / 15) ** 2 + ((x - 165) / 40) ** 2)).astype(np.float32)  # of the brows
    frames = [cv2.remap(onset, x, y + share * lift, cv2.INTER_CUBIC) for share in (0, 0.5, 1, 0.5)]
    cv2.imwrite("onset.png", frames[0])
    cv2.imwrite("apex.png", frames[2])
    write_video(Path("clip.avi"), frames)
    return model


def test_the_onnx_file_gives_what_the_model_predicts(model_and_clip):
    (example,) = examples("fit")
    names = {}
    exec(example, names)
    expected = model_and_clip.predict("onset.png:apex.png")
    np.testing.assert_allclose(names["probabilities"][0], expected.probabilities, atol=1e-5)
    assert np.abs(expected.flow[:2]).max() > 0.5


def test_the_example_of_a_prediction_runs(model_and_clip, capsys):
    (example,) = examples("predict")
    names = {}
    exec(example, names)
    assert names["result"].flow.shape == (3, 128, 128)
    assert capsys.readouterr().out.startswith(names["result"].label)


def test_the_example_of_scores_gives_what_the_page_says(capsys):
    (example,) = examples("scores")
    exec(example, {})
    first, of_a_class, interval = capsys.readouterr().out.splitlines()
    assert first.startswith("{'uf1': 0.75, 'uar': 0.777") and "'accuracy': 0.75" in first
    assert of_a_class.startswith("{'clips': 3, 'f1': 0.5, 'recall': 0.333")
    low, high = map(float, re.findall(r"\d\.\d+", interval))
    assert (round(low, 3), round(high, 3)) == (0.267, 0.822)
