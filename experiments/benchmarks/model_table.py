"""Writes the sizes of the networks into ``docs/models.md``: ``python -m experiments.benchmarks.model_table``."""

import inspect
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from data_modules.base import FlowDataModule
from data_modules.cache.store import write_text
from data_modules.preparation import PreparedDataModule
from experiments.benchmarks.page import fill
from experiments.jobs import Job, load_class, models

PAGE = Path(__file__).parents[2] / "docs/models.md"
CLASSES = 3  # of megc2019
# Presets, stages and depths of the authors' HSTA besides the recipe's, which is base, 4 stages of 1 and 2.
HSTA_VARIANTS = (("tiny", 4, (1, 2)), ("small", 4, (1, 2)), ("base", 3, (1, 4)))
TITLES = {
    "ahmsa_net": "AHMSA-Net",
    "hsta": "HSTA",
    "mfvan": "MFVAN",
    "ststnet": "STSTNet (control)",
    "off_apexnet": "OFF-ApexNet (control)",
    "rcn": "RCN-A (control)",
    "htnet": "HTNet (control)",
    "timm_baseline": "timm's ResNet-18 (control)",
}


def build(model: str, recipe: str, **arguments: object) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network of a recipe in evaluation mode and one clip as its input, on torch's meta device (without values).

    Args:
        model: Name of the model.
        recipe: Its recipe, ``quick`` or ``paper``.
        **arguments: Arguments of the network that replace the recipe's.
    """
    settings = Job("synthetic", model, recipe).read_recipe()
    spec, data = settings["model"]["init_args"]["network"], settings.get("data", {})
    size = data.get("input_size", inspect.signature(FlowDataModule).parameters["input_size"].default)
    frames = data.get("num_frames", inspect.signature(PreparedDataModule).parameters["num_frames"].default)
    with torch.device("meta"):
        init_args = {**spec.get("init_args", {}), **arguments}
        network = load_class(spec["class_path"])(num_classes=CLASSES, size=size, **init_args).eval()
        leading = {name: (1, frames) if name == "frames" else (1,) for name in network.inputs}
        return network, {name: torch.zeros(*shape, 3, size, size) for name, shape in leading.items()}


def count(network: nn.Module, clip: dict[str, Tensor]) -> tuple[int, int]:
    """Parameters of a network, and floating-point operations of one clip, a multiply-add counted as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(**clip)
    return sum(value.numel() for value in network.parameters()), counter.get_total_flops()


def table() -> str:
    """Parameters and operations of every recipe, and of HSTA's presets, as Markdown."""
    lines = ["| model | recipe | input, one clip | parameters | FLOPs |", "| --- | --- | --- | ---: | ---: |"]
    for model in (*TITLES, *sorted(set(models()) - set(TITLES))):
        rows = [(f"`{recipe}`", build(model, recipe)) for recipe in ("quick", "paper")]
        for preset, stages, depths in HSTA_VARIANTS if model == "hsta" else ():
            variant = build(model, "paper", preset=preset, stages=stages, depths=depths)
            rows.append((f"`paper`, but {preset}, {stages} stages of {depths[0]} and {depths[1]}", variant))
        for recipe, (network, clip) in rows:
            inputs = ", ".join(f"{name} {'×'.join(map(str, value.shape[1:]))}" for name, value in clip.items())
            parameters, operations = map(short, count(network, clip))
            lines.append(f"| {TITLES.get(model, model)} | {recipe} | {inputs} | {parameters} | {operations} |")
    return "\n".join(lines)


def short(number: int) -> str:
    """A count for readers: ``1,683``, ``2.65 M`` or ``81.9 M``."""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.{2 if number < 10 * size else 1}f} {unit}"
    return f"{number:,}"


def page() -> str:
    """``docs/models.md`` with the table of now."""
    return fill(PAGE, "python -m experiments.benchmarks.model_table", table())


if __name__ == "__main__":
    write_text(PAGE, page())
