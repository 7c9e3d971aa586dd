"""TV-L1 optical flow for batches of pairs on any device, equal to OpenCV's.

Zach, Pock and Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007, in the form of Sánchez,
Meinhardt-Llopis and Facciolo, IPOL 2013, with what OpenCV's DualTVL1OpticalFlow adds to it: a median filter, a pyramid
whose step is 0.8, and warping at 1/32 px. On a GPU a pyramid level is one launch of a Triton kernel, see
``mer.flow.tvl1_triton``; what is here is the reference for it.

OpenCV's coupling of brightness (gamma) and its initial flow are off by default there and do not exist here.
"""

from dataclasses import asdict, dataclass
from functools import cache
from types import ModuleType

import torch
from kornia.filters import median_blur
from kornia.geometry.transform import remap
from torch import Tensor
from torch.nn.functional import pad

SMALLEST = 16
"""Shortest side in px of a frame, and of the coarsest pyramid level."""

SUBPIXELS = 32
"""OpenCV warps to multiples of 1 / 32 px. Finer steps are not more accurate, and differ from OpenCV's."""

MIN_SLOPE = torch.finfo(torch.float32).eps
"""Least squared image gradient, in (grey levels / px)^2, to divide by."""


@dataclass(frozen=True)
class Solver:
    """The constants of the iterations at one pyramid level.

    Attributes:
        max_step: Largest step along the image gradient, data weight times ``theta``.
        theta: Tightness, the coupling of the data term to the smooth flow.
        dual_step: Time step of the dual variable, tau over ``theta``.
        tolerance: Squared change of a pair's flow in px^2, summed over its pixels, at which it has converged.
        inner: Most iterations between two median filters.
        outer: Most median filters per warp.
        median: Side in px of the median filter; 1 for none.
    """

    max_step: float
    theta: float
    dual_step: float
    tolerance: float
    inner: int
    outer: int
    median: int


@torch.no_grad()
def tvl1(
    first: Tensor,
    second: Tensor,
    *,
    tau: float = 0.25,
    data_weight: float = 0.15,
    theta: float = 0.3,
    scales: int = 5,
    warps: int = 5,
    epsilon: float = 0.01,
    inner_iterations: int = 30,
    outer_iterations: int = 10,
    scale_step: float = 0.8,
    median: int = 5,
) -> Tensor:
    """Dense optical flow between pairs of frames with TV-L1 (Zach, Pock and Bischof, DAGM 2007).

    The defaults are OpenCV's. The flow of a pair does not depend on the other pairs of its batch: a pair that has
    converged is not changed any more.

    Args:
        first: Earlier frames, shape (B, 1, H, W): luminance, uint8 in 0..255 or floating in 0..1.
        second: Later frames, like ``first``.
        tau: Time step of the dual iteration; it converges up to 0.25.
        data_weight: Weight of the data term (OpenCV's lambda); smaller is smoother.
        theta: Tightness, the coupling of the data term to the smooth flow.
        scales: Most pyramid levels; there are fewer where a side would fall below ``SMALLEST``.
        warps: Linearisations per pyramid level.
        epsilon: Root mean squared change of the flow in px at which a pair has converged.
        inner_iterations: Most iterations between two median filters.
        outer_iterations: Most median filters per warp.
        scale_step: Size of a pyramid level relative to the finer one.
        median: Side in px of the median filter on the flow: 3 or 5, or 1 for none.

    Returns:
        Flow in pixels, float32, shape (B, 2, H, W); channel 0 points right, channel 1 down.

    Raises:
        ValueError: If the frames are no such batches, differ in shape, type or device, are smaller than ``SMALLEST``,
            or hold numbers outside their range or NaN; or if a parameter is out of range.
    """
    _check(first, second)
    if not (0 < tau <= 0.25 and data_weight > 0 and theta > 0 and epsilon >= 0 and 0 < scale_step < 1):
        raise ValueError(
            f"tau {tau} must be in 0..0.25, data_weight {data_weight} and theta {theta} above 0, epsilon {epsilon} "
            f"0 or more, and scale_step {scale_step} between 0 and 1"
        )
    if min(scales, warps, inner_iterations, outer_iterations) < 1 or median not in (1, 3, 5):
        raise ValueError("scales, warps and iterations must be 1 or more and median 1, 3 or 5")
    levels = [(_grey_levels(first), _grey_levels(second))]
    while len(levels) < scales:
        earlier, later = levels[-1]
        size = round(earlier.shape[-2] * scale_step), round(earlier.shape[-1] * scale_step)
        if min(size) < SMALLEST:
            break
        steps = (1 / scale_step, 1 / scale_step)
        levels.append((_resize(earlier, size, steps), _resize(later, size, steps)))
    flow = torch.zeros_like(levels[-1][0]).repeat(1, 2, 1, 1)
    with torch.cuda.device_of(flow):  # Triton launches on the current device
        for earlier, later in reversed(levels):
            height, width = earlier.shape[-2:]
            if flow.shape != later.shape[:1] + (2, height, width):
                steps = (flow.shape[-2] / height, flow.shape[-1] / width)
                flow = _resize(flow, (height, width), steps) * (1 / scale_step)
            tolerance = epsilon**2 * height * width
            iterations = inner_iterations, outer_iterations
            solver = Solver(data_weight * theta, theta, tau / theta, tolerance, *iterations, median)
            flow = _refine(earlier, later, flow, warps, solver)  # (B, 2, height, width)
    return flow


