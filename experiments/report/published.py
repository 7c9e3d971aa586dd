"""Published scores under a protocol of this suite, each with its source and how its epoch was chosen."""

from dataclasses import dataclass, field, replace

import pandas as pd

from data_modules.protocols import protocol

# How the number of epochs was fixed, as far as the paper or its released code tells.
HONEST, UNKNOWN = "not on the held-out subject", "not stated"
OPTIMISTIC = "on the held-out subject (optimistic)"


@dataclass(frozen=True)
class Published:
    """One method under one protocol.

    Attributes:
        method: Its name.
        source: Where the scores stand.
        epoch: ``HONEST``, ``OPTIMISTIC`` or ``UNKNOWN``.
        uf1: In [0, 1]; None where it is not given, like the next two.
        uar: As ``uf1``.
        accuracy: As ``uf1``.
        parts: UF1 and UAR of each database, from the same run.
        remark: What the source leaves open, or gets wrong.
    """

    method: str
    source: str
    epoch: str
    uf1: float | None = None
    uar: float | None = None
    accuracy: float | None = None
    parts: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    remark: str = ""


def _composite(*scores: tuple[float, float | None]) -> dict[str, tuple[float | None, float | None]]:
    return dict(zip(("smic", "casme2", "samm"), scores, strict=True))


_AHMSA = "Zhang et al., arXiv 2501.02539, 2025"
_HTNET = "Wang et al., HTNet, Neurocomputing 2024"
_STSTNET = (
    "the UAR as published is the mean precision: the authors' own log, with its columns the right way round, gives UF1 "
    "0.7353 and UAR 0.7186"
)
_MICRO_BERT = "Nguyen et al., Micron-BERT, CVPR 2023"

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "megc2019": (
        Published("LBP-TOP", "See et al., MEGC 2019, FG 2019", HONEST, 0.5882, 0.5785,
                  parts=_composite((0.2000, 0.5280), (0.7026, 0.7429), (0.3954, 0.4102))),
        Published("OFF-ApexNet", "Gan et al., SPIC 2019, as in Liong et al., FG 2019", UNKNOWN, 0.7196, 0.7096,
                  parts=_composite((0.6817, 0.6695), (0.8764, 0.8681), (0.5409, 0.5392))),
        Published("STSTNet", "Liong et al., FG 2019", HONEST, 0.7353, 0.7605,
                  parts=_composite((0.6801, 0.7013), (0.8382, 0.8686), (0.6588, 0.6810)), remark=_STSTNET),
        Published("RCN-A", "Xia et al., IEEE TIP 2020", HONEST, 0.7432, 0.7190,
                  parts=_composite((0.6326, 0.6441), (0.8512, 0.8123), (0.7601, 0.6715))),
        Published("FeatRef", "Zhou et al., Pattern Recognition 2022", UNKNOWN, 0.7838, 0.7832,
                  parts=_composite((0.7011, 0.7083), (0.8915, 0.8873), (0.7372, 0.7155))),
        Published("AHMSA-Net", _AHMSA, UNKNOWN, accuracy=0.7821),
        Published("SLSTT", "Zhang et al., IEEE TAFFC 2022", OPTIMISTIC, 0.816, 0.790,
                  parts=_composite((0.740, None), (0.901, None), (0.715, None))),
        Published("HTNet", _HTNET, OPTIMISTIC, 0.8603, 0.8475,
                  parts=_composite((0.8049, 0.7905), (0.9532, 0.9516), (0.8131, 0.8124))),
        Published("CausalNet", "Zhang, Tang and Chen, ICCV 2025", OPTIMISTIC, 0.8976, 0.9020,
                  parts=_composite((0.8390, 0.8452), (0.9811, 0.9858), (0.8780, 0.8582))),
    ),
    "casme3-3": (
        Published("Micro-BERT", _MICRO_BERT, UNKNOWN, 0.5604, 0.6125),
        Published("HTNet", _HTNET, OPTIMISTIC, 0.5767, 0.5415),
        Published("HSTA", "Hao et al., arXiv 2405.03202, 2024", UNKNOWN, 0.5930, 0.6180),
        Published("AHMSA-Net", _AHMSA, UNKNOWN, accuracy=0.7708, remark="the classes are not stated, taken as three"),
    ),
    "casme3-4": (Published("Micro-BERT", _MICRO_BERT, UNKNOWN, 0.4718, 0.4913),),
    "casme3-7": (Published("Micro-BERT", _MICRO_BERT, UNKNOWN, 0.3264, 0.3254),),
}  # fmt: skip


def published_scores(name: str, split: str, clips: pd.DataFrame) -> tuple[Published, ...]:
    """What has been published for exactly these folds.

    Args:
        name: The protocol.
        split: How the folds are made; published scores leave one subject out.
        clips: The clip table. Nothing is beside a score of other data, so every database has to have the clips,
            subjects and classes that its real sheet gives under the protocol.

    Returns:
        Best last, as listed; empty where the data or the folds are others. Where some of the protocol's databases are
        missing, only what was published for each of the others: it was trained on all of them.
    """
    rules = protocol(name)
    counts = {
        str(database): (
            len(rows),
            rows["subject"].nunique(),
            tuple(int((rows["target"] == label).sum()) for label in rules.classes),
        )
        for database, rows in clips.groupby("dataset")
    }
    if split != "loso" or not counts.items() <= rules.parts.items():
        return ()
    papers = PUBLISHED.get(name, ())
    if len(counts) == len(rules.parts):
        return papers
    return tuple(
        replace(paper, uf1=None, uar=None, accuracy=None, parts={part: paper.parts[part] for part in counts})
        for paper in papers
        if paper.parts
    )
