"""Prints the cells of a workbook as JSON; a program of its own, see ``workbook.py``. Imports nothing of the project."""

import io
import json
import sys
from contextlib import suppress

from python_calamine import SheetTypeEnum, SheetVisibleEnum, load_workbook

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None


def main(path: str, most_worksheets: int, most_rows: int, most_columns: int, memory: int) -> dict:
    """The worksheets, each with its title, whether it is shown, and its rows as (number, texts); or an ``error``."""
    if resource is not None:
        with suppress(OSError, ValueError):  # a lower limit holds already
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        with open(path, "rb") as file:
            content = io.BytesIO(file.read())  # named by a path, the format would be taken from the name
        with load_workbook(content) as book:
            listed = [sheet for sheet in book.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
            if len(listed) > most_worksheets:
                return {"error": f"it has {len(listed)} worksheets, and no annotation has over {most_worksheets}"}
            worksheets = []
            for listing in listed:
                sheet = book.get_sheet_by_name(listing.name)
                if sheet.height > most_rows:
                    return {"error": f"a worksheet has over {most_rows} rows, as no annotation has"}
                first = sheet.start[0] + 1 if sheet.start else 1
                rows = [[text(cell) for cell in row[:most_columns]] for row in sheet.to_python()]
                shown = listing.visible == SheetVisibleEnum.Visible
                worksheets.append((listing.name, shown, [*enumerate(rows, start=first)]))
            return {"worksheets": worksheets}
    except Exception as error:
        return {"error": str(error)}


def text(cell: object) -> str:
    """A cell as text; a workbook keeps 46 as 46.0."""
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell)


if __name__ == "__main__":
    json.dump(main(sys.argv[1], *map(int, sys.argv[2:])), sys.stdout)
