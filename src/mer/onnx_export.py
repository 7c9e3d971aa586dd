"""A trained model as one ONNX file, for programs without torch: inputs of the networks in, class probabilities out."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer import InputError
from mer.models import Batch
from mer.training.task import Task

TOLERANCE = 1e-5
"""Largest difference of a probability between torch and onnxruntime, on a CPU."""

BATCH_SIZES = (1, 2, 7)
"""Numbers of clips that are compared."""

LARGEST = 2**31 - 2**24
"""Bytes of weights in one file: protobuf ends at 2 GiB, and the graph needs its part."""


class SeedMean(nn.Module):
    """The class probabilities of a model: the mean over its seeds.

    Args:
        tasks: The trained tasks, one per seed.
    """

    def __init__(self, tasks: Sequence[Task]):
        super().__init__()
        self.tasks: Any = nn.ModuleList(tasks)

    def forward(self, batch: Batch) -> Tensor:
        """Class probabilities of a batch, (B, K)."""
        return torch.stack([task.predict_step(batch) for task in self.tasks]).mean(0)


def export(tasks: Sequence[Task], example: Batch) -> tuple[bytes, float]:
    """A model as one ONNX file with its weights, after a comparison with torch on the CPU.

    The file's inputs are those of the networks, by name, for any number of clips B: ``flow``, float32 (B, 3, S, S), as
    ``mer.transforms.normalise_flow`` gives it, or ``depth``, as ``mer.preprocessing.depth.normalise`` does; ``onset``
    and ``apex``, uint8 RGB (B, 3, S, S); ``frames``, uint8 RGB (B, T, 3, S, S). Its output is ``probabilities``,
    float32 (B, K): the mean over the tasks of ``Task.predict_step``, the mirror image included.

    Args:
        tasks: The trained tasks of one recipe, one per seed, on the CPU; they are put in evaluation mode.
        example: The networks' inputs for one clip or more, on the CPU; other tensors are not read.

    Returns:
        The file's content, and the largest difference of a probability between torch and onnxruntime, over batches of
        ``BATCH_SIZES`` clips.

    Raises:
        InputError: If the extra ``export`` is missing, the network has no ONNX form, the weights are too large for one
            file, or the difference is above ``TOLERANCE``.
    """
    require_extra()
    network = SeedMean(tasks).eval()
    size = sum(weights.nbytes for weights in network.state_dict().values())
    if size > LARGEST:
        raise InputError(f"an ONNX file holds less than 2 GiB, and the weights have {size:,} bytes; fit fewer seeds")
    clips = make_clips(tasks[0].network.inputs, example, max(BATCH_SIZES))
    batches = [{name: tensors[:count] for name, tensors in clips.items()} for count in BATCH_SIZES]
    with torch.no_grad(), quiet():
        # Before the export: a constant that mer.transforms keeps must not be first made of the exporter's tensors.
        expected = [network(batch).numpy() for batch in batches]
        try:
            model = convert(network, clips)
            results = run(model, batches)
        except Exception as error:  # torch, onnxscript and onnxruntime have a dozen kinds, of no common base
            reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            raise InputError(f"{type(tasks[0].network).__name__} cannot be written as ONNX: {reason}") from error
    difference = float(np.max([np.abs(got - wanted).max() for got, wanted in zip(results, expected, strict=True)]))
    if not difference <= TOLERANCE:  # nan is no match
        raise InputError(
            f"no ONNX file is written: probabilities under onnxruntime differ from torch's by {difference:.1e}, more "
            f"than {TOLERANCE:.0e}"
        )
    return model, difference


def require_extra() -> None:
    """Say how to install the extra ``export`` if it is missing, with an InputError."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX needs the extra `export` ({error}): pip install 'mer[export]'") from error


def make_clips(names: Sequence[str], example: Batch, count: int) -> Batch:
    """Inputs of ``count`` different clips: those of the example in turn, each moved one column further to the right."""
    rows = range(count)
    return {n: torch.stack([example[n][row % len(example[n])].roll(row, -1) for row in rows]) for n in names}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the exporter warns of and logs: a failure raises, and the result is compared."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def convert(network: SeedMean, clips: Batch) -> bytes:
    """The ONNX file of a network, traced with some clips, two or more: torch takes a batch of one for a constant."""
    shapes = ({name: {0: torch.export.Dim("batch")} for name in clips},)
    program = torch.export.export(network, (clips,), dynamic_shapes=shapes, strict=False)
    pooling = torch.ops.aten.avg_pool2d.default
    if program.graph.find_nodes(op="call_function", target=pooling):
        program = program.run_decompositions({pooling: scale_pooling})
    # Not optimised: that takes HSTA as long as all the rest, and onnxruntime optimises what it loads.
    options = {"dynamic_shapes": shapes, "input_names": list(clips), "output_names": ["probabilities"]}
    onnx_program = torch.onnx.export(program, (clips,), optimize=False, verbose=False, **options)
    assert onnx_program is not None
    model = onnx_program.model_proto
    graph = model.graph
    graph.ClearField("value_info")
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")  # has the paths of the source files, and can be larger than the weights
    return model.SerializeToString()


def scale_pooling(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Any:
    """``aten.avg_pool2d`` with a divisor, from means: onnxscript ignores the divisor without a word."""
    if divisor is None or ceil_mode:
        return NotImplemented
    return F.avg_pool2d(x, kernel, stride, padding) * (prod(kernel) / divisor)


def run(model: bytes, batches: Sequence[Batch]) -> list[np.ndarray]:
    """The probabilities that onnxruntime computes on the CPU for each batch, (B, K)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [session.run(None, {name: x.numpy() for name, x in batch.items()})[0] for batch in batches]
