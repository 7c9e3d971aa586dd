"""The words of the command line. Nothing heavy is imported."""

import argparse
import re
import sys
from pathlib import Path
from typing import IO, NoReturn

from data_modules import DATASETS
from experiments.slurm import request
from mer import InputError, __version__, near

TAKE_OPTIONS_OF_CLASSES = ("inspect", "prepare", "train", "sweep", "search", "fit")


class Parser(argparse.ArgumentParser):
    """Wrong arguments get one line that holds the wrong word and the names near it."""

    takes_class_options = False

    def print_help(self, file: IO[str] | None = None) -> None:
        """Print the help; that of the classes, which takes seconds to import, comes after the command's own."""
        super().print_help(file)
        if self.takes_class_options:
            sys.stdout.flush()
            from experiments.configuration import class_help

            print(class_help(), file=file)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def check(self, unknown: list[str]) -> None:
        """Refuse arguments that nothing understands.

        Raises:
            InputError: If there are any.
        """
        for word in unknown[:1]:
            name = word.split("=")[0]
            hint = near(name, (option for action in self._actions for option in action.option_strings))
            raise InputError(f"unknown option {name}{hint or f' (see {self.prog} --help)'}")


def parse(words: list[str]) -> tuple[Parser, argparse.Namespace]:
    """Read a command line.

    Returns:
        The parser, and what was chosen: ``command`` (None if there is none), its arguments, and as ``options`` the
        words for classes, ``--model.lr=1e-3``.

    Raises:
        InputError: If nothing understands a word.
    """
    parser, known = commands()
    own, beyond = words, []
    if "--" in words:
        cut = words.index("--")
        own, beyond = words[:cut], words[cut + 1 :]
    options, unknown = parser.parse_known_args(own)
    if options.command is None:
        return parser, options
    if options.command in TAKE_OPTIONS_OF_CLASSES:
        options_of_classes, unknown = _class_options(unknown)
        beyond = options_of_classes + beyond
    else:
        unknown += beyond
    known[options.command].check(unknown)
    options.options = tuple(beyond)
    return parser, options


def _class_options(words: list[str]) -> tuple[list[str], list[str]]:
    """Split off what Lightning's parser reads: ``--model.lr=1e-3``, ``--model.lr 1e-3``, ``--config my.yaml``."""
    options, others, takes_value = [], [], False
    for word in words:
        mine = bool(re.match(r"--((model|data|trainer)\.|(config|print_config)\b)", word))
        (options if mine or (takes_value and not word.startswith("--")) else others).append(word)
        takes_value = mine and "=" not in word
    return options, others


