"""Loggers of Lightning beside W&B, named with ``--trainer.logger``: each gets the curve of every fold, at its end."""

import warnings
from inspect import signature
from typing import Any

from jsonargparse import Namespace

from experiments.jobs import load_class
from experiments.results import Fold
from mer import InputError


def named(trainer: Namespace) -> list[Namespace]:
    """The classes that a trainer's arguments name as loggers, and their arguments.

    Raises:
        InputError: If they name none, W&B's, or hold a key, which would lie in every ``config.yaml``.
    """
    loggers = [] if trainer.logger is None else trainer.logger
    loggers = loggers if isinstance(loggers, list) else [loggers]
    for logger in loggers:
        if not isinstance(logger, Namespace) or logger.class_path.endswith(".WandbLogger"):
            raise InputError(
                "runs are logged to Weights & Biases by mer itself, unless WANDB_MODE=disabled: --trainer.logger "
                "names another logger beside it, as CSVLogger"
            )
        if logger.get("init_args", Namespace()).get("api_key"):
            raise InputError("--trainer.logger holds a key, which is written nowhere: set the variable of its maker")
    return loggers


def log(trainer: Namespace, fold: Fold, curve: list[dict[str, Any]]) -> None:
    """Log the curve of a fold, under a name of its own; a logger that fails costs a warning, and no fold."""
    name = f"{fold.cell.model}-{fold.cell.digest}-seed{fold.seed}-{fold.name}"
    for named_logger in named(trainer):
        cls, arguments = load_class(named_logger.class_path), named_logger.get("init_args", Namespace()).as_dict()
        own = next(name for name in ("version", "run_name", "name") if name in signature(cls).parameters)
        try:
            logger = cls(**{**arguments, own: name})
            for row in curve:
                logger.log_metrics({key: value for key, value in row.items() if key != "step"}, step=row["step"])
            logger.finalize("success")
        except Exception as error:  # of many kinds, where its server does not answer
            warnings.warn(f"{cls.__name__} has no curve of {name}: {error}", stacklevel=1)
