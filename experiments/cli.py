"""The command ``mer``. What is heavy is imported inside the commands, so that ``mer --help`` answers at once."""

import argparse
import json
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data_modules.processes import whole_files
from experiments.arguments import parse
from experiments.slurm import request
from mer import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.jobs import Job

STATUS_OF_WRONG_INPUT = 2


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
    except BrokenPipeError:  # `mer ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # where no file of a sweep is written: a log that standard output is sent to, a library's
        if error.errno not in whole_files.FULL:
            raise
        print(
            f"mer: {error.filename or 'a file'} cannot be written: {whole_files.REMEDIES[error.errno]}", file=sys.stderr
        )
        return STATUS_OF_WRONG_INPUT
    except KeyboardInterrupt as interrupt:
        done = f", {interrupt}" if str(interrupt) else ""
        print(f"mer: interrupted{done}; run the same command again to go on", file=sys.stderr)
        return 130


def _end_tidily() -> None:
    """Have no process and no file of this program outlive it: what ends it, a closed terminal too, is as Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not if `nohup` has it ignored
            signal.signal(number, interrupt)
    whole_files.use_own_temporary_folder()


def _run(arguments: list[str]) -> int:
    parser, options = parse(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    return COMMANDS[options.command](options)


def _synthesize(options: argparse.Namespace) -> int:
    from data_modules.processes.progress import clip_progress
    from data_modules.synthesis.synthesize import synthesize

    with clip_progress(str(options.root)) as count:
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
    from experiments.jobs import jobs_of

    return jobs_of(options)


def _on_devices(jobs: list["Job"], asked: str | None) -> tuple[list["Job"], tuple[str, ...]]:
    """The jobs with their accelerator, and the devices that they run on."""
    from experiments import workers

    devices = workers.devices(asked, jobs[0].workers)
    return [replace(job, accelerator="cpu" if devices[0] == "cpu" else "gpu") for job in jobs], devices


def _inspect(options: argparse.Namespace) -> int:
    from experiments import jobs
    from experiments.inspection import findings

    options.model, options.recipe = jobs.models()[0], "quick"  # the data are the same for every model
    (job,) = _jobs(options)
    if options.gallery or not all(option.startswith("--data.") for option in job.options if option.startswith("--")):
        (job,), _ = _on_devices([job], None)  # as a sweep will, so that both share a cache
        from experiments.experiment import Experiment

        data = Experiment(job).data
    else:
        from experiments import dataset

        data = dataset.read(job)
    content = findings.inspect(data)
    if options.json:
        print(json.dumps(content, indent=1))
    else:
        findings.show(content, _console())
    if options.gallery:
        from experiments.inspection import gallery

        data.prepare_data()
        page = gallery.write(data, options.results / "inspect" / data.name)
        print(f"gallery: {page}", file=sys.stderr)
    return 0


def _prepare(options: argparse.Namespace) -> int:
    jobs, _ = _on_devices(_jobs(options), None)  # as a sweep will, so that it finds what is prepared here
    from experiments.experiment import Experiment

    experiments = [Experiment(job) for job in jobs]
    with whole_files.tidied(Path(options.cache)):
        for experiment in experiments:
            experiment.data.prepare_data()
    return 0


def _train(options: argparse.Namespace) -> int:
    jobs, devices = _on_devices(_jobs(options), options.devices)
    if len(jobs) > 1:
        raise InputError("mer train takes one model; name it with --model")
    from experiments.sweep import train_here

    return train_here(jobs[0], options.fold, options.seed, devices[0])


def _sweep(options: argparse.Namespace) -> int:
    jobs, slurm = _jobs(options), request.read(options)
    import mer.preprocessing.opencv  # noqa: F401  says what is missing before the workers' server trips over it
    from experiments import workers

    if not options.dry_run and slurm is None:
        workers.warm_up()  # imports torch beside this process, which does the same
    from experiments.slurm import submission
    from experiments.sweep import sweep

    if slurm is None:
        jobs, devices = _on_devices(jobs, options.devices)
    else:
        jobs, devices = [replace(job, accelerator=slurm.accelerator) for job in jobs], ("cpu",)
    with nullcontext() if options.dry_run else _tidied(options):
        return sweep(
            jobs,
            options.seeds,
            devices,
            _console(stderr=bool(slurm and slurm.print_only)),  # what is printed there goes to a shell
            folds=options.folds,
            dry_run=options.dry_run,
            upload_pictures=options.upload_pictures,
            submit=slurm and partial(submission.submit, command=main, request=slurm),
        )


def _search(options: argparse.Namespace) -> int:
    jobs = _jobs(options)
    if len(jobs) > 1:
        raise InputError("mer search takes one model; name it with --model")
    import mer.preprocessing.opencv  # noqa: F401  as for a sweep
    from experiments import workers

    workers.warm_up()
    from experiments.search import search

    (job,), devices = _on_devices(jobs, options.devices)
    with _tidied(options):
        return search(job, options.seeds, devices, _console(), options.trials)


def _fit(options: argparse.Namespace) -> int:
    jobs = _jobs(options)
    import mer.preprocessing.opencv  # noqa: F401  as for a sweep
    from experiments import workers

    workers.warm_up()
    from experiments.fitting.fit import fit

    jobs, devices = _on_devices(jobs, options.devices)
    with whole_files.tidied(Path(options.cache)):
        asked = options.models, options.searched, bool(options.export), options.registry, options.upload_weights
        for folder in fit(jobs, options.seeds, devices, _console(stderr=True), *asked):
            print(f"model: {folder}")
    return 0


def _tidied(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Leave nothing unfinished where folds are trained; W&B may keep very many files beside them."""
    from experiments.search import WORK

    return whole_files.tidied(
        Path(options.cache), *(options.results / name for name in ("report", options.dataset, WORK))
    )


def _sync(options: argparse.Namespace) -> int:
    from experiments.tracking import sync

    return sync(options.results, _console())


def _dashboard(options: argparse.Namespace) -> int:
    from experiments.tracking import dashboard

    print(f"dashboard: {dashboard.upload(options.results)}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from experiments import predict
    from mer.trained import load

    shared = predict.Wanted("", options.onset, options.apex, options.offset, options.frames_per_second)
    clips = predict.list_clips(options.clips, shared)
    model = load(options.model, options.device, options.allow)
    return predict.predict(model, clips, _console(), options.out, options.registered, options.json)


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


def _demo(options: argparse.Namespace) -> int:
    from experiments.demo.server import serve

    return serve(
        options.model, host=options.host, port=options.port, largest=options.largest, allow=tuple(options.allow)
    )


COMMANDS = {
    "synthesize": _synthesize,
    "inspect": _inspect,
    "prepare": _prepare,
    "train": _train,
    "sweep": _sweep,
    "search": _search,
    "fit": _fit,
    "status": _status,
    "predict": _predict,
    "report": _report,
    "demo": _demo,
    "sync": _sync,
    "dashboard": _dashboard,
}


if __name__ == "__main__":
    sys.exit(main())
