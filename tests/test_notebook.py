"""The notebook of the documents, run from top to bottom."""

import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FILE = Path(__file__).parents[1] / "docs/notebooks/quickstart.ipynb"
LARGEST, LARGEST_PICTURE = 400_000, 60_000  # bytes: it is in the repository
PATH = re.compile(r"(?<![\w.<])/[\w.-]+/[\w.-]+")


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def texts(notebook):
    for output in outputs(notebook):
        yield output.get("text", "")
        yield from (content for kind, content in output.get("data", {}).items() if kind.startswith("text/"))


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(FILE, as_version=4)


def test_a_path_is_recognised():
    assert PATH.search("in /home/anna/mer") and not PATH.search("report: results/report/index.html, 2 / 3 <td>1</td>")


def test_what_is_stored_is_whole_small_and_names_no_machine(stored):
    nbformat.validate(stored)
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert FILE.stat().st_size < LARGEST
    kinds = [output.get("data", {}) for output in outputs(stored)]
    pictures = [content for data in kinds for kind, content in data.items() if kind.startswith("image/")]
    assert len(pictures) == 2 and all(len(picture) < LARGEST_PICTURE for picture in pictures)
    assert [text for text in texts(stored) if PATH.search(text)] == []


START = """from shlex import split
import rich.console
from data_modules.processes import pool
from experiments.cli import main
rich.console._is_jupyter = bool  # draw as in a shell
pool.warm_up(["experiments.fold"])"""


def in_the_kernel(cell):
    """Have a command that trains run in the kernel, which has imported torch: in a shell it would twice."""
    if cell.source.startswith(("%%bash\nmer sweep", "%%bash\nmer fit")):
        cell.source = re.sub("^mer (.*)$", r"assert main(split('\1')) == 0", cell.source[7:], flags=re.M)
        cell.source = re.sub("^ls ", "!ls ", cell.source, flags=re.M)
    return cell


def test_it_runs(stored, tmp_path, monkeypatch):
    notebook = nbformat.from_dict(stored)
    first = nbformat.v4.new_code_cell(START)
    notebook.cells = [first, *map(in_the_kernel, notebook.cells)]
    assert sum("assert main(" in cell.source for cell in notebook.cells) == 2
    with tempfile.TemporaryDirectory() as written:  # not below tmp_path, which is too long a name for a socket
        monkeypatch.setenv("TMPDIR", written)
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert [text for text in texts(notebook) if PATH.search(text)] == []
    assert list(tmp_path.iterdir()) == []
