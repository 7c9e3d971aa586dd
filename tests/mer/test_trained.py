"""What a model says of a clip is what its weights say of it in the suite."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_modules.cache import extract
from data_modules.cache.extract import Entry
from data_modules.release.clip_table import rows
from experiments.experiment import Experiment
from mer import InputError, trained
from mer.preprocessing.spotting import Interval, Spotted
from mer.trained import load
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
        ("--data.motion=both", "--data.method=farneback"),
        ("--data.motion=both", "--data.backend=torch", "--data.crop_size=48"),
        ("--data.motion=pairs", "--data.method=farneback"),
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


def test_an_interval_without_a_face_costs_no_other_one(model, films, tmp_path, monkeypatch):
    images = sorted(next(films.glob("*/sub02/*")).glob("*.jpg"), key=lambda path: int(path.stem[3:]))
    last = len(images)
    for number, path in enumerate(images, start=1):
        shutil.copy(path, tmp_path / f"{number}.jpg")
    for number in range(last + 1, last + 11):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), np.full((240, 320, 3), 128, np.uint8))
    intervals = (Interval(last, last + 4, last + 8, 2.0), Interval(0, 5, last - 1, 1.0))
    monkeypatch.setattr(trained, "spot_intervals", lambda frames, _: Spotted(np.zeros(len([*frames])), 0.3, intervals))
    spotted, (prediction,), (error,) = load(model, "cpu").predict_long(tmp_path, frames_per_second=100)
    assert spotted.intervals == intervals[1:] and (prediction.onset, prediction.offset) == (1, last)
    assert prediction.seconds(prediction.onset) == 0 and prediction.seconds(prediction.offset) == (last - 1) / 100
    assert str(error).startswith(f"{tmp_path}, frames {last + 1} to {last + 9}: left out, as ") and "no face" in str(
        error
    )


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
