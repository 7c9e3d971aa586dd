"""The inner loops of ``mer.tvl1`` as Triton kernels for a GPU: one launch per iteration, one per median filter.

They compute what ``mer.tvl1.advance`` and kornia's ``median_blur`` compute, operation for operation; the tests
hold them against these under Triton's interpreter, and compile them for real GPUs, without needing one.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from mer.tvl1 import FLAT, Solver

TILE = 512
"""Pixels of one program; they follow each other in memory."""

# A thread per pixel: with more pixels the 25 values of the median would fill its registers. No fused multiply-adds: the
# rounding is that of the plain path.
OPTIONS = {"num_warps": TILE // 32, "enable_fp_fusion": False}


def advance(flow: Tensor, dual: Tensor, linear: Tensor, steps: int, solver: Solver) -> tuple[Tensor, Tensor, Tensor]:
    """As ``mer.tvl1.advance``, without waiting for the device."""
    count, _, height, width = flow.shape
    tiles = triton.cdiv(height * width, TILE)
    states = [(flow, dual), (torch.empty_like(flow), torch.empty_like(dual))]
    change = flow.new_full((steps + 1, count, tiles), torch.inf)  # [0]: nothing has converged before the first step
    taken = torch.zeros(count, dtype=torch.int32, device=flow.device)
    for step in range(steps):
        _iterate[(tiles, count)](
            *states[step % 2],
            *states[(step + 1) % 2],
            linear,
            change[step],
            change[step + 1],
            taken,
            height,
            width,
            tiles,
            solver.limit,
            solver.reach,
            solver.theta,
            solver.ratio,
            FLAT,
            TILE=TILE,
            TILES=triton.next_power_of_2(tiles),
            **OPTIONS,
        )
    going = (taken == steps) & (change[-1].sum(1) > solver.limit)
    odd = (taken % 2 == 1).view(-1, 1, 1, 1)
    (flow, dual), (other_flow, other_dual) = states
    return torch.where(odd, other_flow, flow), torch.where(odd[..., None], other_dual, dual), going


def median(maps: Tensor, size: int) -> Tensor:
    """Median over squares of ``size`` px of maps (B, C, H, W); the border is repeated."""
    height, width = maps.shape[-2:]
    out = torch.empty_like(maps)
    grid = (triton.cdiv(height * width, TILE), maps.shape[0] * maps.shape[1])
    _median[grid](maps, out, height, width, SIZE=size, PAIRS=exchanges(size * size), TILE=TILE, **OPTIONS)
    return out


@cache
def exchanges(count: int) -> tuple[tuple[int, int], ...]:
    """Pairs of places whose values, put in order one pair after the other, bring the median to the middle place.

    Batcher's merge exchange (Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2M) less what only
    matters for the other places.
    """
    pairs: list[tuple[int, int]] = []
    top = 1 << ((count - 1).bit_length() - 1)
    distance = top
    while distance:
        span, rest, step = top, 0, distance
        while True:
            pairs += [(i, i + step) for i in range(count - step) if i & distance == rest]
            if span == distance:
                break
            step, span, rest = span - distance, span // 2, distance
        distance //= 2
    needed, kept = {count // 2}, []
    for pair in reversed(pairs):
        if needed.intersection(pair):
            kept.append(pair)
            needed.update(pair)
    return tuple(reversed(kept))


# Sizes and places within `change` take any value: no kernel of its own for those that are multiples of 16.
@triton.jit(do_not_specialize=["height", "width", "tiles"], do_not_specialize_on_alignment=["before", "after"])
def _iterate(
    flow,
    dual,
    new_flow,
    new_dual,
    linear,
    before,
    after,
    taken,
    height,
    width,
    tiles,
    limit,
    reach,
    theta,
    ratio,
    flat,
    TILE: tl.constexpr,
    TILES: tl.constexpr,
):
    """One inner iteration of a tile of a pair, from ``flow`` and ``dual`` to ``new_flow`` and ``new_dual``.

    Every program adds up the changes that all tiles of its pair made ``before``: if that was little, the pair has
    converged, and the program only says so to the next iteration, by a change of 0 ``after`` this one. The flow right
    of and below a pixel, which its dual variable needs, is computed here once more instead of awaited.
    """
    tile = tl.program_id(0)
    pair = tl.program_id(1).to(tl.int64)
    numbers = tl.arange(0, TILES)
    total = tl.sum(tl.load(before + pair * tiles + numbers, mask=numbers < tiles, other=0.0))
    if total <= limit:
        tl.store(after + pair * tiles + tile, 0.0)
        return
    area = height * width
    flow += pair * 2 * area
    dual += pair * 4 * area
    linear += pair * 3 * area
    place = tile * TILE + tl.arange(0, TILE)
    x, y = place % width, place // width
    inside = place < area
    old_u, old_v, u, v = _flow_at(flow, dual, linear, x, y, inside, width, area, reach, theta, flat)
    has_right, has_below = inside & (x + 1 < width), inside & (y + 1 < height)
    _, _, right_u, right_v = _flow_at(flow, dual, linear, x + 1, y, has_right, width, area, reach, theta, flat)
    _, _, below_u, below_v = _flow_at(flow, dual, linear, x, y + 1, has_below, width, area, reach, theta, flat)
    new_flow += pair * 2 * area + place
    tl.store(new_flow, u, mask=inside)
    tl.store(new_flow + area, v, mask=inside)
    u_x, u_y = tl.where(has_right, right_u - u, 0.0), tl.where(has_below, below_u - u, 0.0)
    v_x, v_y = tl.where(has_right, right_v - v, 0.0), tl.where(has_below, below_v - v, 0.0)
    dual += place
    new_dual += pair * 4 * area + place
    _store_dual(dual, new_dual, u_x, u_y, inside, area, ratio)
    _store_dual(dual + 2 * area, new_dual + 2 * area, v_x, v_y, inside, area, ratio)
    moved = (u - old_u) * (u - old_u) + (v - old_v) * (v - old_v)
    tl.store(after + pair * tiles + tile, tl.sum(tl.where(inside, moved, 0.0)))
    if tile == 0:
        tl.store(taken + pair, tl.load(taken + pair) + 1)


@triton.jit
def _flow_at(flow, dual, linear, x, y, inside, width, area, reach, theta, flat):
    """Old and new flow at pixels; 0 where they are not ``inside``."""
    place = y * width + x
    across = tl.load(linear + place, mask=inside, other=0.0)
    down = tl.load(linear + area + place, mask=inside, other=0.0)
    constant = tl.load(linear + 2 * area + place, mask=inside, other=0.0)
    u = tl.load(flow + place, mask=inside, other=0.0)
    v = tl.load(flow + area + place, mask=inside, other=0.0)
    residual = constant + (across * u + down * v)
    slope = tl.maximum(across * across + down * down, flat)
    step = tl.minimum(tl.maximum(tl.div_rn(-residual, slope), -reach), reach)
    new_u = (u + step * across) + theta * _divergence(dual + place, x, y, inside, width, area)
    new_v = (v + step * down) + theta * _divergence(dual + 2 * area + place, x, y, inside, width, area)
    return u, v, new_u, new_v


@triton.jit
def _divergence(dual, x, y, inside, width, area):
    """Of one component's dual variable, whose parts across and down lie ``area`` apart; zeros beyond the border."""
    part_x = tl.load(dual, mask=inside, other=0.0) - tl.load(dual - 1, mask=inside & (x > 0), other=0.0)
    dual += area
    part_y = tl.load(dual, mask=inside, other=0.0) - tl.load(dual - width, mask=inside & (y > 0), other=0.0)
    return part_x + part_y


