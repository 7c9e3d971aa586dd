import wave

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from mer import InputError
from mer.preprocessing.clip import read_frame
from mer.preprocessing.video import open_clip

FRAMES = 30
CONTAINERS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "VP80"}


def picture(number: int) -> np.ndarray:
    """A portrait that moves to the right, BGR."""
    return np.roll(cv2.cvtColor(astronaut()[:240, 100:420], cv2.COLOR_RGB2BGR), number, axis=1)


@pytest.fixture(scope="module", params=CONTAINERS)
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / f"clip{request.param}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*CONTAINERS[request.param]), 100, (320, 240))
    for number in range(FRAMES):
        writer.write(picture(number))
    writer.release()
    return path


def test_a_video_has_numbered_frames_and_a_rate(video):
    clip = open_clip(video)
    assert (clip.first, clip.last, clip.frames_per_second) == (0, FRAMES - 1, 100)
    frames = dict(clip.frames())
    assert list(frames) == list(range(FRAMES))
    for number in (0, 17, FRAMES - 1):  # what it holds is what was filmed, in RGB, as far as the compression lets it
        image = read_frame(frames[number])
        truth = cv2.cvtColor(picture(number), cv2.COLOR_BGR2RGB)
        wrong = cv2.cvtColor(picture(number + 4), cv2.COLOR_BGR2RGB)
        assert np.abs(image.astype(int) - truth).mean() < 8 < np.abs(image.astype(int) - wrong).mean()
    part = dict(clip.frames(5, 8))
    assert list(part) == [5, 6, 7, 8]
    np.testing.assert_array_equal(read_frame(part[7]), read_frame(frames[7]))
    assert open_clip(video, 25).frames_per_second == 25


def test_a_video_that_breaks_off_is_named(tmp_path):
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 100, (320, 240))
    for number in range(FRAMES):
        writer.write(picture(number))
    writer.release()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = open_clip(cut)
    assert len(list(clip.frames(0, 9))) == 10  # what is there can be used
    with pytest.raises(InputError, match=r"cut\.avi: breaks off after 1\d of 30 frames"):
        list(clip.frames())


@pytest.mark.parametrize("kind", ["nonsense", "empty", "sound", "picture", "nothing", "empty folder"])
def test_what_is_no_clip_is_named(tmp_path, kind, capfd):
    path = tmp_path / "clip.mp4"
    if kind == "nonsense":
        path.write_bytes(b"no video at all" * 1000)
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "sound":
        with wave.open(str(path := tmp_path / "clip.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(16000))
    if kind == "picture":
        cv2.imwrite(str(path := tmp_path / "clip.png"), picture(0))
    if kind == "empty folder":
        path.mkdir()
    with pytest.raises(InputError) as error:
        list(open_clip(path).frames())
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # the decoder's own complaints say nothing more


def test_a_folder_goes_by_the_numbers_in_the_names(tmp_path):
    for number in (12, 9, 10):
        cv2.imwrite(str(tmp_path / f"img{number}.png"), picture(number))
    clip = open_clip(tmp_path, 200)
    assert [number for number, _ in clip.frames()] == [9, 10, 12]
    assert [number for number, _ in clip.frames(10, 12)] == [10, 12]
    assert (clip.first, clip.last, clip.frames_per_second) == (9, 12, 200)


def test_two_pictures_are_onset_and_apex(tmp_path):
    for name in ("a.png", "b.jpg"):
        cv2.imwrite(str(tmp_path / name), picture(0))
    clip = open_clip(f"{tmp_path}/a.png:{tmp_path}/b.jpg")
    assert list(clip.frames()) == [(0, tmp_path / "a.png"), (1, tmp_path / "b.jpg")]


def test_places_are_numbers_or_seconds(tmp_path):
    for number in range(10, 31):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(0)[:20, :20])
    clip = open_clip(tmp_path, 50)
    assert [clip.number(place) for place in (12, "12", "0.1s", "0s")] == [12, 12, 15, 10]
    for place in (9, 31, "soon", "nan", "nans", "1e400s", "0.5"):
        with pytest.raises(InputError, match=str(tmp_path)):
            clip.number(place)
    with pytest.raises(InputError, match="frames-per-second"):
        open_clip(tmp_path).number("0.1s")
