"""What a configuration may name, and what happens when it names something else."""

import sys

import pytest

from experiments.cli import main
from experiments.configuration import parse
from experiments.jobs import Job
from mer import InputError


def config(*options: str, allow: tuple[str, ...] = ()):
    return parse(Job("flow_maps", "ststnet", options=options, allow=allow)).config


@pytest.fixture
def file(tmp_path):
    """Writes a configuration and returns the options that name it."""

    def write(text: str | bytes) -> tuple[str, str]:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return "--config", str(path)

    return write


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> str:
    """A package of somebody else; whoever imports it finds it in ``sys.modules``."""
    (tmp_path / "stranger.py").write_text(
        "from lightning.pytorch.callbacks import Callback\nfrom mer.models.ststnet import STSTNet\n"
        "class Watcher(Callback):\n    pass\nclass Net(STSTNet):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "stranger"
    sys.modules.pop("stranger", None)


@pytest.mark.parametrize(
    "option",
    [
        "--model.network=stranger.Net",
        "--model.network={class_path: stranger.Net, init_args: {dropout: 0.1}}",
        "--model=stranger.Net",
        "--data=stranger.Net",
        "--trainer.callbacks=stranger.Watcher",
        "--trainer.callbacks+=stranger.Watcher",
        "--trainer.callbacks=[{class_path: BatchSizeFinder}, {class_path: stranger.Watcher}]",
        "--trainer.logger=stranger.Net",
        "--trainer.plugins=stranger.Net",
        "--optimizer=stranger.Net",
        "--lr_scheduler=stranger.Net",
    ],
)
def test_a_class_of_somebody_else_is_refused_before_it_is_imported(stranger, option):
    with pytest.raises(InputError, match="'stranger\\.(Net|Watcher)' is not imported.*--allow stranger"):
        config(option)
    assert stranger not in sys.modules


def test_in_a_file_it_is_refused_as_well(stranger, file):
    for text in (
        "trainer: {callbacks: [{class_path: stranger.Watcher}]}",
        "trainer: {strategy: {class_path: stranger.Net}}",
        "trainer: {profiler: {class_path: stranger.Net}}",
        "model: {init_args: {network: {class_path: stranger.Net}}}",
    ):
        with pytest.raises(InputError, match="--allow stranger"):
            config(*file(text))
    assert stranger not in sys.modules


def test_a_package_that_the_user_names_is_imported(stranger, flow_maps, tmp_path):
    shared = ["--dataset", "flow_maps", "--root", str(flow_maps), "--model", "ststnet", "--results", str(tmp_path)]
    arguments = ["sweep", *shared, "--dry-run", "--model.network=stranger.Net", "--trainer.callbacks+=stranger.Watcher"]
    assert main([*arguments, "--allow", "another"]) == 2 and stranger not in sys.modules
    assert main([*arguments, "--allow", "another", "--allow", "stranger"]) == 0 and stranger in sys.modules
    assert main(arguments) == 2
    with pytest.raises(InputError, match="--allow jsonargparse,no-name names no package"):
        config(allow=("jsonargparse", "no-name"))


@pytest.mark.parametrize(
    "path", ["os.system", "subprocess.Popen", "builtins.eval", "torch.os.system", "lightning.pytorch.cli.os.system"]
)
@pytest.mark.parametrize("option", ["--model.network", "--trainer.callbacks", "--data", "--optimizer"])
def test_nothing_of_python_itself_is_named(path, option):
    with pytest.raises(InputError):
        config(f"{option}={path}")


@pytest.mark.parametrize("path", ["torch.hub.load", "torch.load", "timm.create_model", "torch.nn.Linear", "mer.near"])
@pytest.mark.parametrize("option", ["--model.network", "--trainer.callbacks", "--data", "--optimizer"])
def test_what_does_not_fit_is_refused(path, option):
    with pytest.raises(InputError):
        config(f"{option}={path}")


@pytest.mark.parametrize("function", ["torch.hub.load", "torch.load", "timm.create_model"])
def test_a_function_is_refused_where_one_would_fit(file, function):
    watcher = "class_path: lightning.pytorch.callbacks.LambdaCallback, init_args: "
    with pytest.raises(InputError, match="is no class, and a configuration may name nothing else"):
        config(*file(f"trainer: {{callbacks: [{{{watcher}{{on_fit_start: {function}}}}}]}}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch /tmp/x']\n",
        "model: !!python/name:os.system\n",
        "trainer: " + "[" * 5_000,
        "trainer: {max_steps: " + "9" * 5_000 + "}",
        "x" * (2 << 20),
        b"\xff\xfe\x00model",
        b"model: \x00",
        "",
        "5",
        "- 1",
        "model: [",
        "no_such: 1",
        "trainer: null",
        "data: null",
        "model: null",
    ],
    ids=range(15),
)
def test_hostile_yaml_is_one_message(file, text):
    with pytest.raises(InputError) as caught:
        config(*file(text))
        raise InputError("nothing is wrong with it")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2_000


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            config("--config", str(path))


def test_text_stays_text(file, monkeypatch):
    monkeypatch.setenv("SECRET", "0123456789")
    place = "${oc.env:SECRET}"
    found = config(*file(f"trainer: {{default_root_dir: '{place}'}}\n"))
    assert found.trainer.default_root_dir == place and "config" not in found
    with pytest.raises(InputError, match="model.lr has to be float"):
        config(f"--model.lr={place}")


@pytest.mark.parametrize(
    ("logger", "word"),
    [
        ("false", "by mer itself"),
        ("WandbLogger", "by mer itself"),
        ("{class_path: CometLogger, init_args: {api_key: secret}}", "holds a key"),
    ],
)
def test_a_logger_of_wandb_or_with_a_key_of_its_own_is_refused(logger, word):
    with pytest.raises(InputError, match=word):
        config(f"--trainer.logger={logger}")


@pytest.mark.parametrize("seed", ["3", "-16636", "true"])
def test_seeds_are_no_option_of_a_class(seed, file):
    with pytest.raises(InputError, match="leave --seed_everything away"):
        config(f"--seed_everything={seed}")
    with pytest.raises(InputError, match="leave --seed_everything away"):
        config(*file(f"seed_everything: {seed}"))


def test_a_refusal_ends_with_status_2(capsys, flow_maps, tmp_path):
    shared = ["--dataset", "flow_maps", "--root", str(flow_maps), "--model", "ststnet", "--results", str(tmp_path)]
    for command in (["sweep"], ["train", "--fold", "smic-s1"], ["prepare"]):
        results = shared if command[0] != "prepare" else shared[:-2]
        assert main([*command, *results, "--model.network=os.system"]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "'os.system' is not imported" in told and "--allow os" in told
    assert not list(tmp_path.iterdir())
