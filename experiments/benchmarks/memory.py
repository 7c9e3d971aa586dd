"""How much memory the tensors of a piece of work take at most."""

import weakref
from types import TracebackType

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class TensorBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations inside the block make or change, as long as each lives.

    Attributes:
        most: The most that lived at once. What an operation needs only while it runs is not in it.
    """

    def __init__(self):
        super().__init__()
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # noqa: ANN001
        outputs = operation(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, outputs)
        return outputs

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()  # the same object for every view of it
        if id(storage) not in self.alive:
            self.alive[id(storage)] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, id(storage))
            self.most = max(self.most, sum(self.alive.values()))


class Peak:
    """The most bytes that tensors hold inside the block beside those that were there before; on a GPU the allocator's.

    Args:
        device: Where the tensors are.

    Attributes:
        bytes: The result, once the block has ended.
    """

    def __init__(self, device: torch.device):
        self.device, self.bytes, self.mode = device, 0, TensorBytes()

    def __enter__(self) -> "Peak":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        else:
            self.mode.__enter__()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self.before
        else:
            self.mode.__exit__(*error)
            self.bytes = self.mode.most
