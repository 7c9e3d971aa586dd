"""Which frames of a clip its flow leads from and to. No torch."""

from typing import Literal

Motion = Literal["apex", "both", "pairs"]
"""``apex``: a map from the onset to the apex. ``both``: a second one from the apex to the offset. ``pairs``: more maps
of the same motion to train on, between the frames beside onset and apex."""

MAPS: dict[Motion, int] = {"apex": 1, "both": 2, "pairs": 4}
"""Maps of a clip."""

CHANNELS: dict[Motion, int] = {"apex": 3, "both": 6, "pairs": 3}
"""Channels of the flow that a network reads: u, v and strain of each map that it sees at once."""


def pairs(motion: Motion, apex: int, last: int) -> list[tuple[list[int], list[int]]]:
    """The two frames of each map of a clip, as places in the list of its frames, where the onset is 0.

    Args:
        motion: See ``Motion``.
        apex: Place of the apex, 1 or more.
        last: Place of the offset.

    Returns:
        For every map the first frame and the second one; of each the frame that is wanted, then those that may take its
        place if it does not open. The first map leads from onset to apex; every list ends with one of the two.
    """
    forth = [([0], [apex])]
    if motion == "both":
        return [*forth, ([apex], list(range(last, apex - 1, -1)))]
    if motion == "pairs":
        beside = [([0], [max(apex - 1, 1), apex]), ([0], [min(apex + 1, last), apex])]
        return [*forth, *beside, ([min(1, apex - 1), 0], [apex])]
    return forth
