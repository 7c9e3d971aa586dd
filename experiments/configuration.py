"""From a job to LightningCLI's configuration, and what of it can change a prediction."""

from argparse import SUPPRESS, ArgumentError
from collections.abc import Sequence

import torch
import yaml
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from data_modules.base import FlowDataModule
from data_modules.preparation import resolve
from data_modules.protocols import protocol
from experiments import loggers, trust
from experiments.dataset import data_class, explain
from experiments.jobs import Job, default_models, load_class
from mer import InputError
from mer.preprocessing.motion import CHANNELS
from mer.training.action_units import network_outputs
from mer.training.task import Task

ELSEWHERE = {  # arguments of the trainer that say where and how loudly; every other one can change a prediction
    "accelerator", "num_nodes", "logger", "default_root_dir", "profiler", "log_every_n_steps", "detect_anomaly",
    "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "enable_autolog_hparams", "model_registry",
    "num_sanity_val_steps", "val_check_interval", "check_val_every_n_epoch", "limit_val_batches", "limit_test_batches",
    "limit_predict_batches", "inference_mode",
}  # fmt: skip

ALONE = "add --stacked=false to train one fold at a time"


class FoldCLI(LightningCLI):
    """LightningCLI as a parser: folds are instantiated one by one, many from one configuration.

    Args:
        args: The command line.
        config: What another process has parsed, in place of it.
    """

    def __init__(self, args: Sequence[str] = (), config: Namespace | None = None):
        self.parsed = config
        super().__init__(
            Task,
            subclass_mode_model=True,
            run=False,
            args=list(args),
            save_config_callback=None,
            seed_everything_default=False,
            parser_kwargs={"exit_on_error": False},
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """As Lightning does; but the data are a dataset, whose folds become data modules when they are trained."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.add_lightning_class_args(self._model_class, "model", subclass_mode=True)
        parser.add_subclass_arguments(FlowDataModule, "data", fail_untyped=False, required=True)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Derive what the classes have in common, so that each value is written once."""
        parser.add_argument("--stacked", type=bool, default=False, help="train many folds as one program")
        network = "model.init_args.network"
        parser.link_arguments(
            ("data.init_args.protocol", "model"),
            f"{network}.init_args.num_classes",
            lambda name, model: network_outputs(len(protocol(name).classes), model.init_args.get("action_units", 0)),
        )
        parser.link_arguments("data.init_args.input_size", f"{network}.init_args.size")
        parser.link_arguments("data.init_args.motion", f"{network}.init_args.flow_channels", CHANNELS.__getitem__)
        parser.link_arguments("model", "data.init_args.inputs", _inputs)

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse these arguments, whatever the command line of the process is."""
        self.config = self.parsed or parser.parse_args(args)
        if self.config.seed_everything is not False:
            raise InputError("leave --seed_everything away: seeds are given with --seeds, or --seed of mer train")

    def instantiate_classes(self) -> None:
        """Leave it to ``Experiment``."""


def resolved(job: Job, config: Namespace) -> FoldCLI:
    """A configuration that the parent process has parsed."""
    trust.trust(job.packages)
    return FoldCLI(config=config)


def parse(job: Job) -> FoldCLI:
    """The job's configuration, with all that depends on the machine settled.

    Raises:
        InputError: If the job has an option that there is not, or names a class that it may not, or the options do not
            fit one another.
    """
    trust.trust(job.packages)
    arguments = ["--config", yaml.safe_dump(_configuration(job))]
    try:
        cli = FoldCLI([*arguments, *job.options])
    except ArgumentError as error:
        raise InputError(explain(error, FoldCLI(arguments).config, job.options)) from error
    except (OSError, ValueError, RecursionError, AttributeError) as error:  # the last where a key is called `config`
        reason = " ".join(str(error).split())[:400]
        raise InputError(f"a file named in {' '.join(job.options)[:200]} cannot be read: {reason}") from error
    cli.config.pop("config")  # where it was read from is no part of it
    if not all(isinstance(cli.config[name], Namespace) for name in ("model", "data", "trainer")):
        raise InputError("model, data and trainer are mappings, and cannot be null")
    trust.check_names(cli.config)
    loggers.named(cli.config.trainer)  # complains of what cannot be
    if cli.config.trainer.precision is None:
        cli.config.trainer.precision = "bf16-mixed" if job.accelerator == "gpu" and _has_bf16() else "32-true"
    settings = cli.config.data.init_args
    network = cli.config.model.init_args.network
    motion = settings.get("motion", "apex")
    if motion != "apex" and "flow" not in settings.inputs:
        raise InputError(f"{network.class_path} reads no flow: leave --data.motion={motion} away")
    if motion == "both" and "flow_channels" not in (network.get("init_args") or {}):
        raise InputError(f"{network.class_path} has no argument flow_channels: it cannot read --data.motion=both")
    if "backend" in settings:
        settings.backend = resolve(settings.backend, settings.method, job.accelerator == "gpu")
    if cli.config.stacked:
        _check_stack(cli.config.trainer)
    return cli


def class_help() -> str:
    """The options of the default model's classes, of the synthetic data and of the trainer, with types and defaults."""
    config = parse(Job("synthetic", default_models("synthetic")[0])).config
    parser = LightningArgumentParser(usage=SUPPRESS, description=None, add_help=False)
    network = config.model.init_args.network.class_path
    parser.add_class_arguments(load_class(config.model.class_path), "model", skip={"network"})
    parser.add_class_arguments(load_class(network), "model.network", skip={"num_classes", "size"})
    parser.add_class_arguments(load_class(config.data.class_path), "data", skip={"inputs", "protocol"})
    parser.add_class_arguments(Trainer, "trainer")
    return parser.format_help()


def shares_folds(trainer: Namespace) -> bool:
    """Whether several processes are to train one fold."""
    return trainer.devices not in (1, "1", [0]) or trainer.strategy != "auto" or trainer.num_nodes != 1


def _check_stack(trainer: Namespace) -> None:
    if trainer.max_steps < 1 or trainer.max_epochs not in (None, -1):
        raise InputError(f"a stack of folds counts steps: set --trainer.max_steps and no max_epochs, or {ALONE}")
    if trainer.precision in ("16-mixed", "16"):
        raise InputError(f"a stack of folds would share the one loss scale of 16-mixed: use bf16-mixed, or {ALONE}")
    if trainer.accumulate_grad_batches != 1:
        raise InputError(f"a stack of folds accumulates no gradients: take a larger --data.batch_size, or {ALONE}")
    if shares_folds(trainer):
        raise InputError(
            "a stack of folds is one process on one device, and a sweep spreads stacks over devices by itself: leave "
            f"--trainer.devices, num_nodes and strategy as they are, or {ALONE}"
        )


def _inputs(model: Namespace) -> tuple[str, ...]:
    """The tensors that a task and its network read."""
    network = load_class(model.init_args.network.class_path)
    reads = network.reads(**(model.init_args.network.get("init_args") or Namespace()).as_dict())
    return tuple(dict.fromkeys((*reads, *load_class(model.class_path).loss_inputs)))


def _configuration(job: Job) -> dict:
    """The recipe as a LightningCLI configuration."""
    recipe = job.read_recipe()
    dataset = data_class(job.data_class)
    where = {name: getattr(job, name) for name in dataset.path_arguments if hasattr(job, name)}
    what = {**recipe.get("data", {}), **where, "protocol": dataset.protocol_name(job.protocol, job.root)}
    return {
        **recipe,
        "data": {"class_path": job.data_class, "init_args": what},
        "trainer": {"accelerator": job.accelerator, "devices": 1, **recipe["trainer"]},
    }


def _has_bf16() -> bool:
    """Whether all GPUs have it; those of a cluster do, as far as a machine can tell that has none."""
    for number in range(torch.cuda.device_count()):
        with torch.cuda.device(number):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                return False
    return True