def commands() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the command line, and those of its commands by name."""
    parser = Parser(prog="mer", allow_abbrev=False)
    parser.description = "Micro-expression recognition from optical flow, one subject left out at a time."
    parser.add_argument("--version", action="version", version=f"mer {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, text: str) -> Parser:
        added = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        amount = added.add_mutually_exclusive_group()
        amount.add_argument("--quiet", action="store_true", help="say nothing of progress and of what to do next")
        amount.add_argument("--verbose", action="store_true", help="say every fold, and where an error comes from")
        return added

    synthesize = command("synthesize", "write a synthetic dataset in a real one's layout")
    synthesize.add_argument("--root", type=Path, required=True, help="new folder to write")
    synthesize.add_argument(
        "--layout", default="casme2", help="casme2 (default), samm, smic, casme3, clips or megc2019"
    )
    synthesize.add_argument("--subjects", type=_positive, help="subjects (default 10; smic 8, megc2019 and clips 6)")
    synthesize.add_argument("--clips", type=_positive, help="clips per subject (default 15; smic, megc2019, clips 9)")
    synthesize.add_argument(
        "--sheet", type=Path, action="append", default=[], help="a real sheet: small stills of every clip in it instead"
    )
    synthesize.add_argument("--seed", type=int, default=0)
    _add_workers(synthesize)

    inspect = command("inspect", "what lies in a dataset's folder and what is wrong with it")
    inspect.add_argument("dataset", nargs="?", default="synthetic", help=f"one of {', '.join(DATASETS)}")
    inspect.add_argument("--root", default="", help="the dataset's folder (default data/<dataset>)")
    inspect.add_argument("--protocol", default="", help="whose clips are listed or shown (default: the dataset's own)")
    inspect.add_argument("--json", action="store_true", help="print it for machines")
    inspect.add_argument("--clips", action="store_true", help="print the protocol's clips and their classes as CSV")
    inspect.add_argument("--gallery", action="store_true", help="also write every clip's pictures; fills the cache")
    inspect.add_argument("--cache", default="cache", help="cache folder (default ./cache)")
    _add_workers(inspect)

    prepare = command("prepare", "compute and cache what the models read")
    train = command("train", "train and test one fold")
    sweep = command("sweep", "train every fold that is not done, then report")
    search = command("search", "choose a recipe among inner folds for each group of subjects, then test it")
    fit = command("fit", "train a model with all subjects, to use it on clips of your own")
    for added in (prepare, train, sweep, search, fit):
        _add_data(added)
        added.takes_class_options = True
        added.epilog = (
            "Options of the classes follow. --config FILE reads them from a file, --print_config shows them all as the "
            "recipe has them, --model.help CLASS those of another class."
        )
    train.add_argument("--fold", required=True, help="the subject to hold out, <database>-<subject>")
    train.add_argument("--seed", type=int, default=0)
    sweep.add_argument("--seeds", type=_integers, default=(0,), help="comma-separated (default 0)")
    search.add_argument("--seeds", type=_integers, default=(0,), help="of the outer folds, comma-separated (default 0)")
    search.add_argument("--trials", type=_positive, default=12, help="recipes tried, its own among them (default 12)")
    fit.add_argument("--seeds", type=_integers, default=(0, 1, 2), help="networks of the model (default 0,1,2)")
    fit.add_argument("--models", type=Path, default=Path("models"), help="folder of the models (default ./models)")
    fit.add_argument("--searched", action="store_true", help="the recipe that mer search found in the results")
    fit.add_argument("--export", choices=("onnx",), help="also write model.onnx; needs the extra `export`")
    fit.add_argument("--registry", default="", metavar="NAME", help="collection of W&B's model registry to link it to")
    fit.add_argument("--upload-weights", action="store_true", help="send the weights to W&B, too, not only the card")
    for added in (train, sweep, search, fit):
        added.add_argument("--devices", help="GPU numbers, comma-separated, or cpu (default: all GPUs, else the CPU)")
        added.add_argument(
            "--stacked",
            nargs="?",
            const="true",
            choices=("true", "false"),
            help="whether many folds are trained as one program, which makes another cell (default: the recipe's own)",
        )
    sweep.add_argument(
        "--stack-size", type=_folds, default=0, metavar="auto|N", help="folds of a stack (default: what fits)"
    )
    sweep.add_argument("--folds", type=_names, default=(), help="comma-separated: train only these (default: all)")
    sweep.add_argument("--dry-run", action="store_true", help="list cells, folds and time, train nothing")
    sweep.add_argument(
        "--upload-pictures", action="store_true", help="add flow and attention, with faces, to what W&B is sent"
    )

    request.add_options(sweep, _positive)

    status = command("status", "folds done and pooled scores of every cell")
    status.add_argument("--json", action="store_true", help="print them for machines")
    report = command(
        "report", "write results/report/index.html, report.md, leaderboard.md and data/*.csv from the results"
    )
    report.add_argument(
        "--cache", type=Path, default=Path("cache"), help="cache folder with the faces (default ./cache)"
    )
    report.add_argument("--data-only", action="store_true", help="leave faces out, where a licence keeps them at home")
    predict = command("predict", "what a trained model says of clips of your own")
    predict.add_argument(
        "clips",
        nargs="+",
        metavar="CLIP",
        help="a video, a folder of frames, ONSET.png:APEX.png, a folder of clips, or a table (.csv, .xlsx) of them",
    )
    predict.add_argument("--model", required=True, metavar="DIR", help="a folder that mer fit has written")
    predict.add_argument("--out", type=Path, metavar="DIR", help="also write a page per clip, JSON and CSV there")
    for name in ("onset", "apex", "offset"):
        predict.add_argument(
            f"--{name}", metavar="PLACE", help="frame number, or seconds as 0.4s (default: looked for)"
        )
    predict.add_argument("--frames-per-second", type=_rate, help="where the clip does not say it, or says it wrongly")
    predict.add_argument(
        "--registered", action="store_true", help="frames are crops of registered faces: look for none"
    )
    predict.add_argument("--json", action="store_true", help="print JSON instead of a table")
    predict.add_argument("--device", help="cpu, or a GPU as cuda:0 (default: the first GPU, else the CPU)")
    demo = command("demo", "a local page that shows what a trained model says of a clip")
    demo.add_argument("--model", type=_names, required=True, help="folders of models, comma-separated: models/NAME")
    demo.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1: this machine alone)")
    demo.add_argument("--port", type=_port, default=7860, help="(default 7860; 0 for any that is free)")
    demo.add_argument("--largest", type=_positive, default=200, help="megabytes of an upload (default 200)")
    for added in (predict, demo):
        added.add_argument(
            "--allow", metavar="PACKAGE", action="append", default=[], help="let models consist of this package too"
        )
    sync = command("sync", "upload to W&B what it does not have of the results, and check that it is there")
    dashboard = command("dashboard", "make or update the page on W&B that compares what is in results")
    doctor = command("doctor", "whether this machine has what mer needs, and what to do where it has not")
    doctor.add_argument("--cache", type=Path, default=Path("cache"), help="cache folder (default ./cache)")
    completion = command(
        "completion", "for the Tab key: mer completion bash > ~/.local/share/bash-completion/completions/mer"
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    for added in (train, sweep, search, fit, status, report, inspect, sync, dashboard, doctor):
        added.add_argument("--results", type=Path, default=Path("results"), help="results folder (default ./results)")
    return parser, subparsers.choices


def _add_data(parser: Parser) -> None:
    parser.add_argument(
        "--dataset", default="synthetic", help=f"one of {', '.join(DATASETS)}, or a class: my_lab.MyLab"
    )
    parser.add_argument("--root", default="", help="the dataset's folder (default data/<dataset>)")
    parser.add_argument("--protocol", default="", help="classes and clips that take part (default: the dataset's own)")
    parser.add_argument("--model", default="", help="names or files of recipes, comma-separated")
    parser.add_argument("--recipe", default="quick", help="quick (a schedule of minutes, default) or paper")
    parser.add_argument("--cache", default="cache", help="cache folder (default ./cache)")
    parser.add_argument(
        "--allow", metavar="PACKAGE", action="append", default=[], help="let options name classes of this package too"
    )
    _add_workers(parser)


def _add_workers(parser: Parser) -> None:
    parser.add_argument("--workers", type=_positive, help="processes on the CPU (default: one per core)")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of frames per second")
    return rate


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port, a whole number up to 65535")
    return int(text)


def _folds(text: str) -> int:
    return 0 if text == "auto" else _positive(text)


def _integers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers like 0,1,2")
    return tuple(dict.fromkeys(int(word) for word in text.split(",")))


def _names(text: str) -> tuple[str, ...]:
    if not all(text.split(",")):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of names like casme2-sub01,casme2-sub02")
    return tuple(text.split(","))
