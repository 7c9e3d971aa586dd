"""The iterations of ``mer.flow.tvl1`` on a GPU: one pyramid level of a batch of pairs is one launch of a Triton kernel.

A program computes one pair from the first warp to the last and detects itself when the pair has converged: the host
waits for nothing, and a pair's flow has the same bits in any batch. The arithmetic is that of ``mer.flow.tvl1``; the
tests compare the two under Triton's interpreter, and compile the kernel for real GPUs without needing one.

The threads of a program exchange numbers only through memory, after a barrier. So the compiler must not pipeline the
kernel, which would load ahead of a barrier: ``num_stages`` is 1.
"""

from threading import Lock

import triton
import triton.language as tl
from torch import Tensor

from mer.flow.tvl1_median import exchanges, median_filter

TILE = 512
"""Pixels, adjacent in memory, that a program computes at a time."""

# One thread per pixel: with more pixels the 25 values of the median would not fit in its registers. With 64 registers
# per thread and 512 threads, two programs fit on a multiprocessor. No fused multiply-adds, to round as ``tvl1`` does.
OPTIONS = {"num_warps": TILE // 32, "num_stages": 1, "maxnreg": 64, "enable_fp_fusion": False}

_compiling = Lock()


def refine(
    earlier: Tensor,
    images: Tensor,
    flow: Tensor,
    *,
    warps: int,
    max_step: float,
    theta: float,
    dual_step: float,
    tolerance: float,
    inner: int,
    outer: int,
    median: int,
    min_slope: float,
) -> Tensor:
    """Flow at one pyramid level, from a first guess.

    Args:
        earlier: Earlier frames, shape (B, 1, H, W).
        images: Later frames and their gradients across and down, shape (B, 3, H, W).
        flow: The first guess, shape (B, 2, H, W).
        warps: Linearisations.
        max_step: Largest step along the image gradient.
        theta: Coupling of the data term to the smooth flow.
        dual_step: Time step of the dual variable, tau over ``theta``.
        tolerance: Squared change of a pair's flow in px^2, summed over its pixels, at which it has converged.
        inner: Most iterations between two median filters.
        outer: Most median filters per warp.
        median: Side in px of the median filter: 1 (none), 3 or 5.
        min_slope: Least squared image gradient to divide by.

    Returns:
        The flow, shape (B, 2, H, W).
    """
    count, _, height, width = flow.shape
    maps = flow.new_zeros(count, 11, height, width)
    maps[:, :2] = flow
    sizes = height, width, warps, inner, outer
    constants = tolerance, max_step, theta, dual_step, min_slope
    shape = {"SIZE": median, "PAIRS": exchanges(median * median), "TILE": TILE}
    with _compiling:
        _refine[(count,)](earlier.contiguous(), images.contiguous(), maps, *sizes, *constants, **shape, **OPTIONS)
    return maps[:, :2].contiguous()


@triton.jit(do_not_specialize=["height", "width", "warps", "inner", "outer"])
def _refine(
    earlier,
    images,
    maps,
    height,
    width,
    warps,
    inner,
    outer,
    tolerance,
    max_step,
    theta,
    dual_step,
    min_slope,
    SIZE: tl.constexpr,
    PAIRS: tl.constexpr,
    TILE: tl.constexpr,
):
    """One pair from the first warp to the last.

    Its 11 maps are the flow (2), as many for the flow after a median filter, the dual variable (4) and the linearised
    data term (3).
    """
    area = height * width
    pair = tl.program_id(0).to(tl.int64)
    earlier += pair * area
    images += pair * 3 * area
    maps += pair * 11 * area
    dual, linear = maps + 4 * area, maps + 8 * area
    start = 0  # of the flow in ``maps``: the median filter reads one copy of the flow and writes the other
    for _ in range(warps):
        _linearise(earlier, images, maps + start, linear, height, width, TILE)
        tl.debug_barrier()
        going = tolerance >= 0  # always
        filters = 0
        while (filters < outer) & going:
            if SIZE > 1:
                for part in range(2):
                    component = maps + part * area
                    median_filter(component + start, component + (2 * area - start), height, width, SIZE, PAIRS, TILE)
                start = 2 * area - start
                tl.debug_barrier()
            filters += 1
            steps = 0
            while (steps < inner) & going:
                change = _iterate(maps + start, dual, linear, width, area, max_step, theta, dual_step, min_slope, TILE)
                going = change > tolerance
                steps += 1
    if start > 0:
        for first in range(0, 2 * area, TILE):
            place = first + tl.arange(0, TILE)
            inside = place < 2 * area
            tl.store(maps + place, tl.load(maps + 2 * area + place, mask=inside), mask=inside)


@triton.jit
def _linearise(earlier, images, flow, linear, height, width, TILE: tl.constexpr):
    """Warp the later image and its gradients by the flow, and write the data term linearised there.

    Bicubic interpolation as in OpenCV and PyTorch (a = -0.75), at multiples of 1/32 px, with zeros outside. Positions
    and weights at multiples of 1/32 are exact in float32.
    """
    area = height * width
    for start in range(0, area, TILE):
        place = start + tl.arange(0, TILE)
        inside = place < area
        x, y = place % width, place // width
        u = tl.load(flow + place, mask=inside, other=0.0)
        v = tl.load(flow + area + place, mask=inside, other=0.0)
        column, fraction_x = _position(x, u)
        row, fraction_y = _position(y, v)
        warped = _bicubic(images, column, row, fraction_x, fraction_y, inside, height, width)
        across = _bicubic(images + area, column, row, fraction_x, fraction_y, inside, height, width)
        down = _bicubic(images + 2 * area, column, row, fraction_x, fraction_y, inside, height, width)
        constant = warped - across * u - down * v - tl.load(earlier + place, mask=inside, other=0.0)
        tl.store(linear + place, across, mask=inside)
        tl.store(linear + area + place, down, mask=inside)
        tl.store(linear + 2 * area + place, constant, mask=inside)


@triton.jit
def _position(grid, shift):
    """The pixel at or before ``grid + shift``, and the remaining fraction of a pixel, a multiple of 1/32."""
    # Beyond 65,536 px all is outside. Adding and subtracting 1.5 * 2^23 rounds to whole numbers, halves to even.
    place = tl.minimum(tl.maximum((grid.to(tl.float32) + shift) * 32, -2097152.0), 2097152.0)
    place = ((place + 12582912.0) - 12582912.0).to(tl.int32)
    return place >> 5, (place & 31).to(tl.float32) * 0.03125


@triton.jit
def _bicubic(image, column, row, fraction_x, fraction_y, inside, height, width):
    """Bicubic interpolation of an image; zeros outside it."""
    value = tl.zeros_like(fraction_x)
    for down in tl.static_range(4):
        y = row + (down - 1)
        line = image + y * width
        in_row = inside & (y >= 0) & (y < height)
        sum_of_row = tl.zeros_like(fraction_x)
        for across in tl.static_range(4):
            x = column + (across - 1)
            in_image = in_row & (x >= 0) & (x < width)
            sum_of_row += _weight(fraction_x, across) * tl.load(line + x, mask=in_image, other=0.0)
        value += _weight(fraction_y, down) * sum_of_row
    return value


@triton.jit
def _weight(fraction, tap: tl.constexpr):
    """Bicubic weight of the pixel ``tap`` - 1 px after the pixel at or before a place."""
    if tap == 0 or tap == 3:
        far = fraction + 1 if tap == 0 else 2 - fraction
        weight = ((-0.75 * far + 3.75) * far - 6) * far + 3
    else:
        near = fraction if tap == 1 else 1 - fraction
        weight = (1.25 * near - 2.25) * near * near + 1
    return weight


@triton.jit
def _iterate(flow, dual, linear, width, area, max_step, theta, dual_step, min_slope, TILE: tl.constexpr):
    """One inner iteration in place; returns the squared change of the flow, summed over the pixels.

    Two passes over the map run in one loop: the first updates the flow, the second the dual variable, from the new flow
    at a pixel, right of it and below it. The first needs the old dual variable at a pixel, left of it and above it. So
    the second runs a row and a tile behind the first: one barrier per tile is enough, and the data is still in the
    cache. All loads come before all stores, so that a thread waits for them only once.
    """
    lag = tl.cdiv(width, TILE) + 1
    advance, behind = TILE % width, lag * TILE % width
    offsets = tl.arange(0, TILE)
    x = offsets % width
    change = tl.zeros((TILE,), tl.float32)
    for tile in range(tl.cdiv(area, TILE) + lag):
        place = tile * TILE + offsets
        inside, has_left, has_above = place < area, (place < area) & (x > 0), (place < area) & (place >= width)
        across = tl.load(linear + place, mask=inside, other=0.0)
        down = tl.load(linear + area + place, mask=inside, other=0.0)
        constant = tl.load(linear + 2 * area + place, mask=inside, other=0.0)
        u = tl.load(flow + place, mask=inside, other=0.0)
        v = tl.load(flow + area + place, mask=inside, other=0.0)
        spread_u = _divergence(dual + place, inside, has_left, has_above, width, area)
        spread_v = _divergence(dual + 2 * area + place, inside, has_left, has_above, width, area)

        late = place - lag * TILE
        late_x = tl.where(x < behind, x + width, x) - behind
        late_inside = (late >= 0) & (late < area)
        has_right, has_below = late_inside & (late_x + 1 < width), late_inside & (late + width < area)
        late_u, late_dual_u = flow + late, dual + late
        late_v, late_dual_v = late_u + area, late_dual_u + 2 * area
        moved_u = _move_dual(late_u, late_dual_u, late_inside, has_right, has_below, width, area, dual_step)
        moved_v = _move_dual(late_v, late_dual_v, late_inside, has_right, has_below, width, area, dual_step)

        residual = constant + (across * u + down * v)
        slope = tl.maximum(across * across + down * down, min_slope)
        step = tl.minimum(tl.maximum(-residual / slope, -max_step), max_step)
        new_u = (u + step * across) + theta * spread_u
        new_v = (v + step * down) + theta * spread_v
        change += (new_u - u) * (new_u - u) + (new_v - v) * (new_v - v)  # outside all numbers are 0

        tl.store(flow + place, new_u, mask=inside)
        tl.store(flow + area + place, new_v, mask=inside)
        tl.store(late_dual_u, moved_u[0], mask=late_inside)
        tl.store(late_dual_u + area, moved_u[1], mask=late_inside)
        tl.store(late_dual_v, moved_v[0], mask=late_inside)
        tl.store(late_dual_v + area, moved_v[1], mask=late_inside)
        x = tl.where(x + advance < width, x + advance, x + advance - width)
        tl.debug_barrier()
    return tl.sum(change)


@triton.jit
def _divergence(dual, inside, has_left, has_above, width, area):
    """Divergence of one component's dual variable, (2, H, W), the parts across and down; zeros beyond the border."""
    part_x = tl.load(dual, mask=inside, other=0.0) - tl.load(dual - 1, mask=has_left, other=0.0)
    dual += area
    part_y = tl.load(dual, mask=inside, other=0.0) - tl.load(dual - width, mask=has_above, other=0.0)
    return part_x + part_y


@triton.jit
def _move_dual(flow, dual, inside, has_right, has_below, width, area, dual_step):
    """The two parts of one component's dual variable after a step along the flow's gradient, 0 at the border."""
    here = tl.load(flow, mask=inside, other=0.0)
    gradient_x = tl.where(has_right, tl.load(flow + 1, mask=has_right, other=0.0) - here, 0.0)
    gradient_y = tl.where(has_below, tl.load(flow + width, mask=has_below, other=0.0) - here, 0.0)
    part_x = tl.load(dual, mask=inside, other=0.0) + dual_step * gradient_x
    part_y = tl.load(dual + area, mask=inside, other=0.0) + dual_step * gradient_y
    shrink = 1 + dual_step * tl.sqrt(gradient_x * gradient_x + gradient_y * gradient_y)
    return part_x / shrink, part_y / shrink
