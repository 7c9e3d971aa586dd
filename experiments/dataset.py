"""The dataset of a job, and what may be wrong with its options. No torch: ``mer inspect`` answers at once."""

import re
from argparse import ArgumentError

from jsonargparse import ArgumentParser, Namespace

from data_modules.base import FlowDataModule
from experiments import trust
from experiments.jobs import Job, load_class, near
from mer import InputError

LIGHTNINGS_OWN = r"--(config|print_config|.*\.help)"


def read(job: Job) -> FlowDataModule:
    """The dataset alone, without a model.

    Args:
        job: Its options are of the dataset alone, ``--data.sheet=my.xlsx``.

    Raises:
        InputError: If it has another option, or one that does not fit.
    """
    trust.trust(job.packages)
    dataset = data_class(job.data_class)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(dataset, "data", skip={"inputs"}, fail_untyped=False)
    options = tuple(option.replace("--data.init_args.", "--data.") for option in job.options)
    places = [f"--data.{name}={getattr(job, name)}" for name in dataset.path_arguments if hasattr(job, name)]
    protocol = [f"--data.protocol={job.protocol or dataset.default_protocol}"]
    try:
        config = parser.parse_args([*places, *protocol, *options])
    except ArgumentError as error:
        raise InputError(explain(error, parser.get_defaults(), options)) from error
    trust.check_names(config)
    return instantiate(parser, config).data


def instantiate(parser: ArgumentParser, config: Namespace) -> Namespace:
    """The objects of a configuration.

    Raises:
        InputError: If a constructor raises a ``ValueError``, with its message.
    """
    try:
        return parser.instantiate(config)
    except ValueError as error:  # jsonargparse wraps what a constructor says
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        raise InputError(str(cause)) from error


def data_class(path: str) -> type[FlowDataModule]:
    """The data module of a dotted path.

    Raises:
        InputError: If Python finds none there.
    """
    try:
        dataset = load_class(path)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--dataset {path}: {error}; Python must find it, e.g. with PYTHONPATH=/path/to/it") from error
    if not (isinstance(dataset, type) and issubclass(dataset, FlowDataModule)):
        raise InputError(f"--dataset {path} is no subclass of data_modules.base.FlowDataModule")
    return dataset


def explain(error: ArgumentError, config: Namespace, options: tuple[str, ...]) -> str:
    """One line for a wrong option: which, and what it may have meant."""
    text = str(error)
    if denied := re.search(r"Importing '([^']*)' is not allowed", text):
        package = denied[1].split(".")[0]
        return (
            f"'{denied[1]}' is not imported: a configuration may name classes of {', '.join(trust.PACKAGES)}; if you "
            f"trust it, add --allow {package}"
        )
    known = sorted({"--" + key.replace("init_args.", "") for key in config.keys(branches=True)})
    for option in options:
        name = option.split("=")[0].replace("init_args.", "").removesuffix("+")
        if name.startswith("--") and name not in known and not re.fullmatch(LIGHTNINGS_OWN, name):
            return f"unknown option {name}{near(name, known)}"
    if found := re.search(r"Expected an? (.+)\. Got value: (.*)", text):
        names = re.findall(r'Parser key "(.+)"', text[: found.start()])
        wanted = re.sub(r"typing\.Literal\[(.*)\]|<class '(.*)'>", r"\1\2", found[1])
        return f"--{'.'.join(names)} has to be {wanted}, not {found[2][:200]}"
    return "option not accepted: " + " ".join(text.split())[:600]
