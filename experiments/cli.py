"""The command ``mer``. What is heavy is imported inside the commands, so that ``mer --help`` answers at once."""

import argparse
import atexit
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from data_modules import DATASETS, disk
from experiments.slurm import request
from mer import InputError, __version__, near

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.jobs import Job

STATUS_OF_WRONG_INPUT = 2
LONGEST = 32  # characters of a folder for temporary files: a socket is made far below it, whose path may have 107


class Parser(argparse.ArgumentParser):
    """Wrong arguments get one line that holds the wrong word and the names near it."""

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


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        Exit status: 0; 1 if folds failed; 2 if the input was wrong; 130 if it was interrupted.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        _end_tidily()
    try:
        return _run(arguments)
    except InputError as error:
        print(f"mer: {error}", file=sys.stderr)
        return STATUS_OF_WRONG_INPUT
    except OSError as error:  # where no file of a sweep is written: a log that standard output is sent to, a library's
        if error.errno not in disk.FULL:
            raise
        print(f"mer: {error.filename or 'a file'} cannot be written: {disk.REMEDIES[error.errno]}", file=sys.stderr)
        return STATUS_OF_WRONG_INPUT
    except KeyboardInterrupt as interrupt:
        done = f", {interrupt}" if str(interrupt) else ""
        print(f"mer: interrupted{done}; run the same command again to go on", file=sys.stderr)
        return 130


