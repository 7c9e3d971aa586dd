"""mer: micro-expression recognition from optical flow, one subject left out at a time.

What one needs in a notebook or a program of one's own; all else is in the packages below. Nothing heavy is imported
before it is used.

    model = mer.load("models/casme3-ahmsa_net")     # as `mer fit` writes it, on the GPU where there is one
    result = model.predict("clip.mp4")              # probabilities, onset, apex, flow (3, H, W), attention
    face = mer.align(onset)                         # RGB (H, W, 3) -> the aligned face (128, 128, 3)
    later = mer.align(apex, like=onset)             # another frame of the clip, cut in the same way

>>> import mer, torch
>>> first = torch.rand(1, 1, 64, 64)
>>> mer.tvl1(first, first.roll(1, dims=3)).shape    # u and v in pixels; on the device of its input
torch.Size([1, 2, 64, 64])
>>> mer.flow_map(*(255 * first[0].repeat(2, 1, 1)).byte().numpy()).shape    # of two grey or RGB arrays: u, v, strain
(3, 64, 64)
>>> score = mer.UF1(num_classes=3)
>>> round(score(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 1])).item(), 3)    # predictions, targets
0.778
"""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer.evaluation.metrics import UAR as UAR
    from mer.evaluation.metrics import UF1 as UF1
    from mer.flow import flow_map as flow_map
    from mer.flow.tvl1 import tvl1 as tvl1
    from mer.preprocessing.clip import align as align
    from mer.trained import load as load

_PUBLIC = {
    "UAR": "mer.evaluation.metrics",
    "UF1": "mer.evaluation.metrics",
    "align": "mer.preprocessing.clip",
    "flow_map": "mer.flow",
    "load": "mer.trained",
    "tvl1": "mer.flow.tvl1",
}

__version__ = "0.1.0"


class InputError(ValueError):
    """What the user gave cannot be used; the message says what, where and what to do.

    The command line prints the message alone and ends with exit status 2.
    """


def near(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: known words that are spelt alike, or an empty text."""
    close = get_close_matches(word, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def __getattr__(name: str) -> Any:
    """A name of ``_PUBLIC``, imported when it is first used, so that the command line is fast."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*globals(), *_PUBLIC]
