"""A model's folder that is damaged, of another version or hostile is refused, and nothing in it runs."""

import hashlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file

from experiments.experiment import Experiment
from experiments.jobs import Job
from mer import InputError, model_folder
from mer.trained import Model, load
from tests import fitted, trees

SEEDS = (0, 3)


def write(folder: Path, network: str) -> Path:
    """A model's folder as the suite writes it, of weights as they are before training."""
    root = trees.casme2(folder.with_name(f"data of {network}"))
    fitted.write_untrained(folder, Experiment(Job("casme2", network, root=str(root))), SEEDS)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """AHMSA-Net's folder, two seeds. Read only."""
    return write(tmp_path_factory.mktemp("models") / "ahmsa", "ahmsa_net")


@pytest.fixture
def own(model, tmp_path) -> Path:
    """A model to spoil."""
    return Path(shutil.copytree(model, tmp_path / "own"))


def change(folder: Path, place: str, value: object) -> None:
    """Set a value of ``config.yaml`` by its place, as ``input.crop_size``; the checksum of the weights stays right."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    *parents, name = place.split(".")
    inner = config
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[name] = value
    if value is None:
        del inner[name]
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def refusal(folder: Path, **arguments) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, **{"device": "cpu", **arguments})
    text = str(caught.value)
    assert str(folder) in text and "\n" not in text and len(text) < 2_000
    return text


def test_no_model(tmp_path, own):
    assert "mer fit" in refusal(tmp_path)
    assert "mer fit" in refusal(tmp_path / "none")
    assert "mer fit" in refusal(own / "README.md")
    (own / "model.safetensors").unlink()
    assert "cannot be read" in refusal(own)


def test_one_wrong_byte(own):
    file = own / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "is damaged" in refusal(own) and "copy the model again" in refusal(own)


def test_weights_of_another_model(own, tmp_path):
    shutil.copy(write(tmp_path / "other", "ststnet") / "model.safetensors", own)
    assert "belongs to another config.yaml" in refusal(own)
    change(own, "sha256", hashlib.sha256((own / "model.safetensors").read_bytes()).hexdigest())
    assert "fit it anew" in refusal(own)


def test_a_seed_that_has_no_weights(own):
    change(own, "seeds", [0, 3, 7])
    assert "fit it anew" in refusal(own)


def test_weights_that_are_not_safetensors(own, tmp_path):
    class Trace:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trace",)

    torch.save({"seed0.x": Trace()}, own / "model.safetensors")
    change(own, "sha256", hashlib.sha256((own / "model.safetensors").read_bytes()).hexdigest())
    assert "cannot be read" in refusal(own) and not (tmp_path / "trace").exists()


def test_weights_of_another_shape(own):
    weights = load_file(own / "model.safetensors")
    name = next(name for name, x in weights.items() if x.ndim > 1)
    weights[name] = np.zeros((2, 2), np.float32)
    save_file(weights, own / "model.safetensors")
    change(own, "sha256", hashlib.sha256((own / "model.safetensors").read_bytes()).hexdigest())
    assert name.partition(".")[2] in refusal(own)


@pytest.mark.parametrize("part", ["flow", "preprocessing", "transforms", "network"])
def test_another_revision(own, part):
    change(own, f"revisions.{part}", 999)
    assert part in refusal(own) and "fit the model again" in refusal(own)


def test_a_revision_of_this_code(own, monkeypatch):
    monkeypatch.setattr(model_folder.clip, "REVISION", 10**6)
    assert "preprocessing" in refusal(own)


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> str:
    """A module of somebody else; whoever imports it leaves a trace."""
    (tmp_path / "stranger.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'trace')!r}).touch()\n"
        "from mer.models.ahmsa_net import AHMSANet\nfrom mer.training.task import Task\n"
        "class Net(AHMSANet):\n    pass\nclass Own(Task):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "stranger"
    sys.modules.pop("stranger", None)


@pytest.mark.parametrize("place", ["model.class_path", "model.init_args.network.class_path"])
def test_a_class_of_somebody_else_is_imported_only_if_it_is_allowed(own, stranger, tmp_path, place):
    change(own, place, f"{stranger}.{'Net' if 'network' in place else 'Own'}")
    with pytest.raises(InputError, match="'stranger\\.(Net|Own)', which is not imported.*--allow"):
        load(own, "cpu")
    assert not (tmp_path / "trace").exists() and stranger not in sys.modules
    assert isinstance(load(own, "cpu", allow=[stranger]), Model) and (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "path",
    ["os.system", "mer.model_folder.import_module", "mer.trained.load", "mer.models.ststnet.nn", "merry.Net", "mer", ""]
    + ["mer..x.Y", ".mer.X", "mer.no_such.Net", "mer.models.NoNet", "mer.models.Network", "mer.training.task.Task"],
)
def test_a_network_that_is_none(own, path):
    change(own, "model.init_args.network.class_path", path)
    with pytest.raises(InputError):
        load(own, "cpu")


def test_yaml_that_would_run_code(own, tmp_path):
    trace, config = tmp_path / "trace", own / "config.yaml"
    text = config.read_text()
    for tag in (
        f"!!python/object/apply:os.system ['touch {trace}']",
        "!!python/name:os.system ''",
        "!!python/tuple []",
    ):
        config.write_text(text.replace("classes:", f"extra: {tag}\nclasses:"))
        assert "cannot be read" in refusal(own) and not trace.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "- 1",
        "[" * 1500,  # deeper than Python may call itself
        "mer: [",
        "classes: " + "9" * 5000,
        "\0",
        "{[]: 1}",
    ],
    ids=range(8),
)
def test_a_configuration_that_is_none(own, text):
    (own / "config.yaml").write_text(text)
    assert "config.yaml" in refusal(own)


@pytest.mark.parametrize("key", ["mer", "classes", "seeds", "model", "input", "revisions", "sha256"])
@pytest.mark.parametrize("value", [None, 5, [[]], {"a": 1}, "text", [], {}])
def test_a_key_that_is_missing_or_of_another_kind(own, key, value):
    if (key, value) == ("mer", "text"):
        return  # any version may be named
    change(own, key, value)
    refusal(own)


NETWORK = "model.init_args.network.init_args"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("classes", ["a"]),
        ("classes", ["a", "b"]),
        ("classes", ["a", "a", "b"]),
        ("classes", [["a"], {}, 3]),
        ("seeds", [0, 0]),
        ("seeds", [True]),
        ("seeds", [-1]),
        ("seeds", ["0", "3"]),
        ("seeds", [{}]),
        ("input.inputs", ["frames"]),
        ("input.inputs", "flow"),
        ("input.inputs", [["flow"]]),
        ("input.inputs", ["pixels"]),
        ("input.inputs", None),
        ("input.input_size", -28),
        ("input.input_size", 10**9),
        ("input.input_size", 64),
        ("input.input_size", "28"),
        ("input.input_size", None),
        ("input.crop_size", 0),
        ("input.crop_size", 10**7),
        ("input.crop_size", 64.5),
        ("input.num_frames", -2),
        ("input.num_frames", 10**6),
        ("input.method", "guess"),
        ("input.method", ["tvl1"]),
        ("input.backend", "gpu"),
        ("input.head_motion", "gone"),
        ("model.init_args", [1]),
        ("model.init_args", None),
        ("model.init_args.network", "mer.models.ststnet.STSTNet"),
        ("model.init_args.lr", -1),
        ("model.init_args.no_such", 1),
        ("model.class_path", 5),
        (f"{NETWORK}.num_classes", 10**9),
        (f"{NETWORK}.num_classes", "three"),
        (f"{NETWORK}.size", -1),
        (f"{NETWORK}.widths", [10**9, 10**9, 10**9]),
        (f"{NETWORK}.widths", [-8, -16]),
        (f"{NETWORK}.heads", [1.5, 3]),
        (f"{NETWORK}.heads", [True, True]),
        (f"{NETWORK}.widths", [{"a": 1}]),
        (f"{NETWORK}.depths", [10**9]),
        (f"{NETWORK}.no_such", 1),
        (NETWORK, [1]),
        ("revisions.flow", "one"),
        ("revisions", {}),
    ],
)
def test_odd_values(own, place, value):
    change(own, place, value)
    refusal(own)
