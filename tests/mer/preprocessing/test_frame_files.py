import cv2
import numpy as np
import pytest

from mer import InputError
from mer.preprocessing.frame_files import damage, list_frames, read_image

PICTURE = np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)
FORMATS = (".jpg", ".png", ".bmp", ".tif")


def encoded(suffix: str, picture: np.ndarray = PICTURE) -> bytes:
    return cv2.imencode(suffix, picture)[1].tobytes()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("padding", [b"\0" * 4096, b"what a camera adds " * 300])
def test_what_follows_a_whole_image_does_not_matter(tmp_path, suffix, padding):
    whole = encoded(suffix)
    (tmp_path / f"1{suffix}").write_bytes(whole + padding)
    (tmp_path / f"2{suffix}").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2 + 4096))
    first, second = list_frames(tmp_path)
    assert damage(first) == "" and np.array_equal(read_image(first.path).shape, PICTURE.shape)
    if suffix in (".jpg", ".png"):
        assert damage(second) == "is cut off"


def test_a_small_picture_in_the_header_is_no_end(tmp_path):
    whole, small = encoded(".jpg"), encoded(".jpg", PICTURE[:8, :8])
    header = b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small
    (tmp_path / "1.jpg").write_bytes(whole[:2] + header + whole[2:] + bytes(4096))
    (tmp_path / "2.jpg").write_bytes(whole[:2] + header + whole[2:-300] + bytes(4096))
    assert [damage(frame) for frame in list_frames(tmp_path)] == ["", "is cut off"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_few_bits_in_sixteen_are_named(tmp_path, suffix, bits):
    path = tmp_path / f"1{suffix}"
    path.write_bytes(encoded(suffix, PICTURE.astype(np.uint16) << (bits - 8)))
    with pytest.raises(InputError, match=f"highest value is {int(PICTURE.max()) << (bits - 8)}: .*with 8 bits"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_read_as_they_were(tmp_path, suffix):
    path = tmp_path / f"1{suffix}"
    path.write_bytes(encoded(suffix, PICTURE.astype(np.uint16) * 257))
    expected = cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read_image(path), expected)
    assert np.abs(read_image(path).astype(int) - PICTURE[..., ::-1]).max() <= 1


def test_series_without_numbers_in_common_are_one_clip(tmp_path):
    for name in ("a1.jpg", "b2.png", "c3.jpg", "img04.jpg", "img5.jpg", "img05.jpg"):
        (tmp_path / name).write_bytes(encoded(".jpg"))
    frames = list_frames(tmp_path)
    assert [frame.number for frame in frames] == [1, 2, 3, 4, 5]
    assert [frame.others for frame in frames if frame.others] == [("img05.jpg",)]
