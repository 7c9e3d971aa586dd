"""Optical flow between two frames of a face, and the strain of the skin computed from it.

Nothing here imports torch, so that the processes that fill a cache start fast. The results do not depend on OpenCV's
number of threads.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mer.preprocessing.opencv import cv2

METHODS = ("tvl1", "farneback", "dis")

REVISION = 1
"""Part of a cache's digest: raised by hand when a change here or in ``mer.flow.tvl1`` changes a flow map."""

SMALLEST = 16
"""Shortest side of a frame in px; DIS fails on smaller ones."""


def optical_flow(
    first: NDArray[np.uint8], second: NDArray[np.uint8], method: Literal["tvl1", "farneback", "dis"] = "tvl1"
) -> NDArray[np.float32]:
    """Dense optical flow from one frame to a later one.

    A point at (x, y) in ``first`` is at (x + u, y + v) in ``second``. The methods, all by OpenCV:

    - ``tvl1``: Zach, Pock and Bischof, DAGM 2007, with OpenCV's defaults. Keeps the edges of a motion and is the least
      disturbed by noise; takes about a hundred times as long as the others.
    - ``farneback``: Farnebäck, SCIA 2003; three levels, a window of 15 px, polynomials over 5 px. A smaller window
      follows finer motion and more of the noise.
    - ``dis``: Kroeger, Timofte, Dai and Van Gool, ECCV 2016, preset "medium".

    Args:
        first: Earlier frame, uint8, grey (H, W) or RGB (H, W, 3).
        second: Later frame, like ``first``.
        method: One of ``METHODS``.

    Returns:
        Flow in pixels, shape (2, H, W); channel 0 points right, channel 1 down.

    Raises:
        ValueError: If the frames are not such images, differ in shape or are smaller than ``SMALLEST``, or the method
            is unknown.
    """
    if first.shape != second.shape:
        raise ValueError(f"the two frames differ in shape: {first.shape} and {second.shape}")
    earlier, later = grey(first), grey(second)
    if method == "tvl1":
        flow = cv2.optflow.DualTVL1OpticalFlow_create().calc(earlier, later, None)  # pyright: ignore
    elif method == "farneback":
        settings = {"pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.1}
        flow = cv2.calcOpticalFlowFarneback(earlier, later, None, **settings, flags=0)  # pyright: ignore
    elif method == "dis":
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(earlier, later, None)  # pyright: ignore
    else:
        raise ValueError(f"no optical flow is called '{method}'; there are {', '.join(METHODS)}")
    return np.ascontiguousarray(flow.transpose(2, 0, 1), dtype=np.float32)


def grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance of a frame (ITU-R BT.601), shape (H, W), from grey (H, W) or RGB (H, W, 3).

    Raises:
        ValueError: If ``frame`` is not such an image, or smaller than ``SMALLEST``.
    """
    if frame.dtype != np.uint8:
        raise ValueError(f"a frame is uint8, not {frame.dtype}")
    if frame.ndim != 2 and (frame.ndim != 3 or frame.shape[2] != 3):
        raise ValueError(f"a frame is grey (H, W) or RGB (H, W, 3), not {frame.shape}")
    if min(frame.shape[:2]) < SMALLEST:
        raise ValueError(f"a frame of {frame.shape[1]} x {frame.shape[0]} px is too small: {SMALLEST} px is the least")
    if frame.ndim == 3:
        return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)  # pyright: ignore
    return np.ascontiguousarray(frame)


def strain(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitude of the infinitesimal strain of a flow field (Shreve et al., FG 2011).

    os = sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2), by central differences, one-sided at the border.

    Args:
        flow: u and v in pixels, shape (2, H, W).

    Returns:
        Strain, shape (H, W), without unit, 0 where neighbouring points move alike.
    """
    u_y, u_x = np.gradient(flow[0])
    v_y, v_x = np.gradient(flow[1])
    return np.sqrt(u_x**2 + v_y**2 + (u_y + v_x) ** 2 / 2)


def flow_map(
    first: NDArray[np.uint8], second: NDArray[np.uint8], method: Literal["tvl1", "farneback", "dis"] = "tvl1"
) -> NDArray[np.float32]:
    """Flow map of a clip, the input of the networks: u, v and strain between two of its frames.

    Args:
        first: Earlier frame, as for ``optical_flow``: the onset.
        second: Later frame: the apex.
        method: One of ``METHODS``.

    Returns:
        Flow map, shape (3, H, W): u (right, px), v (down, px), strain.

    Raises:
        ValueError: As ``optical_flow``.
    """
    return with_strain(optical_flow(first, second, method))


def with_strain(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Append the strain to a flow field (2, H, W): the flow map (3, H, W)."""
    return np.concatenate([flow, strain(flow)[None]])
