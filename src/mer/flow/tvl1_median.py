"""A median filter over small squares for a Triton kernel: a sorting network in registers."""

from functools import cache

import triton
import triton.language as tl


@cache
def exchanges(count: int) -> tuple[tuple[int, int], ...]:
    """Pairs of positions; sorting the pairs one after the other brings the median of ``count`` values to the middle.

    Batcher's merge exchange (Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2M), without the exchanges
    that the middle position does not need.
    """
    pairs: list[tuple[int, int]] = []
    top = (1 << (count - 1).bit_length()) // 2
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


@triton.jit
def median_filter(maps, out, height, width, SIZE: tl.constexpr, PAIRS: tl.constexpr, TILE: tl.constexpr):
    """Median of a map (height, width) over squares of ``SIZE`` px; the border is repeated."""
    area = height * width
    for start in range(0, area, TILE):
        place = start + tl.arange(0, TILE)
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
    """Sort the values at two positions."""
    less, more = tl.minimum(values[low], values[high]), tl.maximum(values[low], values[high])
    return values[:low] + (less,) + values[low + 1 : high] + (more,) + values[high + 1 :]