def _end_tidily() -> None:
    """Have no process and no file of this program outlive it.

    What ends it, a terminal that closes too, does so as Ctrl-C does. It has a folder of its own for temporary files;
    a kill leaves that to the next program.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not if `nohup` has it ignored
            signal.signal(number, interrupt)
    place = tempfile.gettempdir()
    own = disk.temporary(Path(place if len(place) < LONGEST else "/tmp", "mer"))
    disk.remove_abandoned(own.parent, of="mer")
    with suppress(OSError):  # then it has none of its own
        own.mkdir()
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)


def _run(arguments: list[str]) -> int:
    parser, commands = _parser()
    own, beyond = arguments, []
    if "--" in arguments:
        cut = arguments.index("--")
        own, beyond = arguments[:cut], arguments[cut + 1 :]
    options, unknown = parser.parse_known_args(own)
    if options.command is None:
        parser.print_help()
        return 0
    if options.command in ("inspect", "prepare", "train", "sweep", "search"):
        beyond, unknown = _class_options(unknown)[0] + beyond, _class_options(unknown)[1]
    else:
        unknown += beyond
    commands[options.command].check(unknown)
    options.options = tuple(beyond)
    return options.run(options)


def _class_options(words: list[str]) -> tuple[list[str], list[str]]:
    """Split off options of classes, ``--model.lr=1e-3`` or ``--model.lr 1e-3``; they need no ``--`` before them."""
    chosen, others, takes_value = [], [], False
    for word in words:
        mine = bool(re.match(r"--(model|data|trainer)\.", word))
        (chosen if mine or (takes_value and not word.startswith("--")) else others).append(word)
        takes_value = mine and "=" not in word
    return chosen, others


def _parser() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(prog="mer", allow_abbrev=False)
    parser.description = "Micro-expression recognition from optical flow, one subject left out at a time."
    parser.add_argument("--version", action="version", version=f"mer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(run=run)
        return added

    synthesize = command("synthesize", _synthesize, "write a synthetic dataset in a real one's layout")
    synthesize.add_argument("--root", type=Path, required=True, help="new folder to write")
    synthesize.add_argument("--layout", default="casme2", help="casme2 (default), samm, smic, casme3 or megc2019")
    synthesize.add_argument("--subjects", type=_positive, help="subjects (default 10; smic 8, megc2019 6 each)")
    synthesize.add_argument("--clips", type=_positive, help="clips per subject (default 15; smic and megc2019 9)")
    synthesize.add_argument(
        "--sheet", type=Path, action="append", default=[], help="a real sheet: small stills of every clip in it instead"
    )
    synthesize.add_argument("--seed", type=int, default=0)
    _add_workers(synthesize)

    inspect = command("inspect", _inspect, "what lies in a dataset's folder and what is wrong with it")
    inspect.add_argument("dataset", nargs="?", default="synthetic", help=f"one of {', '.join(DATASETS)}")
    inspect.add_argument("--root", default="", help="the dataset's folder (default data/<dataset>)")
    inspect.add_argument("--protocol", default="", help="whose clips the gallery shows (default: the dataset's own)")
    inspect.add_argument("--json", action="store_true", help="print it for machines")
    inspect.add_argument("--gallery", action="store_true", help="also write every clip's pictures; fills the cache")
    inspect.add_argument("--cache", default="cache", help="cache folder (default ./cache)")
    _add_workers(inspect)

    prepare = command("prepare", _prepare, "compute and cache what the models read")
    train = command("train", _train, "train and test one fold")
    sweep = command("sweep", _sweep, "train every fold that is not done, then report")
    search = command("search", _search, "choose a recipe among inner folds for each group of subjects, then test it")
    for added in (prepare, train, sweep, search):
        _add_data(added)
        added.epilog = "Any option of a class may follow, e.g. --model.lr=1e-3 --data.size=56 --trainer.max_steps=200."
    train.add_argument("--fold", required=True, help="the subject to hold out, <database>-<subject>")
    train.add_argument("--seed", type=int, default=0)
    sweep.add_argument("--seeds", type=_integers, default=(0,), help="comma-separated (default 0)")
    search.add_argument("--seeds", type=_integers, default=(0,), help="of the outer folds, comma-separated (default 0)")
    search.add_argument("--trials", type=_positive, default=12, help="recipes tried, its own among them (default 12)")
    for added in (train, sweep, search):
        added.add_argument("--devices", help="GPU numbers, comma-separated, or cpu (default: all GPUs, else the CPU)")
        added.add_argument("--stacked", action="store_true", help="train many folds as one program; another cell")
    sweep.add_argument(
        "--folds-per-batch", type=_folds, default=0, metavar="auto|N", help="folds of a stack (default: what fits)"
    )
    sweep.add_argument("--folds", type=_names, default=(), help="comma-separated: train only these (default: all)")
    sweep.add_argument("--dry-run", action="store_true", help="list cells, folds and time, train nothing")
    sweep.add_argument(
        "--upload-pictures", action="store_true", help="add flow and attention, with faces, to what W&B is sent"
    )

    request.add_options(sweep, _positive)

    status = command("status", _status, "folds done and pooled scores of every cell")
    status.add_argument("--json", action="store_true", help="print them for machines")
    report = command("report", _report, "write results/report/index.html and report.md from the results alone")
    report.add_argument(
        "--cache", type=Path, default=Path("cache"), help="cache folder with the faces (default ./cache)"
    )
    report.add_argument("--data-only", action="store_true", help="leave faces out, where a licence keeps them at home")
    sync = command("sync", _sync, "upload the W&B runs that were logged offline")
    dashboard = command("dashboard", _dashboard, "make the page on W&B that compares what is in results")
    for added in (train, sweep, search, status, report, inspect, sync, dashboard):
        added.add_argument("--results", type=Path, default=Path("results"), help="results folder (default ./results)")
    return parser, commands.choices


def _add_data(parser: Parser) -> None:
    parser.add_argument("--dataset", default="synthetic", help=f"one of {', '.join(DATASETS)} (default synthetic)")
    parser.add_argument("--root", default="", help="the dataset's folder (default data/<dataset>)")
    parser.add_argument("--protocol", default="", help="classes and clips that take part (default: the dataset's own)")
    parser.add_argument("--model", default="", help="comma-separated (default: the three architectures and ststnet)")
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


def _synthesize(options: argparse.Namespace) -> int:
    from data_modules.progress import counting
    from data_modules.synthesize import synthesize

    with counting(str(options.root)) as count:
        synthesize(
            options.root,
            layout=options.layout,
            sheets=options.sheet,
            subjects=options.subjects,
            clips=options.clips,
            seed=options.seed,
            workers=options.workers,
            progress=count,
        )
    return 0


def _jobs(options: argparse.Namespace) -> list["Job"]:
    """One job per model; the names are checked before anything heavy is imported."""
    from experiments.jobs import Job, default_models

    shared = {name: getattr(options, name, "") for name in ("dataset", "recipe", "root", "protocol", "cache")}
    names = options.model.split(",") if options.model else default_models(options.dataset)
    results = str(getattr(options, "results", ""))
    workers = options.workers or len(os.sched_getaffinity(0))
    shared["options"] = (*options.options, *["--stacked=true"] * getattr(options, "stacked", False))
    shared["allow"] = tuple(getattr(options, "allow", ()))
    shared["folds_per_batch"] = getattr(options, "folds_per_batch", 0)
    return [Job(model=name, results=results, workers=workers, **shared) for name in names]


def _on_devices(jobs: list["Job"], chosen: str | None) -> tuple[list["Job"], tuple[str, ...]]:
    """The jobs with their accelerator, and the devices that they run on."""
    from experiments import executors

    devices = executors.devices(chosen, jobs[0].workers)
    return [replace(job, accelerator="cpu" if devices[0] == "cpu" else "gpu") for job in jobs], devices


def _inspect(options: argparse.Namespace) -> int:
    from experiments import inspect, jobs

    options.model, options.recipe = jobs.models()[0], "quick"  # the data are the same for every model
    (job,), _ = _on_devices(_jobs(options), None)
    from experiments.train import Experiment

    data = Experiment(job).data
    findings = inspect.inspect(data)
    if options.json:
        print(json.dumps(findings, indent=1))
    else:
        inspect.show(findings, _console())
    if options.gallery:
        from experiments import gallery

        data.prepare_data()
        page = gallery.write(data, options.results / "inspect" / data.name)
        print(f"gallery: {page}", file=sys.stderr)
    return 0


def _prepare(options: argparse.Namespace) -> int:
    jobs, _ = _on_devices(_jobs(options), None)  # as a sweep will, so that it finds what is prepared here
    from experiments.train import Experiment

    experiments = [Experiment(job) for job in jobs]
    disk.remove_abandoned(Path(options.cache), below=True)
    for experiment in experiments:
        experiment.data.prepare_data()
    return 0


def _train(options: argparse.Namespace) -> int:
    jobs, devices = _on_devices(_jobs(options), options.devices)
    if len(jobs) > 1:
        raise InputError("mer train takes one model; name it with --model")
    from experiments.train import train_one

    return train_one(jobs[0], options.fold, options.seed, devices[0])


def _sweep(options: argparse.Namespace) -> int:
    jobs, slurm = _jobs(options), request.read(options)
    import mer.opencv  # noqa: F401  says what is missing before the workers' server trips over it
    from experiments import executors

    if not options.dry_run and slurm is None:
        executors.warm_up()  # imports torch beside this process, which does the same
    from experiments.sweep import sweep

    if slurm is None:
        jobs, devices = _on_devices(jobs, options.devices)
    else:
        jobs, devices = [replace(job, accelerator=slurm.accelerator) for job in jobs], ("cpu",)
    return sweep(
        jobs,
        options.seeds,
        devices,
        _console(stderr=bool(slurm and slurm.print_only)),  # what is printed there goes to a shell
        folds=options.folds,
        dry_run=options.dry_run,
        upload_pictures=options.upload_pictures,
        slurm=slurm,
    )


def _search(options: argparse.Namespace) -> int:
    jobs = _jobs(options)
    if len(jobs) > 1:
        raise InputError("mer search takes one model; name it with --model")
    import mer.opencv  # noqa: F401  as for a sweep
    from experiments import executors

    executors.warm_up()
    from experiments.search import search

    (job,), devices = _on_devices(jobs, options.devices)
    return search(job, options.seeds, devices, _console(), options.trials)


def _sync(options: argparse.Namespace) -> int:
    from experiments.tracking import sync

    return sync(options.results)


def _dashboard(options: argparse.Namespace) -> int:
    from experiments import dashboard

    print(f"dashboard: {dashboard.upload(options.results)}")
    return 0


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr) if sys.stdout.isatty() else Console(stderr=stderr, width=150)


def _status(options: argparse.Namespace) -> int:
    from experiments import report

    if options.json:
        print(json.dumps(report.status(options.results), indent=1))
    else:
        report.show(options.results, _console())
    return 0


def _report(options: argparse.Namespace) -> int:
    from experiments import report

    page = report.build(options.results, _console(), None if options.data_only else options.cache)
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
