"""The figure of HSTA: two branches of tokens and their stages, and the two kinds of block."""

from experiments.diagrams.drawing import FAINT, LINEAR, Block, Box, Figure
from experiments.diagrams.measured import Measured, measure, shaped, short

SPECIAL, VIDEO = 166, 332
"""Middles of the two branches, px."""


def draw() -> Figure:
    """The sizes of the recipe ``paper``."""
    paper = measure("hsta", "paper")
    network = paper.network
    figure = Figure(
        800,
        "HSTA",
        f"Sizes of the recipe paper (base), {short(paper.parameters())} parameters: tokens × features, "
        f"{network.stages[0].special_looks.attention.heads} heads.",
    )
    _branches(figure, paper)
    norm = Block("normalisation", 36, "LN")
    _usta(figure, paper, norm)
    _csta(figure, paper, norm)
    return figure


def _branches(figure: Figure, paper: Measured) -> None:
    """From the pictures along the stages to the logits."""
    network, shapes = paper.network, paper.shapes
    depths = len(network.stages[0].special), len(network.stages[0].video)
    figure.group(Box(462, 84, 314, 330), "Stage", f"{len(network.stages)} in turn")
    pictures = list(paper.inputs.values())
    inputs = (
        (" and ".join(list(paper.inputs)[:-1]), shaped((len(pictures) - 1, *pictures[0]))),
        ("video frames", shaped(pictures[-1])),
    )
    blocks, looks, ends = [], [], []
    for y, branch, depth, (name, shape) in zip((SPECIAL, VIDEO), ("special", "video"), depths, inputs, strict=True):
        (count, width), (_, *grid) = shapes[branch], shapes[f"{branch}.project"]
        kernel = getattr(network, branch).project.kernel_size
        figure.text(24, y - 52, f"{branch} branch", size=13, weight=650)
        tubelets = Block("convolution", 134, "tubelets", (f"Conv3d {shaped(kernel)}", f"{shaped(grid)} patches"))
        placed = figure.chain(24, y, Block("tensor", 116, name, (shape,)), tubelets, gap=22)
        tokens = figure.box(Block("token", 122, "tokens", ("", f"(1 + {count - 1}) × {width}", "+ positions")), 318, y)
        figure.tokens(338, y - 8, 4)
        figure.arrow(placed[-1].right, tokens.left)
        usta = Block("attention", 118, "USTA" + f" × {depth}" * (depth > 1), (f"{count} tokens", f"attend to {count}"))
        blocks.append(figure.box(usta, 478, y))
        figure.arrow(tokens.right, blocks[-1].left)
        partner = shapes["video" if branch == "special" else "special"][0] - 1
        looks.append(figure.box(Block("attention", 104, "CSTA", ("CLS attends to", f"{partner} patches")), 656, y))
        figure.arrow(blocks[-1].right, looks[-1].left)
        ends.append(figure.box(Block("normalisation", 68, "LN", ("of CLS", f"{width}")), 798, y))
        figure.arrow(looks[-1].right, ends[-1].left)
    for start, end, bend, shift in ((blocks[0], looks[1], 612, -16), (blocks[1], looks[0], 632, 16)):
        figure.arrow(start.right, (bend, start.right[1]), (bend, end.left[1] + shift), (end.x, end.left[1] + shift))
    for x, anchor, branch in ((605, "end", "special"), (639, "start", "video")):
        figure.text(x, 246, f"{shapes[branch][0] - 1}", anchor, colour=FAINT)
        figure.text(x, 261, "patches", anchor, colour=FAINT)
    figure.text(623, SPECIAL - 6, "CLS", "middle", colour=FAINT)
    figure.text(623, VIDEO + 16, "CLS", "middle", colour=FAINT)
    figure.text(478, 400, "The patches themselves pass CSTA unchanged.", colour=FAINT)
    middle = (SPECIAL + VIDEO) / 2
    head = figure.box(Block(LINEAR, 84, "linear", (f"{network.head.in_features:,}", "→ K logits")), 892, middle)
    for end, side in zip(ends, (head.top, head.bottom), strict=True):
        figure.arrow(end.right, (side[0], end.right[1]), side)


def _usta(figure: Figure, paper: Measured, norm: Block) -> None:
    (special, _), (video, _) = paper.shapes["special"], paper.shapes["video"]
    figure.group(
        Box(24, 430, 952, 132), "USTA", "unimodal space-time attention: one branch, every place and time at once"
    )
    tokens = Block("token", 96, "tokens", ("(1 + N) × D",))
    figure.chain(
        40,
        512,
        tokens,
        norm,
        Block("attention", 250, "self-attention", (f"{special}×{special} or {video}×{video} weights a head",)),
        "+",
        norm,
        Block(LINEAR, 150, "feed-forward", ("D → 4D → D, GELU",)),
        "+",
        tokens,
        gap=30,
        lift=40,
    )


def _csta(figure: Figure, paper: Measured, norm: Block) -> None:
    """The direction in which the special branch looks."""
    (_, width), (count, partner) = paper.shapes["special"], paper.shapes["video"]
    figure.group(
        Box(24, 576, 952, 176),
        "CSTA",
        "crossmodal space-time attention: here the special branch looks at the video's patches",
    )
    enter, leave = (
        Block(LINEAR, 124, "LN, GELU, linear", (f"{before} → {after}",))
        for before, after in ((width, partner), (partner, width))
    )
    cls, guest = Block("token", 78, "CLS", (f"1 × {width}",)), Block("token", 78, "c", (f"1 × {partner}",))
    entered = figure.chain(40, 654, cls, enter, gap=28)[-1]
    ask = Block("attention", 178, "attention", ("1 query: c;", f"{count} keys and values"))
    placed = figure.chain(entered.right[0] + 28, 654, guest, norm, ask, "+", leave, cls, gap=28, lift=44)
    figure.arrow(entered.right, placed[0].left)
    mixed = placed[1].bottom
    patches = Block("tensor", 210, "patches of the partner", (f"{count - 1} × {partner}",))
    figure.arrow(figure.box(patches, mixed[0] - 105, 720, 42).top, mixed)
