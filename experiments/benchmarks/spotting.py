"""`python -m experiments.benchmarks.spotting`: precision, recall and F1 of the spotting in long videos.

On synthetic long videos with planted micro-expressions, and on the whole videos of a synthetic CAS(ME)^3 against its
sheet. The numbers in ``mer.preprocessing.spotting`` were chosen on ``CHOSEN_ON``; none of it is measured here.
"""

import argparse
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_modules.cache.store import write_text
from data_modules.casme3 import CASME3
from data_modules.synthesis.long_videos import Event, LongVideo
from data_modules.synthesis.synthesize import synthesize
from experiments.benchmarks.page import fill
from mer.preprocessing.frame_files import list_frames, read_image
from mer.preprocessing.opencv import cv2
from mer.preprocessing.spotting import Interval, spot_intervals

COMMAND = "python -m experiments.benchmarks.spotting"
IOU = 0.5
CHOSEN_ON = "seeds 101 to 108 of the long videos and 50 to 52 of the CAS(ME)^3 layout"
LONG = {  # seed, seconds, frames per second
    "30 fps": [(seed, 20.0, 30.0) for seed in range(201, 207)],
    "100 and 200 fps": [(213, 15.0, 100.0), (228, 15.0, 200.0)],
}
CASME3_SEEDS = (60, 61, 62)
SUBJECTS, CLIPS = 5, 6
KINDS = {
    "micro": "a micro-expression whose ends were missed",
    "blink": "a blink",
    "macro": "a macro-expression",
    "speech": "speech",
    "nothing": "none of these",
}
HEADER = (
    "| videos | seconds | micro-expressions | spotted | right | precision | recall | F1 | frames per second |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


@dataclass
class Result:
    """What was spotted in some videos.

    Attributes:
        spotted: Intervals that were found.
        right: Those of them that share at least ``IOU`` of their frames with a micro-expression of their own.
        wrong: The others, by the kind of event that their apex lies in.
        events: How many there are of each kind of event.
        seconds: Length of the videos.
        frames: Number of frames.
        work: Seconds that the spotting took, without making or reading the frames.
    """

    spotted: int = 0
    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    frames: int = 0
    work: float = 0.0

    def add(self, events: Sequence[Event], intervals: Sequence[Interval]) -> None:
        """Count one video."""
        micro = [event for event in events if event.kind == "micro"]
        free = set(range(len(micro)))
        self.events.update(event.kind for event in events)
        self.spotted += len(intervals)
        for interval in intervals:
            best = max(free, key=lambda number: overlap(interval, micro[number]), default=None)
            if best is not None and overlap(interval, micro[best]) >= IOU:
                free.remove(best)
                self.right += 1
            else:
                inside = [event.kind for event in events if event.onset <= interval.apex <= event.offset]
                self.wrong[inside[0] if inside else "nothing"] += 1

    def row(self, name: str) -> str:
        """A row of the table."""
        planted = self.events["micro"]
        precision, recall = (self.right / max(1, number) for number in (self.spotted, planted))
        f1 = 2 * self.right / max(1, self.spotted + planted)
        counts = f"{self.seconds:.0f} | {planted} | {self.spotted} | {self.right}"
        return f"| {name} | {counts} | {precision:.2f} | {recall:.2f} | {f1:.2f} | {self.frames / self.work:.0f} |"


def main() -> None:
    """Measure, and write the table into ``docs/spotting.md``."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of spotting.md")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    text = table(
        {**{f"long, {name}": long_videos(videos) for name, videos in LONG.items()}, "CAS(ME)^3": casme3(CASME3_SEEDS)}
    )
    print(text)
    page = options.docs / "spotting.md"
    write_text(page, fill(page, COMMAND, text))


def long_videos(videos: Iterable[tuple[int, float, float]]) -> Result:
    """Spot in synthetic long videos; each is a seed, its seconds and its frames per second."""
    result = Result()
    for seed, seconds, rate in videos:
        video = LongVideo(seed, seconds, rate)
        result.add(video.events, _spot(video.frames(), rate, result))
    return result


def casme3(seeds: Iterable[int]) -> Result:
    """Spot in the whole videos of synthetic CAS(ME)^3 folders; the truth is their sheet, read as the suite reads it."""
    result = Result()
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "casme3"
            synthesize(root, layout="casme3", subjects=SUBJECTS, clips=CLIPS, seed=seed, workers=1)
            for path, clips in CASME3(root=str(root)).all_clips.groupby("folder"):
                frames = list_frames(Path(str(path)))
                numbers = np.array([frame.number for frame in frames])
                events = []
                for clip in clips.itertuples():
                    inside = np.flatnonzero((numbers >= clip.onset) & (numbers <= clip.offset))
                    events.append(Event("micro", int(inside[0]), int(inside[len(inside) // 2]), int(inside[-1])))
                result.add(events, _spot((read_image(frame.path) for frame in frames), 30.0, result))
    return result


def overlap(interval: Interval, event: Event) -> float:
    """Frames that both have, as a share of those that either has."""
    both = max(0, min(interval.offset, event.offset) - max(interval.onset, event.onset) + 1)
    return both / (interval.offset - interval.onset + event.offset - event.onset + 2 - both)


def table(results: dict[str, Result]) -> str:
    """The results as Markdown."""
    rows = [result.row(name) for name, result in results.items()]
    total = Result()
    for result in results.values():
        total.events += result.events
        total.wrong += result.wrong
    kinds = ", ".join(f"{total.wrong[kind]} in {name}" for kind, name in KINDS.items())
    return "\n".join(
        [
            f"One core ({platform.machine()}). An interval is right at an IoU of {IOU} or more. Speed is that of the "
            "spotting alone, in frames of the video: opening the face finder counts, making the frames does not.",
            "",
            *HEADER,
            *rows,
            "",
            f"There were {total.events['blink']} blinks, {total.events['macro']} macro-expressions and "
            f"{total.events['speech']} stretches of speech. Of the wrong intervals, {kinds}.",
        ]
    )


def _spot(frames: Iterable[NDArray[np.uint8]], rate: float, result: Result) -> tuple[Interval, ...]:
    """Spots, and adds length and time to a result."""
    made, count = 0.0, 0

    def timed() -> Iterator[NDArray[np.uint8]]:
        nonlocal made, count
        source = iter(frames)
        while True:
            start = time.perf_counter()
            frame = next(source, None)
            made += time.perf_counter() - start
            if frame is None:
                return
            count += 1
            yield frame

    start = time.perf_counter()
    spotted = spot_intervals(timed(), rate)
    result.work += time.perf_counter() - start - made
    result.frames += count
    result.seconds += count / rate
    return spotted.intervals


if __name__ == "__main__":
    main()
