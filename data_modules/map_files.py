"""Flow maps as files of others: pictures, NumPy arrays, and the formats of the optical flow benchmarks. No torch."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer import InputError
from mer.flow import with_strain
from mer.preprocessing.frame_files import LARGEST
from mer.preprocessing.opencv import cv2

SUPPORTED = (
    "A flow map is an 8- or 16-bit picture of three channels (red u, green v, blue strain), a 16-bit PNG as KITTI's, "
    "a .npy of floats (3, H, W) or (2, H, W), or a .flo"
)
_UNKNOWN = 1e9
"""Middlebury: a larger motion in a .flo means that it is not known."""


def read_map(path: Path) -> NDArray[np.float32]:
    """Read a flow map: u, v and strain, shape (3, H, W).

    - A picture of 8 or 16 bits holds u in red and v in green, its whole range standing for -1..1, and the strain in
      blue, for 0..1.
    - A 16-bit picture whose blue is 0 or 1 everywhere is KITTI's (Menze and Geiger, CVPR 2015): u and v are
      (value - 32768) / 64 px, and 0 where blue is 0. The strain is computed.
    - ``.npy`` holds u, v and strain, or u and v in pixels, first or last dimension; a missing strain is computed.
    - ``.flo`` holds u and v in pixels (Baker et al., IJCV 2011); the strain is computed.

    Raises:
        InputError: If the file is missing, does not open, or holds something else.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(f"{path}: has over {LARGEST >> 20} MB, as no flow map has; it is not read")
        if path.suffix.lower() == ".npy":
            return _of_array(path, _read_array(path))
        if path.suffix.lower() == ".flo":
            return _of_array(path, _read_flo(path))
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return _of_picture(path, content)


def is_picture(path: Path) -> bool:
    """Whether a map is a picture, and not an array of motions in pixels."""
    return path.suffix.lower() not in (".npy", ".flo")


def _of_picture(path: Path, content: NDArray[np.uint8]) -> NDArray[np.float32]:
    try:
        picture = cv2.imdecode(content, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR) if content.size else None
    except cv2.error:  # it claims to have more pixels than memory should be given for
        picture = None
    if picture is None:
        raise InputError(f"{path}: is not an image that opens; copy it again from the original archive")
    if picture.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: is a picture of {picture.dtype}, whose unit nobody can tell. {SUPPORTED}")
    if picture.ndim != 3 or _is_grey(picture):
        raise InputError(f"{path}: is a grey picture, which cannot hold u, v and strain. {SUPPORTED}")
    red_green_blue = picture[..., ::-1].transpose(2, 0, 1).astype(np.float32)
    if picture.dtype == np.uint16 and red_green_blue[2].max() <= 1:
        return with_strain((red_green_blue[:2] - 2**15) / 64 * red_green_blue[2])
    flow = red_green_blue / np.float32(np.iinfo(picture.dtype).max)
    flow[:2] = flow[:2] * 2 - 1
    return flow


def _is_grey(picture: NDArray) -> bool:
    """Whether a picture shows something, but the same in all channels."""
    return bool((picture == picture[..., :1]).all() and (picture != picture[0, 0]).any())


def _read_array(path: Path) -> NDArray:
    try:
        return np.array(
            np.load(path, mmap_mode="r", allow_pickle=False)
        )  # mapped: a size that it only claims is refused
    except (ValueError, TypeError, SyntaxError, EOFError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: is not a NumPy array that opens ({' '.join(str(error).split())[:200]})") from error


def _read_flo(path: Path) -> NDArray:
    try:
        flow = cv2.readOpticalFlow(str(path))
    except cv2.error:
        flow = None
    if flow is None or not flow.size:
        raise InputError(f"{path}: is not a .flo that opens; copy it again from the original archive")
    return flow


def _of_array(path: Path, array: NDArray) -> NDArray[np.float32]:
    if array.ndim == 3 and array.shape[0] not in (2, 3) and array.shape[2] in (2, 3):
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.shape[0] not in (2, 3) or min(array.shape) < 2 or array.dtype.kind != "f":
        raise InputError(f"{path}: is an array {array.shape} of {array.dtype}. {SUPPORTED}")
    if not (np.abs(array) < _UNKNOWN).all():  # a NaN is not, either
        raise InputError(f"{path}: has motions that are not known; give them a value, 0 for no motion")
    flow = np.ascontiguousarray(array, dtype=np.float32)
    return flow if len(flow) == 3 else with_strain(flow)
