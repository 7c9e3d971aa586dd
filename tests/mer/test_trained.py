"""What a model says of a clip is what its weights say of it in the suite, and a wrong model is refused."""

import hashlib
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file

from data_modules.cache import extract
from data_modules.cache.extract import Entry
from data_modules.release.clip_table import rows
from experiments.experiment import Experiment
from mer import InputError, model_folder
from mer.trained import Model, load
from mer.training.task import Task
from tests import fitted

SEEDS = (0, 3)


def expected(experiment: Experiment, weights: dict, row: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities of each seed (seeds, K) for a row of the clip table, and the mean attention, through the suite."""
    data = experiment.data
    data.setup()
    batch = {name: tensor[row : row + 1] for name, tensor in data.store.items()}
    probabilities, attention, threads = [], [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for state in weights.values():
            task: Task = experiment.instantiate().model.eval()
            task.load_state_dict({name: torch.from_numpy(x) for name, x in state.items()})
            with torch.no_grad():
                probabilities.append(task.predict_step(batch))
                if task.network.shows_attention:
                    attention.append(task.attention(batch))
    finally:
        torch.set_num_threads(threads)
    maps = torch.cat(attention).mean(0).numpy() if attention else None
    return torch.cat(probabilities).numpy(), maps


def assert_same(experiment: Experiment, weights: dict, folder: Path, row: int, registered: bool = False) -> None:
    """What a model says of a folder of frames is what the suite says of that clip, bit for bit."""
    data = experiment.data
    clip = list(rows(data.clips))[row]
    frames = data.clip_frames(clip).frames
    apex = data.clip_frames(clip).apex if data.apex == "sheet" else None
    prediction = load(folder, "cpu").predict(
        frames[0].path.parent, onset=frames[0].number, apex=apex, offset=frames[-1].number, registered=registered
    )
    probabilities, attention = expected(experiment, weights, row)
    np.testing.assert_array_equal(prediction.probabilities, probabilities.mean(0))
    np.testing.assert_array_equal(prediction.spread, probabilities.std(0))
    cached = data.read(clip)
    np.testing.assert_array_equal(prediction.flow, cached["flow"][:3])
    np.testing.assert_array_equal(prediction.onset_face.transpose(2, 0, 1), cached["onset"])
    np.testing.assert_array_equal(prediction.apex_face.transpose(2, 0, 1), cached["apex"])
    assert (prediction.onset, prediction.apex, prediction.offset) == (
        frames[0].number, int(cached["apex_frame"][0]), frames[-1].number
    )  # fmt: skip
    assert (prediction.attention is None) == (attention is None)
    if attention is not None:
        np.testing.assert_array_equal(prediction.attention, attention)
    assert prediction.classes == tuple(data.classes) and abs(prediction.probabilities.sum() - 1) < 1e-5
    assert (prediction.face_width is None) == registered and len(prediction.frame_numbers) == len(prediction.movement)


@pytest.mark.parametrize("network", fitted.NETWORKS)
def test_every_network_says_what_it_says_in_the_suite(network, films, films_cache, tmp_path):
    experiment = fitted.recipe(films, films_cache, network)
    weights = fitted.write(tmp_path / "model", experiment, SEEDS)
    for row in (0, len(experiment.data.clips) - 1):
        assert_same(experiment, weights, tmp_path / "model", row)


@pytest.fixture(scope="module")
def few(films, tmp_path_factory):
    """A clip of each subject; the others are on the sheet alone."""
    root = tmp_path_factory.mktemp("few") / "data"
    for subject in films.glob("CASME2_RAW_selected/sub*"):
        clip = next(subject.iterdir())
        shutil.copytree(clip, root / clip.relative_to(films))
    shutil.copy(films / "CASME2-coding-20140508.xlsx", root)
    return root


@pytest.fixture(scope="module")
def registered(few, tmp_path_factory):
    """The same as crops of the faces, as CASME II has them in ``Cropped``."""
    root = tmp_path_factory.mktemp("registered") / "data"
    for frame in few.rglob("img*.jpg"):
        folder = root / "Cropped" / frame.relative_to(few).parts[1] / frame.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"reg_{frame.name}"), cv2.imread(str(frame))[20:220, 70:250])
    shutil.copy(few / "CASME2-coding-20140508.xlsx", root)
    return root


@pytest.mark.parametrize(
    "options",
    [
        ("--data.head_motion=removed",),
        ("--data.crop_size=96",),
        ("--data.apex=spotted", "--data.num_frames=4", "--data.method=farneback"),
        ("--data.motion=both",),
        ("--data.motion=both", "--data.backend=torch", "--data.crop_size=48"),
        ("--data.motion=pairs",),
        (),
    ],
    ids=["head", "size", "spotted", "both", "both-torch", "pairs", "registered"],
)
def test_whatever_makes_its_input(options, few, registered, films_cache, tmp_path, monkeypatch):
    # In this process, whose face finder is open; the test of the networks has workers do it.
    monkeypatch.setattr(extract, "run", lambda entries, workers: map(Entry.write, entries))
    root = few if options else registered
    experiment = fitted.recipe(root, films_cache, "hsta-flow", *options)
    assert experiment.data.release.registered == (not options) and len(experiment.data.clips) > 1
    weights = fitted.write(tmp_path / "model", experiment, (0,))
    assert_same(experiment, weights, tmp_path / "model", 1, registered=not options)


@pytest.fixture(scope="module")
def model(films, films_cache, tmp_path_factory) -> Path:
    """AHMSA-Net's folder, two seeds. Read only."""
    folder = tmp_path_factory.mktemp("models") / "ahmsa"
    fitted.write(folder, fitted.recipe(films, films_cache, "ahmsa_net"), SEEDS)
    return folder


def test_a_video_is_a_folder_of_its_frames(model, films, tmp_path):
    (tmp_path / "frames").mkdir()
    images = sorted(next(films.glob("*/sub02/*")).glob("*.jpg"), key=lambda path: int(path.stem[3:]))
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 100, (320, 240))
    for path in images:
        writer.write(cv2.imread(str(path)))
    writer.release()
    capture, count = cv2.VideoCapture(str(tmp_path / "clip.avi")), 0
    while (read := capture.read())[0]:
        cv2.imwrite(str(tmp_path / f"frames/{count}.png"), read[1])
        count += 1
    assert count == len(images)
    loaded = load(model, "cpu")
    film = loaded.predict(tmp_path / "clip.avi", onset="0.02s", offset=count - 2)
    frames = loaded.predict(tmp_path / "frames", onset="0.02s", offset=count - 2, frames_per_second=100)
    assert film.onset == 2 and film.clip != frames.clip
    for name in ("probabilities", "spread", "flow", "onset_face", "apex_face", "attention", "movement"):
        np.testing.assert_array_equal(getattr(film, name), getattr(frames, name))
    for name in ("onset", "apex", "offset", "frames_per_second", "face_width", "warnings"):
        assert getattr(film, name) == getattr(frames, name)
    pair = loaded.predict(f"{tmp_path}/frames/2.png:{tmp_path}/frames/{film.apex}.png")
    np.testing.assert_array_equal(pair.probabilities, film.probabilities)


