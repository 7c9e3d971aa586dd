"""Every network as `quick` builds it, written as ONNX and run by onnxruntime, against torch."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from mer import InputError, onnx_export, transforms
from mer.models import Network
from mer.training.task import Task
from mer.transforms import PICTURES, normalise_flow

CONFIGS = Path(__file__).parents[2] / "experiments/configs"

MODELS = {
    "ststnet": ("ststnet", {}),
    "ahmsa_net": ("ahmsa_net", {}),
    "hsta-flow": ("hsta", {"special": "flow"}),
    "hsta-frames": ("hsta", {"special": "frames", "stages": 1}),
    "mfvan": ("mfvan", {}),
    "off_apexnet": ("off_apexnet", {}),
    "rcn": ("rcn", {}),
    "htnet": ("htnet", {}),
    "timm_baseline": ("timm_baseline", {}),
}
"""Recipe and what the network's arguments have besides."""


def build(name: str, seed: int) -> tuple[Task, int]:
    """A task of a recipe `quick` with random weights and statistics, in training mode, and the size of its inputs."""
    file, arguments = MODELS[name]
    recipe = yaml.safe_load((CONFIGS / f"{file}.yaml").read_text())["quick"]
    size = recipe["data"].get("input_size", 28)
    network = recipe["model"]["init_args"]["network"]
    network["init_args"] = {**network.get("init_args", {}), **arguments, "num_classes": 3, "size": size}
    parser = ArgumentParser()
    parser.add_subclass_arguments(Task, "model")
    torch.manual_seed(seed)
    task = parser.instantiate(parser.parse_object({"model": recipe["model"]})).model
    for module in task.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return task, size


def draw(names: tuple[str, ...], size: int, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs of clips as the suite has them: normalised flow, pictures as bytes."""
    draws, batch = torch.Generator().manual_seed(seed), {"target": torch.zeros(count, dtype=torch.long)}
    for name in names:
        shape = (count, *((6, 3) if name == "frames" else (3,)), size, size)
        pictures = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)
        batch[name] = pictures if name in PICTURES else normalise_flow(torch.randn(shape, generator=draws))
    return batch


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """Seeds of a model, two where it is small, the size of their inputs, and the file that they were written to."""
    path = tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx"
    transforms._imagenet.cache_clear()  # what the exporter traces with must not stay in it, for later predictions
    seeds = (0, 1) if request.param == "ststnet" else (0,)  # an export takes the longer the more there are
    tasks, sizes = zip(*(build(request.param, seed) for seed in seeds))
    content, difference = onnx_export.export(tasks, draw(tasks[0].network.inputs, sizes[0], 1))
    path.write_bytes(content)
    assert 0 <= difference <= onnx_export.TOLERANCE
    return tasks, sizes[0], path


def test_onnxruntime_computes_the_mean_over_the_seeds_for_any_number_of_clips(model):
    tasks, size, path = model
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = tasks[0].network.inputs
    assert {x.name: x.shape[0] for x in session.get_inputs()} == dict.fromkeys(names, "batch")
    for count in (1, 5):
        batch = draw(names, size, count, seed=count)
        with torch.no_grad():
            expected = torch.stack([task.predict_step(batch) for task in tasks]).mean(0).numpy()
        (got,) = session.run(["probabilities"], {name: batch[name].numpy() for name in names})
        assert got.shape == (count, 3) and got.dtype == np.float32
        assert np.abs(got - expected).max() <= 1e-5
    assert expected.std(0).max() > 1e-4  # the clips differ


def test_the_file_holds_its_weights_and_no_path(model):
    _, _, path = model
    onnx.checker.check_model(path.read_bytes())
    assert str(CONFIGS.parents[1]).encode() not in path.read_bytes()


class Mean(Network):
    """A picture's mean colour through a linear layer, after sums over squares of three pixels, divided by 2."""

    inputs = ("apex",)

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, apex):
        pooled = nn.functional.avg_pool2d(apex, 3, divisor_override=2)
        return {"logits": self.head(pooled.mean((2, 3)))}


def test_a_model_that_has_predicted_in_inference_mode_is_written_and_predicts_as_before():
    task, batch = Task(Mean(), mirror_test=True), draw(("apex",), 12, 2)
    transforms._imagenet.cache_clear()
    with torch.inference_mode():
        before = task.predict_step(batch)
    assert onnx_export.export([task], batch)[1] <= 1e-5
    assert torch.equal(task.predict_step(batch), before)


@pytest.fixture
def ststnet():
    """Its only seed, and the inputs of two clips."""
    task, size = build("ststnet", 0)
    return task, draw(("flow",), size, 2)


def test_it_says_nothing(ststnet, capfd, recwarn):
    task, batch = ststnet
    onnx_export.export([task], batch)
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_a_difference_is_refused(ststnet, monkeypatch):
    task, batch = ststnet
    right, written = onnx_export.run, onnx_export.export([task], batch)[0]
    monkeypatch.setattr(onnx_export, "convert", lambda *_: written)
    for wrong in (2e-5, np.nan):
        monkeypatch.setattr(onnx_export, "run", lambda *given, by=wrong: [x + np.float32(by) for x in right(*given)])
        with pytest.raises(InputError, match="no ONNX file is written: .* differ from torch's"):
            onnx_export.export([task], batch)


def test_a_network_that_has_no_onnx_form_is_refused_in_one_line(ststnet, monkeypatch):
    task, batch = ststnet
    forward = task.network.forward
    monkeypatch.setattr(task.network, "forward", lambda flow: forward(flow if flow.sum() > 0 else -flow))
    with pytest.raises(InputError, match=r"STSTNet cannot be written as ONNX: .+") as refusal:
        onnx_export.export([task], batch)
    assert "\n" not in str(refusal.value)


def test_weights_beyond_one_file_are_refused(ststnet, monkeypatch):
    task, batch = ststnet
    monkeypatch.setattr(onnx_export, "LARGEST", 1000)
    with pytest.raises(InputError, match="fit fewer seeds"):
        onnx_export.export([task], batch)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra_it_says_how_to_install_it(ststnet, monkeypatch, package):
    task, batch = ststnet
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*pip install 'mer\[export\]'"):
        onnx_export.export([task], batch)
