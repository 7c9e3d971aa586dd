"""The figure of MFVAN: its two stages, the local attention, and the joint loss."""

from experiments.diagrams.drawing import FAINT, LINEAR, Block, Box, Figure
from experiments.diagrams.measured import Measured, default, measure, shaped, short
from mer.models.mfvan import STRIDES, LocalAttention, MFVANTask

ROWS = (318, 424, 522, 610)
"""Middles of the rows of stage 2, px."""


def draw() -> Figure:
    """The sizes of the recipe ``paper``."""
    paper = measure("mfvan", "paper")
    parts = (
        f"{name} {short(paper.parameters(prefix))}"
        for name, prefix in (
            ("encoder", "encoder."),
            ("identity heads", "identities."),
            ("decoder", "decoder."),
            ("attention", "attentions."),
        )
    )
    figure = Figure(
        912, "MFVAN", f"Sizes of the recipe paper, {short(paper.parameters())} parameters: {', '.join(parts)}."
    )
    maps = tuple(shaped(paper.shapes[f"identities.{scale}"]) for scale in range(len(STRIDES)))
    _first_stage(figure, paper, maps)
    _second_stage(figure, paper, maps)
    _local_attention(figure, paper.network.attentions[0])
    _loss(figure)
    return figure


def _first_stage(figure: Figure, paper: Measured, maps: tuple[str, ...]) -> None:
    figure.group(
        Box(24, 76, 952, 146), "Stage 1", "self-supervised, on the frames of the fold's training subjects alone"
    )
    frame = shaped(paper.inputs["apex"])
    encoder = Block("convolution", 112, "encoder E", ("strides", ", ".join(map(str, STRIDES))))
    placed = figure.chain(
        40,
        166,
        Block("tensor", 118, "onset or apex", (frame,)),
        encoder,
        Block("tensor", 112, "maps", maps),
        Block("convolution", 112, "decoder D"),
        Block("tensor", 112, "picture", (frame,)),
        Block("loss", 112, "L1 + SSIM"),
        gap=46,
    )
    start, end = placed[0], placed[-1]
    figure.arrow((start.top[0], start.y), (start.top[0], 114), (end.top[0], 114), end.top, dashed=True)


