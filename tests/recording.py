"""A stand-in for CUDA graphs on a CPU: a recording computes nothing, and a replay runs the recorded operations.

The operations of a replay read and write the same memory as when they were recorded, as on a GPU; operations that a GPU
cannot record are refused.
"""

from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only


class Graph:
    """Recorded operations with their tensors."""

    def __init__(self):
        self.operations, self.replays = [], 0

    @torch.no_grad()
    @torch.backends.mkldnn.flags(enabled=False)  # as where they were recorded
    def replay(self) -> None:
        self.replays += 1
        for operation, args, kwargs, outputs in self.operations:
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.data, (args, kwargs))  # no autograd in a replay
            computed, _ = tree_flatten(operation(*args, **kwargs))
            for old, new in zip(outputs, computed, strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.data.copy_(new)


class _Recording(TorchDispatchMode):
    def __init__(self, graph: Graph):
        super().__init__()
        self.graph, self.before, self.made = graph, {}, set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        draws = torch.Tag.nondeterministic_seeded in operation.tags and "scaled_dot_product" not in str(operation)
        if draws or operation is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError(f"{operation} cannot be recorded")
        kwargs = kwargs or {}
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        for storage in (tensor.untyped_storage() for tensor in given):
            place = storage.data_ptr()  # its content is put back in the end: a GPU computes nothing while it records
            if place not in self.made and place not in self.before:
                self.before[place] = storage, storage.clone()
        outputs = operation(*args, **kwargs)
        flat, _ = tree_flatten(outputs)
        places = {tensor.untyped_storage().data_ptr() for tensor in given}
        fresh = [x for x in flat if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in places]
        self.made |= {x.untyped_storage().data_ptr() for x in fresh}
        if fresh or operation._schema.is_mutable:  # what only looks at memory in another way need not be repeated
            self.graph.operations.append((operation, args, kwargs, flat))
        return outputs


class Cuda:
    """The names of ``torch.cuda`` that ``mer.training.recorded_step`` uses."""

    CUDAGraph = Graph

    class Stream:
        def __init__(self, device=None):
            pass

        def wait_stream(self, stream) -> None:
            pass

    current_stream = Stream

    @staticmethod
    def stream(stream) -> AbstractContextManager:
        return nullcontext()

    @staticmethod
    @contextmanager
    def graph(graph: Graph, stream):
        recording = _Recording(graph)
        with recording:
            yield
        for storage, before in recording.before.values():
            storage.copy_(before)
