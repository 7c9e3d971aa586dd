"""What tells two recipes of one model apart, from their ``config.yaml``."""

from collections.abc import Iterator

import yaml

from experiments.plain_yaml import check_yaml
from experiments.report.boards import Board, Row
from experiments.report.tables import MODEL, Line, Table

PLACES = ("root", "cache", "workers", "accelerator", "devices")  # no part of a recipe


def recipes(board: Board) -> Table | None:
    """The options in which recipes of one model differ; None if no model has two."""
    models = [row.cell.model for row in board.rows]
    lines = []
    for model in dict.fromkeys(models):
        rows = [row for row in board.rows if row.cell.model == model]
        options = {row.name: dict(_flat(_config(row))) for row in rows}
        keys = sorted({key for one in options.values() for key in one})
        differing = [key for key in keys if len({one.get(key, "") for one in options.values()}) > 1]
        for key in differing:
            lines += [Line(MODEL, (name, key, one.get(key, ""))) for name, one in options.items()]
    note = "Recipes of one model whose options are all alike differ in their data or in a revision of the code."
    if len(set(models)) == len(models):
        return None
    return Table(
        f"{board.key}-recipes",
        "What differs between recipes",
        ("model", "option", "value"),
        tuple(lines),
        note,
        (0, 1, 2),
    )


def _config(row: Row) -> object:
    try:
        text = (row.cell.folder / "config.yaml").read_text()
        check_yaml(text)
        return yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Options as ``model.lr``, with the text of their values."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            if name not in PLACES:
                step = "" if name == "init_args" else f".{name}" if prefix else str(name)
                yield from _flat(inner, prefix + step)
    else:
        yield prefix, str(value)