@triton.jit
def _store_dual(dual, new_dual, gradient_x, gradient_y, inside, area, ratio):
    """The dual variable of one component after a step."""
    shrink = 1 + ratio * tl.sqrt_rn(gradient_x * gradient_x + gradient_y * gradient_y)
    part_x = tl.load(dual, mask=inside, other=0.0) + ratio * gradient_x
    part_y = tl.load(dual + area, mask=inside, other=0.0) + ratio * gradient_y
    tl.store(new_dual, tl.div_rn(part_x, shrink), mask=inside)
    tl.store(new_dual + area, tl.div_rn(part_y, shrink), mask=inside)


@triton.jit(do_not_specialize=["height", "width"])
def _median(maps, out, height, width, SIZE: tl.constexpr, PAIRS: tl.constexpr, TILE: tl.constexpr):
    """Median over squares of ``SIZE`` px of a tile of a map."""
    area = height * width
    maps += tl.program_id(1).to(tl.int64) * area
    out += tl.program_id(1).to(tl.int64) * area
    place = tl.program_id(0) * TILE + tl.arange(0, TILE)
    x, y = place % width, place // width
    inside = place < area
    values = ()
    for down in tl.static_range(SIZE):
        row = tl.minimum(tl.maximum(y + down - SIZE // 2, 0), height - 1)
        for across in tl.static_range(SIZE):
            column = tl.minimum(tl.maximum(x + across - SIZE // 2, 0), width - 1)
            values = values + (tl.load(maps + row * width + column, mask=inside),)
    for number in tl.static_range(len(PAIRS)):
        values = _exchange(values, PAIRS[number][0], PAIRS[number][1])
    tl.store(out + place, values[SIZE * SIZE // 2], mask=inside)


@triton.jit
def _exchange(values, low: tl.constexpr, high: tl.constexpr):
    """Put the values at two places in order."""
    less, more = tl.minimum(values[low], values[high]), tl.maximum(values[low], values[high])
    return values[:low] + (less,) + values[low + 1 : high] + (more,) + values[high + 1 :]