def _check(first: Tensor, second: Tensor) -> None:
    """Raise the ``ValueError`` of ``tvl1`` if the frames cannot be used."""
    if first.shape != second.shape:
        raise ValueError(f"the two batches differ in shape: {tuple(first.shape)} and {tuple(second.shape)}")
    if (first.dtype, first.device) != (second.dtype, second.device):
        kinds = f"{first.dtype} on {first.device} and {second.dtype} on {second.device}"
        raise ValueError(f"the two batches differ in type or device: {kinds}")
    if first.ndim != 4 or first.shape[1] != 1 or not len(first):
        raise ValueError(f"a batch of frames is (B, 1, H, W) with at least one pair, not {tuple(first.shape)}")
    if min(first.shape[2:]) < SMALLEST:
        height, width = first.shape[2:]
        raise ValueError(f"a frame of {width} x {height} px is too small: {SMALLEST} px is the least")
    if first.dtype != torch.uint8 and not first.is_floating_point():
        raise ValueError(f"frames are uint8 or floating, not {first.dtype}")
    if first.is_floating_point():
        for frames in (first, second):
            low, high = (float(end) for end in torch.aminmax(frames))
            if not 0 <= low <= high <= 1:  # NaN too
                raise ValueError(f"floating frames lie in 0..1 without NaN; these go from {low:g} to {high:g}")


def _grey_levels(frames: Tensor) -> Tensor:
    """Frames as float32 in 0..255, the range for which OpenCV's constants are chosen."""
    return frames.float() if frames.dtype == torch.uint8 else frames.float() * 255


def _resize(maps: Tensor, size: tuple[int, int], steps: tuple[float, float]) -> Tensor:
    """Linear interpolation as OpenCV's ``INTER_LINEAR``, without smoothing before it shrinks.

    Args:
        maps: Shape (B, C, h, w).
        size: New height and width.
        steps: Old pixels per new one, down and right; OpenCV does not derive them from rounded sizes.
    """
    for dim, length, step in zip((-1, -2), reversed(size), reversed(steps)):
        last = maps.shape[dim] - 1
        place = (torch.arange(length, dtype=torch.float64, device=maps.device) + 0.5) * step - 0.5
        place = place.clamp(0, last)
        low = place.floor().long()
        fraction = place - low
        fraction = fraction if dim == -1 else fraction[:, None]
        before, after = maps.index_select(dim, low), maps.index_select(dim, (low + 1).clamp(max=last))
        maps = torch.addcmul(before.double(), (after - before).double(), fraction).float()
    return maps


