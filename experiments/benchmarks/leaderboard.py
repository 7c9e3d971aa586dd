"""Writes leaderboards of results folders into ``docs/leaderboard.md``.

``python -m experiments.benchmarks.leaderboard flow_maps=RESULTS flow_maps_2=OTHER_RESULTS``
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from data_modules.cache.store import write_text
from experiments import report
from experiments.benchmarks.page import fill

PAGE = Path(__file__).parents[2] / "docs/leaderboard.md"


def write(named: Sequence[str], page: Path = PAGE) -> None:
    """Write a report of each results folder, without faces; its leaderboard goes to the page.

    Args:
        named: ``NAME=RESULTS``; the name is that of the block in the page.
        page: The page.
    """
    for name, _, results in (words.partition("=") for words in named):
        folder = report.write(Path(results)).parent
        text = (folder / "leaderboard.md").read_text()
        block = text[text.index("## ") :].replace("## ", "### ").strip()
        write_text(page, fill(page, f"python -m experiments.benchmarks.leaderboard {name}", block))


if __name__ == "__main__":
    write(sys.argv[1:])
