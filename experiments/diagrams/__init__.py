"""Draws the figures of ``docs/`` and fills in the table of ``docs/models.md``: ``python -m experiments.diagrams``.

Every shape and count in a figure is that of the network that a recipe builds.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def made() -> dict[Path, str]:
    """What the files of ``docs/`` that are made should hold, by path."""
    from experiments.diagrams import ahmsa_net, hsta, measured, mfvan  # torch: only where it is needed

    files = {DOCS / f"{one.__name__.rsplit('.', 1)[1]}.svg": one.draw().svg() for one in (ahmsa_net, hsta, mfvan)}
    page = DOCS / "models.md"
    table = re.compile(r"(?<=<!-- measured -->\n\n).*?(?=\n\n<!-- end of measured -->)", flags=re.DOTALL)
    text, tables = table.subn(lambda _: measured.table(), page.read_text())
    if tables != 1:
        raise ValueError(f"{page} needs its table between <!-- measured --> and <!-- end of measured -->, once")
    return {**files, page: text}