def _refine(earlier: Tensor, later: Tensor, flow: Tensor, warps: int, solver: Solver) -> Tensor:
    """Flow (B, 2, H, W) at one pyramid level, from a first guess ``flow``; the frames are (B, 1, H, W)."""
    height, width = earlier.shape[-2:]
    bordered = pad(later, (1, 1, 1, 1), mode="replicate")
    across = 0.5 * (bordered[..., 1:-1, 2:] - bordered[..., 1:-1, :-2])
    down = 0.5 * (bordered[..., 2:, 1:-1] - bordered[..., :-2, 1:-1])
    images = torch.cat([later, across, down], dim=1)  # (B, 3, H, W)
    if kernels := _kernels(flow.device.type):
        return kernels.refine(earlier, images, flow, warps=warps, min_slope=MIN_SLOPE, **asdict(solver))
    images = images.double()  # float32 coordinates have errors of about 1e-5 px
    x = torch.arange(width, device=flow.device)
    y = torch.arange(height, device=flow.device)[:, None]
    dual = flow.new_zeros(len(flow), 2, 2, height, width)
    for _ in range(warps):
        places = [((x + flow[:, 0]) * SUBPIXELS).round(), ((y + flow[:, 1]) * SUBPIXELS).round()]
        places = [place.double() / SUBPIXELS for place in places]  # (B, H, W) each
        warped = remap(images, *places, mode="bicubic", padding_mode="zeros", align_corners=True).float()
        warped, gradient = warped[:, :1], warped[:, 1:]  # (B, 1, H, W), (B, 2, H, W)
        constant = warped - gradient[:, :1] * flow[:, :1] - gradient[:, 1:] * flow[:, 1:] - earlier
        flow, dual = _solve(flow, dual, torch.cat([gradient, constant], dim=1), solver)
    return flow


def _solve(flow: Tensor, dual: Tensor, linear: Tensor, solver: Solver) -> tuple[Tensor, Tensor]:
    """Iterate every pair until it has converged, at most ``outer`` times ``inner`` times.

    Args:
        flow: Shape (B, 2, H, W).
        dual: Shape (B, 2, 2, H, W): of u and v, the parts across and down.
        linear: The linearised data term, shape (B, 3, H, W): image gradient across and down, and the residual at zero
            flow.
        solver: The constants.

    Returns:
        ``flow`` and ``dual``.
    """
    solved, solved_dual = torch.empty_like(flow), torch.empty_like(dual)
    rows = torch.arange(len(flow), device=flow.device)  # of the pairs that have not converged
    for _ in range(solver.outer):
        if solver.median > 1:
            flow = median_blur(flow, solver.median, "replicate")
        for _ in range(solver.inner):
            before = flow
            flow, dual = _iterate(flow, dual, linear, solver)
            # Row by row, so that the numbers of a pair are added in the same order in any batch.
            change = (flow - before).square().sum(-1).flatten(1).sum(-1)  # (B,)
            moving = (change > solver.tolerance).nonzero()[:, 0]
            if len(moving) < len(rows):
                solved.index_copy_(0, rows, flow)
                solved_dual.index_copy_(0, rows, dual)
                rows, flow, dual, linear = (maps.index_select(0, moving) for maps in (rows, flow, dual, linear))
            if not len(rows):
                return solved, solved_dual
    solved.index_copy_(0, rows, flow)
    solved_dual.index_copy_(0, rows, dual)
    return solved, solved_dual


def _iterate(flow: Tensor, dual: Tensor, linear: Tensor, solver: Solver) -> tuple[Tensor, Tensor]:
    """One inner iteration: thresholding of the data term, then a step of the dual variable of the smoothness term."""
    across, down, constant = linear.unbind(1)
    residual = constant + (across * flow[:, 0] + down * flow[:, 1])
    slope = (across * across + down * down).clamp_min(MIN_SLOPE)
    step = (-residual / slope).clamp(-solver.max_step, solver.max_step)
    dual_x, dual_y = dual.unbind(2)
    # The divergence is minus the transpose of the gradient below, with zeros beyond the border.
    part_x, part_y = dual_x.clone(), dual_y.clone()
    part_x[..., 1:] -= dual_x[..., :-1]
    part_y[..., 1:, :] -= dual_y[..., :-1, :]
    flow = (flow + step[:, None] * linear[:, :2]) + solver.theta * (part_x + part_y)
    gradient = torch.zeros_like(dual)
    gradient[:, :, 0, :, :-1] = flow[..., 1:] - flow[..., :-1]
    gradient[:, :, 1, :-1] = flow[..., 1:, :] - flow[..., :-1, :]
    length = torch.hypot(gradient[:, :, 0], gradient[:, :, 1])
    return flow, (dual + solver.dual_step * gradient) / (1 + solver.dual_step * length)[:, :, None]


@cache
def _kernels(device: str) -> ModuleType | None:
    """The Triton kernels for a type of device; None on the CPU, and where PyTorch comes without Triton."""
    if device != "cuda":
        return None
    try:
        import triton  # noqa: F401
    except ImportError:
        return None
    from mer.flow import tvl1_triton

    return tvl1_triton
