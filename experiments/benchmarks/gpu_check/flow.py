"""Optical flow on the GPU agrees with OpenCV's and does not depend on the batch."""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.data import astronaut

from experiments.benchmarks.gpu_check.check import Check, Wrong
from mer.flow import optical_flow
from mer.flow.tvl1 import tvl1
from mer.preprocessing.opencv import cv2

NEAR = 0.015  # px, mean over the pixels of all pairs


def checks(cpu: bool) -> list[Check]:
    """The two backends on the same pairs, and a pair alone and in a batch."""
    frames = pairs(2 if cpu else 8, 64 if cpu else 224)
    device = "cpu" if cpu else "cuda"
    return [
        Check(f"OpenCV and torch, {len(frames)} pairs of {frames.shape[-1]} px", partial(agree, frames, device)),
        Check("a pair alone and in a batch", partial(does_not_depend_on_its_batch, frames, device)),
    ]


def pairs(count: int, side: int) -> NDArray[np.uint8]:
    """A portrait before and after a part of the face has moved by up to 2 px, uint8 (count, 2, side, side).

    It is cropped at a known place, so this needs no MediaPipe.
    """
    face = cv2.resize(cv2.cvtColor(astronaut()[:256, 150:406], cv2.COLOR_RGB2GRAY), (side, side))
    y, x = np.mgrid[:side, :side].astype(np.float32)
    frames = []
    for number in range(count):
        draws = np.random.default_rng(number)
        (across, height), turn = draws.uniform(0.3, 0.7, 2) * side, draws.uniform(0, 2 * np.pi)
        bump = draws.uniform(0.3, 2) * np.exp(-((x - across) ** 2 + (y - height) ** 2) / (side / 6) ** 2)
        right, down = (np.float32(part(turn)) * bump.astype(np.float32) for part in (np.cos, np.sin))
        moved = cv2.remap(face, x + right, y + down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        frames.append(np.stack([moved, face]))
    return np.stack(frames)


def agree(frames: NDArray[np.uint8], device: str) -> str:
    """The mean difference of the two backends in px."""
    opencv = np.stack([optical_flow(first, second, "tvl1") for first, second in frames])
    difference = _flow(frames, device).cpu().numpy() - opencv
    mean = float(np.hypot(difference[:, 0], difference[:, 1]).mean())
    figure = f"{mean:.4f} px apart in the mean (bound {NEAR})"
    if not mean < NEAR:
        raise Wrong(figure)
    return figure


def does_not_depend_on_its_batch(frames: NDArray[np.uint8], device: str) -> str:
    """Whether a pair alone gives the same bits as in the batch."""
    together = _flow(frames, device)
    different = sum(not torch.equal(_flow(frames[n : n + 1], device)[0], together[n]) for n in range(len(frames)))
    if different:
        raise Wrong(f"{different} of {len(frames)} pairs have other bits")
    return "the same bits"


def _flow(frames: NDArray[np.uint8], device: str) -> torch.Tensor:
    tensors = torch.from_numpy(frames).to(device)
    return tvl1(tensors[:, :1], tensors[:, 1:])
