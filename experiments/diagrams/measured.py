"""Shapes, parameters and operations of the networks, from a pass without data on torch's meta device."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from data_modules.base import FlowDataModule
from data_modules.videos import VideoDataModule
from experiments.jobs import Job, load_class, models
from mer.models import Network

CLASSES = 3
"""Classes K of what is measured: those of ``megc2019``."""

HSTA_VARIANTS = (("tiny", 4, (1, 2)), ("small", 4, (1, 2)), ("base", 3, (1, 4)))
"""Presets, stages and depths of the authors' HSTA beside that of the recipe, which is base, 4 stages of 1 and 2."""

TITLES = {
    "ahmsa_net": "AHMSA-Net",
    "hsta": "HSTA",
    "mfvan": "MFVAN",
    "ststnet": "STSTNet (control)",
    "timm_baseline": "timm's ResNet-18 (control)",
}
"""The models as they are called, architectures first."""


@dataclass(frozen=True)
class Measured:
    """A network of a recipe, and what one clip costs it.

    Attributes:
        network: In evaluation mode, with weights that have shapes and no values.
        inputs: Shape of each input for one clip, by name.
        shapes: Shape of what every part gives for one clip, by the part's name.
        flops: Floating-point operations of one clip, a multiply-add counted as two.
    """

    network: Any
    inputs: dict[str, tuple[int, ...]]
    shapes: dict[str, tuple[int, ...]]
    flops: int

    def parameters(self, prefix: str = "") -> int:
        """Parameters of the parts whose name starts like this."""
        return sum(value.numel() for name, value in self.network.named_parameters() if name.startswith(prefix))


def measure(model: str, recipe: str, **arguments: object) -> Measured:
    """Pass one clip of shapes through the network of a recipe, some of its arguments changed."""
    wanted = Job("synthetic", model, recipe).read_recipe()
    chosen, data = wanted["model"]["init_args"]["network"], wanted.get("data", {})
    size = data.get("size", default(FlowDataModule, "size"))
    frames = data.get("frames", default(VideoDataModule, "frames"))
    with torch.device("meta"):
        built = {**chosen.get("init_args", {}), **arguments}
        network: Network = load_class(chosen["class_path"])(num_classes=CLASSES, size=size, **built).eval()
        leading = {name: (1, frames) if name == "frames" else (1,) for name in network.inputs}
        clip = {name: torch.zeros(*before, 3, size, size) for name, before in leading.items()}
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: object) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, Tensor):
            shapes[name] = tuple(output.shape[1:])

    for name, part in network.named_modules():
        part.register_forward_hook(lambda part, _, output, name=name: note(name, output))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(**clip)
    inputs = {name: tuple(value.shape[1:]) for name, value in clip.items()}
    return Measured(network, inputs, shapes, counter.get_total_flops())


def default(owner: type, argument: str) -> Any:
    """The default of an argument of a class."""
    return inspect.signature(owner).parameters[argument].default


def table() -> str:
    """Parameters and operations of every recipe, and of HSTA's presets, as Markdown."""
    lines = ["| model | recipe | input, one clip | parameters | FLOPs |", "| --- | --- | --- | ---: | ---: |"]
    for model in (*TITLES, *sorted(set(models()) - set(TITLES))):
        for recipe in ("quick", "paper"):
            lines.append(_row(TITLES.get(model, model), f"`{recipe}`", measure(model, recipe)))
        for preset, stages, depths in HSTA_VARIANTS if model == "hsta" else ():
            found = measure(model, "paper", preset=preset, stages=stages, depths=depths)
            words = f"`paper`, but {preset}, {stages} stages of {depths[0]} and {depths[1]}"
            lines.append(_row(TITLES[model], words, found))
    return "\n".join(lines)


def _row(model: str, recipe: str, found: Measured) -> str:
    inputs = ", ".join(f"{name} {shaped(shape)}" for name, shape in found.inputs.items())
    return f"| {model} | {recipe} | {inputs} | {short(found.parameters())} | {short(found.flops)} |"


def shaped(shape: Iterable[int]) -> str:
    """A shape as it is read, ``3×28×28``."""
    return "×".join(map(str, shape))


def short(count: int) -> str:
    """A count as it is read, ``1,683``, ``2.65 M`` or ``81.9 M``."""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:.{2 if count < 10 * size else 1}f} {unit}"
    return f"{count:,}"