def test_the_number_of_threads_changes_nothing_and_stays(model, films):
    loaded, clip = load(model, "cpu"), next(films.glob("*/sub03/*"))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(loaded.predict(clip).probabilities)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)


def test_frames_that_are_missing_are_passed_over(model, films, tmp_path):
    clip = tmp_path / "clip"
    shutil.copytree(next(films.glob("*/sub03/*")), clip)
    loaded = load(model, "cpu")
    whole = loaded.predict(clip)
    middle = whole.onset + 2 if whole.apex != whole.onset + 2 else whole.onset + 3
    (clip / f"img{middle}.jpg").write_bytes(b"no picture")
    assert loaded.predict(clip, apex=whole.apex).label == whole.label
    (clip / f"img{whole.apex}.jpg").unlink()
    near = loaded.predict(clip, apex=whole.apex)
    assert abs(near.apex - whole.apex) == 1


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ({"onset": 10**6}, "lies outside the clip"),
        ({"apex": 0}, "lies outside the clip"),
        ({"onset": "late"}, "'late' is no frame"),
        ({"apex": "0.1s"}, "--frames-per-second"),
        ({"frames_per_second": 5.0}, "spot it first"),
    ],
)
def test_wrong_places_are_named(model, films, places, says):
    with pytest.raises(InputError, match=says):
        load(model, "cpu").predict(next(films.glob("*/sub03/*")), **places)


def test_places_in_a_wrong_order_are_named(model, films):
    clip = next(films.glob("*/sub03/*"))
    first = min(int(path.stem[3:]) for path in clip.glob("*.jpg"))
    for places in ({"apex": first}, {"onset": first + 5, "offset": first + 5}, {"onset": first + 3, "apex": first + 1}):
        with pytest.raises(InputError, match="not in this order"):
            load(model, "cpu").predict(clip, **places)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 900, 3), (40, 40, 3)])
def test_odd_pictures_are_an_input_error_or_predicted(model, tmp_path, shape):
    draws = np.random.default_rng(0)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), draws.integers(0, 255, shape, np.uint8))
    loaded = load(model, "cpu")
    with pytest.raises(InputError, match="no face" if min(shape[:2]) > 16 else "px is the least"):
        loaded.predict(tmp_path)
    if min(shape[:2]) > 16:
        assert loaded.predict(tmp_path, registered=True).probabilities.sum() == pytest.approx(1)


# Wrong models


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


def test_weights_of_another_model(own, films, films_cache, tmp_path):
    fitted.write(tmp_path / "other", fitted.recipe(films, films_cache, "ststnet"), (0,))
    shutil.copy(tmp_path / "other/model.safetensors", own)
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
    assert f"do not fit the network: {name.partition('.')[2]};" in refusal(own)


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
        "[" * 5000,
        "mer: [",
        "x" * (2 << 20),
        "a: &a [1]\nb: *a\n",
        "classes: " + "9" * 5000,
        "\0",
        "{[]: 1}",
    ],
    ids=range(10),
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
        (f"{NETWORK}.widths", [4096, 4096, 4096]),  # it would fill over 600 MB
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


def test_a_device_that_is_not_there(model):
    for name in ("cuda:99", "gpu", ""):
        if name:
            with pytest.raises(InputError, match=f"device '{name}' cannot be used here"):
                load(model, name)
        else:
            assert load(model, name).device.type in ("cpu", "cuda")


def test_a_model_of_flow_maps_predicts_no_clips(flow_maps, films, films_cache, tmp_path):
    fitted.write(tmp_path / "model", fitted.recipe(flow_maps, films_cache, "ststnet", dataset="flow_maps"), (0,))
    with pytest.raises(InputError, match="flow that others have computed"):
        load(tmp_path / "model", "cpu").predict(next(films.glob("*/sub03/*")))
