"""A training step that a GPU repeats as one launch, recorded as a CUDA graph."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, cuda

WARM_UP = 3
"""Plain calls before the recording, in which libraries choose their algorithms and allocate memory."""

RECORDING = ("cuda",)
"""Types of devices on which steps are recorded."""


class RecordedStep:
    """Calls a function of tensors; on a GPU it is recorded after a few calls, and replayed from then on.

    A step of many stacked folds is more than a thousand small operations. To launch them one by one takes a host a
    hundred times as long as a GPU needs to compute them; a recorded step is one launch. On a CPU calls are plain.

    What the function reads besides its inputs (weights, buffers) must stay at its place in memory, and the function
    must not wait for the device. A function that cannot be recorded is called plainly, after one warning.

    Args:
        function: From tensors by name, of the same shapes in every call, to one tensor.
    """

    def __init__(self, function: Callable[[dict[str, Tensor]], Tensor]):
        self.function = function
        self.calls = 0
        self.record = True
        self.graph: cuda.CUDAGraph | None = None
        self.inputs: dict[str, Tensor] = {}
        self.output: Tensor | None = None

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """The function's output for the inputs; a replay overwrites the output of the replay before."""
        device = next(iter(inputs.values())).device
        if device.type not in RECORDING:
            return self.function(inputs)
        if self.graph is None and self.calls == 0:
            self.stream = cuda.Stream(device)
        if self.graph is None and self.calls >= WARM_UP and self.record:
            self._record(inputs)
        self.calls += 1
        if self.graph is None:
            return self._call(inputs)
        for name, tensor in self.inputs.items():
            tensor.copy_(inputs[name])
        self.graph.replay()
        return self.output

    def forget(self) -> None:
        """Give the memory of what was recorded back."""
        self.graph, self.inputs, self.output = None, {}, None

    def _call(self, inputs: dict[str, Tensor]) -> Tensor:
        """Call the function on the stream of the recording: gradients belong to the stream that made them."""
        self.stream.wait_stream(cuda.current_stream())
        with cuda.stream(self.stream):
            output = self.function(inputs)
        cuda.current_stream().wait_stream(self.stream)
        return output

    def _record(self, inputs: dict[str, Tensor]) -> None:
        """Record a call; nothing is computed."""
        self.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        graph = cuda.CUDAGraph()
        try:
            with cuda.stream(self.stream), cuda.graph(graph, stream=self.stream):
                self.output = self.function(self.inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.record, self.inputs = False, {}
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"the step cannot be recorded, so it stays slow on this GPU: {reason}", stacklevel=2)
        else:
            self.graph = graph
