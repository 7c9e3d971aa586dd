"""The figure of AHMSA-Net: its levels, the block that they are made of, and its parts."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from experiments.diagrams.drawing import FAINT, LINEAR, Block, Box, Figure
from experiments.diagrams.measured import Measured, measure, shaped, short

NORM = Block("normalisation", 36, "LN")
PANEL, HEIGHT = 490, 276
"""Where the panels of a block's parts begin, and how high they are, px."""


def draw() -> Figure:
    """The sizes of the recipe ``quick``, those of ``paper`` in parentheses."""
    quick, paper = measure("ahmsa_net", "quick"), measure("ahmsa_net", "paper")
    figure = Figure(
        814,
        "AHMSA-Net",
        f"Sizes of the recipe quick, {short(quick.parameters())} parameters; in parentheses those of paper, "
        f"{short(paper.parameters())}.",
    )
    _levels(figure, quick, paper)
    figure.group(
        Box(24, 338, 952, 138),
        "Block",
        "each part reads a layer norm of what it is added to; a learned factor scales what it adds",
    )
    ratios = [one.network.levels[0][0].ffn.fc1.out_features // one.shapes["levels.0.0"][-1] for one in (quick, paper)]
    x = Block("tensor", 72, "x", ("C×H×W",))
    figure.chain(
        40,
        424,
        x,
        NORM,
        Block("attention", 134, "channel attention", ("weighs channels",)),
        "+",
        NORM,
        Block("attention", 134, "spatial attention", ("weighs positions",)),
        "+",
        NORM,
        Block(LINEAR, 134, "feed-forward", ("C → {}C ({}C) → C".format(*ratios),)),
        "+",
        x,
        gap=20,
        lift=42,
    )
    _channel_attention(figure, 24, paper.network.levels[0][0].channel)
    _spatial_attention(figure, 347, paper)
    _downsampling(figure, 670)
    return figure


def _levels(figure: Figure, quick: Measured, paper: Measured) -> None:
    """From the flow map along the levels of ``paper``, some of which ``quick`` has, to the logits."""
    few = {one[0]: (one[-1], len(blocks)) for one, blocks in _measured_levels(quick)}
    items = [
        Block("tensor", 84, "flow map", ("u, v, strain", shaped(quick.inputs["flow"]))),
        Block("convolution", 112, "stem", ("(beside the flow:", "conv, ReLU, BN)")),
    ]
    for (side, _, wide), blocks in _measured_levels(paper):
        if len(items) > 2:
            items.append(Block("pooling", 104, "adaptive", ("downsampling", f"{2 * side} → {side}")))
        notes = (f"({len(blocks)} blocks)", f"({wide}) × {side}×{side}")
        if side in few:
            notes = (f"{few[side][1]} {notes[0]}", f"{few[side][0]} {notes[1]}")
        items.append(Block("attention", 134, f"{side}×{side}", notes))
    placed = figure.chain(24, 116, *items, gap=24)
    values, hidden = ([getattr(one.network.classifier.fc1, name) for one in (quick, paper)] for name in SIZES)
    last = placed[-1]
    layer = Block(LINEAR, 134, "hidden layer", ("{} ({})".format(*hidden), "GELU"))
    drop = Block("normalisation", 134, "dropout", ("{:,} ({:,}) values".format(*values),))
    read = figure.box(drop, last.x, 244)
    figure.arrow(last.bottom, read.top)
    for block in (layer, Block(LINEAR, 104, "linear", ("to K classes",)), Block("tensor", 84, "logits", ("K",))):
        next_one = figure.box(block, read.x - 24 - block.width, 244)
        figure.arrow(read.left, next_one.right)
        read = next_one


SIZES = ("in_features", "out_features")


def _measured_levels(one: Measured) -> Iterator[tuple[Sequence[int], nn.Module]]:
    """Sides and channels of each level, and its blocks."""
    for level, blocks in enumerate(one.network.levels):
        yield one.shapes[f"levels.{level}.0"], blocks


def _channel_attention(figure: Figure, x: float, gate: Any) -> None:
    figure.group(Box(x, PANEL, 306, HEIGHT), "Channel attention")
    average = figure.box(Block("pooling", 108, "average", ("over positions",)), x + 16, PANEL + 64)
    highest = figure.box(Block("pooling", 108, "maximum", ("over positions",)), x + 16, PANEL + 126)
    factor = gate.mlp.fc1.in_features // gate.mlp.fc1.out_features
    mlp = figure.box(
        Block(LINEAR, 96, "one MLP", ("for both:", f"C → C/{factor} → C", "(at least 4)")), x + 148, PANEL + 95, 100
    )
    figure.arrow(average.right, (mlp.x, average.right[1]))
    figure.arrow(highest.right, (mlp.x, highest.right[1]))
    add, weigh = figure.sign(x + 278, PANEL + 95, "+"), figure.sign(x + 278, PANEL + 186, "×")
    figure.arrow(mlp.right, add.left)
    figure.arrow(add.bottom, weigh.top)
    figure.text(x + 270, PANEL + 163, "sigmoid", "end", colour=FAINT)
    figure.arrow(figure.box(Block("tensor", 108, "C×H×W"), x + 16, PANEL + 186).right, weigh.left)
    for line, words in enumerate(
        ("By argument, transposed attention in its place:", "channels attend to one another.")
    ):
        figure.text(x + 16, PANEL + 234 + 17 * line, words)


def _spatial_attention(figure: Figure, x: float, paper: Measured) -> None:
    """The gate of the fine levels, and who attends to whom at the coarse ones."""
    figure.group(Box(x, PANEL, 306, HEIGHT), "Spatial attention")
    parts = [
        (paper.shapes[f"levels.{level}.0"][0], blocks[0].spatial) for level, blocks in enumerate(paper.network.levels)
    ]
    gates = [(side, part) for side, part in parts if hasattr(part, "conv")]
    figure.text(x + 16, PANEL + 48, f"{_sides(gates)}: a gate", weight=600)
    kernel = shaped(gates[0][1].conv.kernel_size)
    over = Block("pooling", 122, "mean, maximum", ("over channels",))
    conv = figure.chain(x + 16, PANEL + 82, over, Block("convolution", 72, f"conv {kernel}"), gap=20)[1]
    weigh = figure.sign(x + 281, PANEL + 82, "×")
    figure.arrow(conv.right, weigh.left)
    figure.text(x + 268, PANEL + 66, "sigmoid", "middle", colour=FAINT)
    pairs = [(side, part) for side, part in parts if not hasattr(part, "conv")]
    figure.text(x + 16, PANEL + 140, f"{_sides(pairs)}: self-attention", weight=600)
    for row, (side, part) in enumerate(pairs):
        cells = side // part.cell
        averages = f"of means of {shaped([part.cell] * 2)}" if part.cell > 1 else f"{shaped([cells] * 2)} positions"
        asks = Block("token", 108, f"{side**2} queries", (f"{side}×{side} positions",))
        told = Block("token", 140, f"{cells**2} keys and values", (averages,))
        figure.chain(x + 16, PANEL + 176 + 60 * row, asks, told, gap=26)


def _sides(parts: Sequence[tuple[int, nn.Module]]) -> str:
    return " and ".join(shaped([side] * 2) for side, _ in parts)


def _downsampling(figure: Figure, x: float) -> None:
    """The three ways down, and the network that mixes them."""
    figure.group(Box(x, PANEL, 306, HEIGHT), "Adaptive downsampling", "+ the means")
    choice = (Block("pooling", 108, "average", ("over positions",)), Block(LINEAR, 64, "linear"))
    linear = figure.chain(x + 16, PANEL + 64, *choice)[1]
    figure.arrow(linear.right, (linear.right[0] + 20, PANEL + 64))
    figure.text(linear.right[0] + 26, PANEL + 60, "softmax:", colour=FAINT)
    figure.text(linear.right[0] + 26, PANEL + 76, "α, β, γ", size=12.5, weight=600)
    average = figure.box(Block("pooling", 108, "average 2×2"), x + 16, PANEL + 130)
    highest = figure.box(Block("pooling", 108, "maximum 2×2"), x + 16, PANEL + 186)
    strided = figure.box(Block("convolution", 108, "conv 3×3", ("stride 2",)), x + 16, PANEL + 240)
    mix, add = figure.sign(x + 164, PANEL + 158, "+"), figure.sign(x + 278, PANEL + 158, "+")
    for box, weight, end in ((average, "α", mix.top), (highest, "β", mix.bottom), (strided, "γ", add.bottom)):
        figure.arrow(box.right, (end[0], box.right[1]), end)
        figure.text(box.right[0] + 12, box.right[1] - 6, weight, "middle", weight=600)
    wider = figure.box(Block("convolution", 72, "conv 1×1"), x + 185, PANEL + 158)
    figure.arrow(mix.right, wider.left)
    figure.arrow(wider.right, add.left)
