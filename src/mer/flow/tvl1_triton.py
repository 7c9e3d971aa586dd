"""The iterations of ``mer.flow.tvl1`` on a GPU: one pyramid level of a batch of pairs is one launch of a Triton kernel.

A program computes one pair from the first warp to the last, decides by itself when the pair has converged, and asks
nobody: the host waits for nothing, and a pair's flow has the same bits whatever its batch. The arithmetic is that of
the plain path in ``mer.flow.tvl1``, which the tests hold it against under Triton's interpreter; they also compile it
for real GPUs, without needing one.

The threads of a program see each other's numbers only through memory, after a barrier. So the kernel must not be
pipelined by the compiler, which would load ahead of a barrier: ``num_stages`` is 1.
"""

from threading import Lock

import triton
import triton.language as tl
from torch import Tensor

from mer.flow.tvl1_median import exchanges, median_filter

TILE = 512
"""Pixels that a program computes at a time; they follow each other in memory."""

# A thread per pixel: with more pixels the 25 values of the median would fill its registers. With 64 registers for each
# of 512 threads two programs fit on a multiprocessor. No fused multiply-adds: the rounding is that of the plain path.
OPTIONS = {"num_warps": TILE // 32, "num_stages": 1, "maxnreg": 64, "enable_fp_fusion": False}

_compiling = Lock()


def refine(
    earlier: Tensor,
    images: Tensor,
    flow: Tensor,
    *,
    warps: int,
    reach: float,
    theta: float,
    ratio: float,
    limit: float,
    inner: int,
    outer: int,
    median: int,
    flat: float,
) -> Tensor:
    """Flow at one pyramid level, from a first guess.

    Args:
        earlier: Earlier frames, shape (B, 1, H, W).
        images: Later frames and their gradients across and down, shape (B, 3, H, W).
        flow: The first guess, shape (B, 2, H, W).
        warps: Linearisations.
        reach: Largest step along the image gradient.
        theta: Coupling of the data term to the smooth flow.
        ratio: Time step over ``theta``.
        limit: Squared change of a pair's flow, summed over its pixels, at which it has converged.
        inner: Most iterations between two median filters.
        outer: Most median filters per warp.
        median: Side in px of the median filter: 1 (none), 3 or 5.
        flat: Squared image gradient below which a pixel says nothing about the motion.

    Returns:
        The flow, shape (B, 2, H, W).
    """
    count, _, height, width = flow.shape
    maps = flow.new_zeros(count, 11, height, width)
    maps[:, :2] = flow
    sizes = height, width, warps, inner, outer
    constants = limit, reach, theta, ratio, flat
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
    limit,
    reach,
    theta,
    ratio,
    flat,
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
    start = 0  # of the flow in ``maps``: each median filter writes to where the flow before the last one was
    for _ in range(warps):
        _linearise(earlier, images, maps + start, linear, height, width, TILE)
        tl.debug_barrier()
        going = limit >= 0  # always
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
                going = _iterate(maps + start, dual, linear, width, area, reach, theta, ratio, flat, TILE) > limit
                steps += 1
    if start > 0:
        for first in range(0, 2 * area, TILE):
            place = first + tl.arange(0, TILE)
            inside = place < 2 * area
            tl.store(maps + place, tl.load(maps + 2 * area + place, mask=inside), mask=inside)


@triton.jit
def _linearise(earlier, images, flow, linear, height, width, TILE: tl.constexpr):
    """Warp the later image and its gradients by the flow, and write the data term linearised there.

    Bicubic as OpenCV and PyTorch have it (a = -0.75), at whole 1/32 px, with zeros outside. Positions in px and weights
    at multiples of 1/32 are exact in float32.
    """
    area = height * width
    for start in range(0, area, TILE):
        place = start + tl.arange(0, TILE)
        inside = place < area
        x, y = place % width, place // width
        u = tl.load(flow + place, mask=inside, other=0.0)
        v = tl.load(flow + area + place, mask=inside, other=0.0)
        column, share_x = _position(x, u)
        row, share_y = _position(y, v)
        warped = _bicubic(images, column, row, share_x, share_y, inside, height, width)
        across = _bicubic(images + area, column, row, share_x, share_y, inside, height, width)
        down = _bicubic(images + 2 * area, column, row, share_x, share_y, inside, height, width)
        constant = warped - across * u - down * v - tl.load(earlier + place, mask=inside, other=0.0)
        tl.store(linear + place, across, mask=inside)
        tl.store(linear + area + place, down, mask=inside)
        tl.store(linear + 2 * area + place, constant, mask=inside)


@triton.jit
def _position(grid, shift):
    """The pixel at or before ``grid + shift``, and the rest in px, a multiple of 1/32."""
    # Beyond 65,536 px all is outside. Adding and taking away 1.5 * 2^23 rounds to whole numbers, halves to even.
    place = tl.minimum(tl.maximum((grid.to(tl.float32) + shift) * 32, -2097152.0), 2097152.0)
    place = ((place + 12582912.0) - 12582912.0).to(tl.int32)
    return place >> 5, (place & 31).to(tl.float32) * 0.03125


@triton.jit
def _bicubic(image, column, row, share_x, share_y, inside, height, width):
    """An image between pixels; zeros outside it."""
    value = tl.zeros_like(share_x)
    for down in tl.static_range(4):
        y = row + (down - 1)
        line = image + y * width
        in_row = inside & (y >= 0) & (y < height)
        sum_of_row = tl.zeros_like(share_x)
        for across in tl.static_range(4):
            x = column + (across - 1)
            sum_of_row += _weight(share_x, across) * tl.load(line + x, mask=in_row & (x >= 0) & (x < width), other=0.0)
        value += _weight(share_y, down) * sum_of_row
    return value


@triton.jit
def _weight(share, tap: tl.constexpr):
    """Weight of the pixel before a place (``tap`` 0), of the next two, and of the one after those."""
    if tap == 0 or tap == 3:
        far = share + 1 if tap == 0 else 2 - share
        weight = ((-0.75 * far + 3.75) * far - 6) * far + 3
    else:
        near = share if tap == 1 else 1 - share
        weight = (1.25 * near - 2.25) * near * near + 1
    return weight


@triton.jit
def _iterate(flow, dual, linear, width, area, reach, theta, ratio, flat, TILE: tl.constexpr):
    """One inner iteration in place; returns the squared change of the flow, summed over the pixels.

    Two passes over the map run one behind the other: the first moves the flow, the second the dual variable, by the
    new flow at a pixel, right of it and below it. The first needs the old dual variable at a pixel, left of it and
    above it. So the second follows a row and a tile behind, where one barrier per tile keeps both right, and finds in
    the cache what the first has touched. All loads stand before all stores, so that a thread waits for them only once.
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
        moved_u = _move_dual(late_u, late_dual_u, late_inside, has_right, has_below, width, area, ratio)
        moved_v = _move_dual(late_v, late_dual_v, late_inside, has_right, has_below, width, area, ratio)

        residual = constant + (across * u + down * v)
        slope = tl.maximum(across * across + down * down, flat)
        step = tl.minimum(tl.maximum(-residual / slope, -reach), reach)
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
    """Of one component's dual variable, whose parts across and down lie ``area`` apart; zeros beyond the border."""
    part_x = tl.load(dual, mask=inside, other=0.0) - tl.load(dual - 1, mask=has_left, other=0.0)
    dual += area
    part_y = tl.load(dual, mask=inside, other=0.0) - tl.load(dual - width, mask=has_above, other=0.0)
    return part_x + part_y


@triton.jit
def _move_dual(flow, dual, inside, has_right, has_below, width, area, ratio):
    """The two parts of one component's dual variable after a step along the flow's gradient, 0 across the border."""
    here = tl.load(flow, mask=inside, other=0.0)
    gradient_x = tl.where(has_right, tl.load(flow + 1, mask=has_right, other=0.0) - here, 0.0)
    gradient_y = tl.where(has_below, tl.load(flow + width, mask=has_below, other=0.0) - here, 0.0)
    part_x = tl.load(dual, mask=inside, other=0.0) + ratio * gradient_x
    part_y = tl.load(dual + area, mask=inside, other=0.0) + ratio * gradient_y
    shrink = 1 + ratio * tl.sqrt(gradient_x * gradient_x + gradient_y * gradient_y)
    return part_x / shrink, part_y / shrink
