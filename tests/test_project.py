import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text().split("\n", 1)[1].replace(" \\\n    ", " ").splitlines()
LAYERS = {"mer": ROOT / "src/mer", "data_modules": ROOT / "data_modules", "experiments": ROOT / "experiments"}
SOURCES = [(layer, path) for layer, folder in LAYERS.items() for path in sorted(folder.rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-contrib-python",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def imported(path):
    """Top-level packages that a file imports anywhere, also inside a function."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_every_package_that_is_imported_is_declared():
    needed = {name_of(requirement) for requirement in PROJECT["project"]["dependencies"]}
    extras = PROJECT["project"]["optional-dependencies"]
    dev = {name_of(requirement) for requirement in extras["dev"]}
    for extra in ("dashboard", "export", "demo"):  # their absence has a message
        needed |= {name_of(requirement) for requirement in extras[extra]}
    for paths, declared in (([path for _, path in SOURCES], needed), (TESTS, needed | dev)):
        names = {name for path in paths for name in imported(path)} - set(sys.stdlib_module_names) - set(LAYERS)
        assert {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in names - {"tests"}} <= declared


def test_the_lock_has_everything_exactly_with_its_hashes_and_no_addresses():
    locked = {name_of(line) for line in LOCK}
    for line in LOCK:
        version, *hashes = line.split(" --hash=sha256:")
        assert re.fullmatch(r"[a-z0-9-]+==[\w.+!]+( ; sys_platform == 'linux')?", version), line
        assert hashes and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes), line
    assert len(locked) == len(LOCK)
    extra = PROJECT["project"]["optional-dependencies"]["dev"]
    assert {name_of(requirement) for requirement in PROJECT["project"]["dependencies"] + extra} <= locked


def test_every_bound_has_its_reason():
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if re.search(r"[<>=]=?\d", line):
            assert " # " in line or "python_full_version" in line, line


def test_a_commit_is_checked_as_make_lint_checks():
    """Both call what is in .venv, so versions and rules are the same; no rule stands in either of them."""
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.M)[1]
    asked = [line.strip().replace("$(BIN)", ".venv/bin").replace(" --check", "") for line in lint.splitlines()]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [re.sub(" --(force-exclude|fix)", "", hook["entry"]) for hook in hooks] == asked


@pytest.mark.parametrize(
    "path", ["environment.yml", "CITATION.cff", ".pre-commit-config.yaml", ".github/workflows/ci.yml"]
)
def test_yaml_opens(path):
    assert isinstance(yaml.safe_load((ROOT / path).read_text()), dict)


UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}  # reading runs what was written


@pytest.mark.parametrize(("layer", "path"), SOURCES, ids=[str(path.relative_to(ROOT)) for _, path in SOURCES])
def test_nothing_that_is_read_can_run(layer, path):
    assert not UNSAFE & set(imported(path))
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if not isinstance(node, ast.Call):
            continue
        call, options = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
        assert call not in ("eval", "exec", "compile", "os.system", "os.popen"), call
        assert options.get("shell", "False") == options.get("allow_pickle", "False") == "False", call
        assert not re.fullmatch(r"yaml\.(load|unsafe_load|full_load)(_all)?", call), call
        assert not call.endswith("load_from_checkpoint") and not call.startswith("torch.hub"), call
        if call == "torch.load":
            assert options.get("weights_only") == "True", call
