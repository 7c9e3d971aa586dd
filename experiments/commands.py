"""What each command of ``mer`` does. What is heavy is imported inside, so that ``mer --help`` answers at once."""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data_modules.processes import whole_files
from data_modules.processes.verbosity import is_quiet
from experiments import next_step
from experiments.slurm import request
from mer import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.jobs import Job


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
    print(f"written: {options.root}")
    mer = next_step.program()
    look, train = f"{mer} inspect {options.layout}", f"{mer} sweep --dataset {options.layout}"
    next_step.say(f"`{look} --root {options.root}` says what lies there, `{train} --root {options.root}` trains on it")
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
    if options.clips:
        print(findings.clips(data).to_csv(index=False), end="")
    elif options.json:
        print(json.dumps(content, indent=1))
    else:
        findings.show(content, _console())
    if options.gallery:
        from experiments.inspection import gallery

        data.prepare_data()
        page = gallery.write(data, options.results / "inspect" / data.name)
        print(f"gallery: {page}", file=sys.stderr)
    if content["clips"] and not options.json and not options.clips:
        next_step.say(f"`{next_step.command('sweep', options, model='', recipe='quick')}`")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    jobs, _ = _on_devices(_jobs(options), None)  # as a sweep will, so that it finds what is prepared here
    from experiments.experiment import Experiment

    experiments = [Experiment(job) for job in jobs]
    with whole_files.tidied(Path(options.cache)):
        for experiment in experiments:
            experiment.data.prepare_data()
    next_step.say(f"`{next_step.command('sweep', options)}`")
    return 0


def _train(options: argparse.Namespace) -> int:
    jobs, devices = _on_devices(_jobs(options), options.devices)
    if len(jobs) > 1:
        raise InputError("mer train takes one model; name it with --model")
    from experiments.sweep import train_here

    if train_here(jobs[0], options.fold, options.seed, devices[0]):
        next_step.say(f"`{next_step.command('sweep', options)}` trains the other folds")
    return 0


def _sweep(options: argparse.Namespace, command: Callable[[list[str]], int]) -> int:
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
        status = sweep(
            jobs,
            options.seeds,
            devices,
            _console(stderr=bool(slurm and slurm.print_only)),  # what is printed there goes to a shell
            folds=options.folds,
            dry_run=options.dry_run,
            upload_pictures=options.upload_pictures,
            submit=slurm and partial(submission.submit, command=command, request=slurm),
        )
    if status:
        next_step.say("the same command again tries the failed folds again, and only those")
    elif options.dry_run:
        next_step.say("the same command without --dry-run")
    elif slurm:
        pass  # which says itself what comes next
    elif options.folds:
        next_step.say(f"`{next_step.command('sweep', options)}` trains the other folds, then reports")
    else:
        next_step.say(f"open the report; `{next_step.command('fit', options)}` trains a model on everybody")
    return status


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
        status = search(job, options.seeds, devices, _console(), options.trials)
    if status:
        next_step.say("the same command again tries the failed folds again, and only those")
    else:
        line = next_step.command("fit", options, "--searched")
        next_step.say(f"open the report; `{line}` trains a model on everybody")
    return status


def _fit(options: argparse.Namespace) -> int:
    jobs = _jobs(options)
    import mer.preprocessing.opencv  # noqa: F401  as for a sweep
    from experiments import workers

    workers.warm_up()
    from experiments.fitting.fit import fit
    from mer.model_folder import read_config

    jobs, devices = _on_devices(jobs, options.devices)
    with whole_files.tidied(Path(options.cache)):
        asked = options.models, options.searched, bool(options.export), options.registry, options.upload_weights
        folders = fit(jobs, options.seeds, devices, _console(stderr=True), *asked)
    for folder in folders:
        print(f"model: {folder}")
    if read_config(folders[0] / "config.yaml")["input"].get("method"):  # else it reads maps that others have computed
        line = next_step.command("predict", argparse.Namespace(model=folders[0], allow=options.allow), "CLIP")
        next_step.say(f"`{line}` with a clip of yours; the model's README.md says how good it is, and what it reads")
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
    status = predict.predict(model, clips, _console(), options.out, options.registered, options.json)
    if status == 0 and options.out is None and not options.json:
        next_step.say("--out DIR also writes a page with pictures, JSON and CSV")
    return status


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    interactive = False if is_quiet() else None  # what moves: bars, and words while one waits
    return Console(stderr=stderr, width=None if sys.stdout.isatty() else 150, force_interactive=interactive)


def _status(options: argparse.Namespace) -> int:
    from experiments import report

    if options.json:
        print(json.dumps(report.status(options.results), indent=1))
    else:
        report.show(options.results, _console())
        next_step.say("the same mer sweep again trains the folds that are missing; mer report writes a page")
    return 0


def _report(options: argparse.Namespace) -> int:
    from experiments import report

    page = report.build(options.results, _console(), None if options.data_only else options.cache)
    print(f"report: {page}")
    next_step.say("open it in a browser; mer fit trains a model on everybody, for your own clips")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from experiments.demo.server import serve

    return serve(
        options.model, host=options.host, port=options.port, largest=options.largest, allow=tuple(options.allow)
    )


def _doctor(options: argparse.Namespace) -> int:
    from experiments import doctor

    return doctor.show(doctor.look(options.results, options.cache), _console())


def _completion(options: argparse.Namespace) -> int:
    from experiments.completion import script

    print(script(options.shell))
    return 0


COMMANDS = {
    "doctor": _doctor,
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
    "completion": _completion,
}
