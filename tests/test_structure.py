"""The layers of the project, read from its source: what imports what, how long files are, what the wheel holds."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {"mer": ROOT / "src/mer", "data_modules": ROOT / "data_modules", "experiments": ROOT / "experiments"}
"""From the lowest to the highest: a layer may import those before it."""

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

LONGEST = 300
"""Lines of a file."""


def module_name(path: Path) -> str:
    """The dotted name of a source file; that of a package for its ``__init__.py``."""
    root = LAYERS["mer"].parent if path.is_relative_to(LAYERS["mer"]) else ROOT
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for folder in LAYERS.values() for path in sorted(folder.rglob("*.py"))}


def imports(module: str) -> set[str]:
    """The files of the project that a file imports, also inside a function or for its types."""
    if module == "mer":  # the public names, which stand for files below it that all know its errors
        return set()
    names = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import, which hides its layer"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in FILES else node.module for name in inside}
    return names & set(FILES)


IMPORTS = {module: imports(module) for module in FILES}


def reachable(module: str) -> set[str]:
    """Every file that importing a file may import in the end."""
    reached, waiting = set(), [module]
    while waiting:
        new = IMPORTS[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


def test_no_files_import_each_other():
    reached = {module: reachable(module) for module in FILES}
    circles = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in FILES
        if module in reached[module]
    }
    assert not circles, [sorted(circle) for circle in circles]


@pytest.mark.parametrize("module", FILES)
def test_nothing_imports_against_the_arrows(module):
    order = list(LAYERS)
    above = order[order.index(module.split(".")[0]) + 1 :]
    assert [name for name in IMPORTS[module] if name.split(".")[0] in above] == []


@pytest.mark.parametrize("module", FILES)
def test_a_file_is_short(module):
    assert len(FILES[module].read_text().splitlines()) <= LONGEST


def test_the_wheel_has_all_packages_but_the_benchmarks():
    packages = {name for name, path in FILES.items() if path.name == "__init__.py"}
    benchmarks = {name for name in packages if name.startswith("experiments.benchmarks")}
    written = SETUPTOOLS["packages"]
    assert benchmarks and set(written) == packages - benchmarks
    wheel = [path for name, path in FILES.items() if not name.startswith("experiments.benchmarks")]
    assert [str(path) for path in wheel if module_name(path.parent / "__init__.py") not in packages] == []


def test_the_wheel_has_every_file_that_commands_read():
    patterns = [
        pattern
        for package, names in SETUPTOOLS["package-data"].items()
        for pattern in (f"{FILES[package].parent}/{name}" for name in names)
    ]
    others = {path for folder in LAYERS.values() for path in folder.rglob("*") if path.is_file()} - set(FILES.values())
    needed = [path for path in others if not {"__pycache__", "benchmarks"} & set(path.parts)]
    assert needed and [str(path) for path in needed if not any(path.match(pattern) for pattern in patterns)] == []