def _second_stage(figure: Figure, paper: Measured, maps: tuple[str, ...]) -> None:
    network, scales = paper.network, len(STRIDES)
    figure.group(Box(24, 236, 952, 420), "Stage 2", "from the weights of stage 1; stacked cards: one for each scale s")
    y1, y2, y3, y4 = ROWS
    frame = shaped(paper.inputs["apex"])
    apex = figure.box(Block("tensor", 104, "apex", (frame,)), 40, y1)
    encoder = figure.box(Block("convolution", 78, "E"), 166, y1)
    seen = figure.box(Block("tensor", 100, "E(apex)", maps), 264, y1, cards=scales)
    minus = figure.sign(412, y1, "−")
    motion = figure.box(Block("tensor", 100, "motion m", maps), 446, y1, cards=scales)
    attention = figure.box(Block("attention", 112, "local attention", ("weights a", "mask M")), 582, y1, cards=scales)
    features = network.head.in_features
    joined = figure.box(Block("normalisation", 104, "LN of each", ("concatenate", f"{features:,}")), 722, y1)
    head = figure.box(Block(LINEAR, 84, "linear", ("K logits",)), 866, y1)
    for start, end in ((apex, encoder), (encoder, seen)):
        figure.arrow(start.right, end.left)
    figure.arrow((seen.right[0] + 10, y1), minus.left)
    figure.arrow(minus.right, motion.left)
    figure.arrow((motion.right[0] + 10, y1), attention.left)
    figure.arrow((attention.right[0] + 10, y1), joined.left)
    figure.arrow(joined.right, head.left)

    rebuilt = figure.box(Block("loss", 104, "reconstruction", ("L1",)), 40, y2)
    decoder = figure.box(Block("convolution", 78, "D"), 166, y2)
    predict = figure.box(
        Block("convolution", 100, "identity head", ("x + conv 3×3,", "ReLU, conv 1×1")), 264, y2, cards=scales
    )
    identity = figure.box(Block("tensor", 100, "identity I", ("the calm face",)), 446, y2, cards=scales)
    apart = figure.box(Block("loss", 112, "orthogonality", ("cos²(m, I)",)), 582, y2)
    masked = figure.box(Block("loss", 104, "mask", ("share ρ, 0 or 1",)), 722, y2)
    classes = figure.box(Block("loss", 84, "classes", ("CE",)), 866, y2)
    figure.arrow(apex.bottom, rebuilt.top, dashed=True)
    figure.arrow(decoder.left, rebuilt.right)
    gap = (seen.y + seen.height + y2 - 44) / 2 + 2
    figure.arrow((284, seen.bottom[1]), (284, gap), (decoder.top[0], gap), decoder.top)
    figure.arrow((seen.bottom[0] + 6, seen.bottom[1]), (seen.bottom[0] + 6, predict.y - 10))
    figure.arrow((predict.right[0] + 10, y2), identity.left)
    figure.arrow((minus.bottom[0], y2), minus.bottom)
    figure.arrow((identity.right[0] + 10, y2), apart.left)
    figure.arrow(
        (motion.bottom[0] + 30, motion.bottom[1]),
        (motion.bottom[0] + 30, gap),
        (apart.top[0] - 20, gap),
        (apart.top[0] - 20, apart.y),
    )
    figure.arrow(
        (attention.right[0] - 20, attention.bottom[1]), (attention.right[0] - 20, gap), (masked.top[0], gap), masked.top
    )
    figure.arrow(head.bottom, classes.top)

    onset = figure.box(Block("tensor", 104, "onset", (frame,)), 40, y3)
    calm = figure.box(Block("convolution", 78, "E", ("no gradient",)), 166, y3)
    match = figure.box(Block("loss", 100, "identity", ("(I − E(onset))²",)), 264, y3)
    draws = figure.box(Block("convolution", 100, "D"), 446, y3)
    figure.arrow(onset.right, calm.left)
    figure.arrow(calm.right, match.left)
    figure.arrow(predict.bottom, match.top)
    figure.arrow(identity.bottom, draws.top)
    generated = figure.box(Block("loss", 100, "generation", ("L1",)), 446, y4)
    figure.arrow(draws.bottom, generated.top)
    figure.arrow(onset.bottom, (onset.bottom[0], y4), generated.left, dashed=True)
    figure.text(98, y4 - 8, "dashed: what is drawn is compared with it", colour=FAINT)
    for line, words in enumerate(
        ("By argument, I = E(onset):", "then there is no identity head,", "and onset frames are read at test time.")
    ):
        figure.text(582, y3 + 16 * line, words, colour=FAINT)
    own = figure.box(Block(LINEAR, 84, "linear", ("one for each",)), 866, y3, cards=scales)
    figure.arrow((846, y1), (846, y3), own.left)
    scale = figure.box(Block("loss", 84, "scales", ("CE",)), 866, y4)
    figure.arrow(own.bottom, scale.top)


def _local_attention(figure: Figure, attention: LocalAttention) -> None:
    """How a map becomes a feature."""
    figure.group(Box(24, 670, 572, 194), "Local attention", "of one scale")
    y = 762
    score = Block("convolution", 92, "conv 3×3", ("ReLU,", "conv 1×1"))
    m, _, logits = figure.chain(40, y, Block("tensor", 44, "m"), score, Block("tensor", 44, "l"), gap=18)
    weigh = figure.sign(450, y, "×")
    for shift, name, note in ((-34, "weights a", "softmax over positions"), (34, "mask M", "σ((l − τ) / T)")):
        box = figure.box(Block("attention", 148, name, (note,)), 274, y + shift)
        figure.arrow(logits.right, box.left)
        figure.arrow(box.right, (weigh.top[0], y + shift), weigh.top if shift < 0 else weigh.bottom)
    fused = figure.box(
        Block("pooling", 112, "feature", ("Σ M a m / Σ M a", f"by {shaped([attention.grid] * 2)} cells")), 474, y
    )
    figure.arrow(weigh.right, fused.left)
    figure.arrow(m.bottom, (m.bottom[0], 838), (fused.bottom[0], 838), fused.bottom)
    figure.text(274, 856, f"τ is learned, T = {attention.temperature}", colour=FAINT)


def _loss(figure: Figure) -> None:
    """The sum that stage 2 makes small."""
    figure.group(Box(612, 670, 364, 194), "Joint loss", "of stage 2")
    weights = [default(MFVANTask, name) for name in ("lambda_mask", "lambda_identity", "mask_share")]
    lines = (
        "L = classes + Σ scales + λₘ Σ mask",
        "+ λᵢ (identity + generation",
        "+ reconstruction + orthogonality)",
        "",
        "mask = (mean M − ρ)² + mean M (1 − M)",
        "λₘ = {:g}, λᵢ = {:g}, ρ = {:g}".format(*weights),
    )
    for row, words in enumerate(lines):
        figure.text(628 + 24 * (row in (1, 2)), 724 + 22 * row, words, size=12.5)
