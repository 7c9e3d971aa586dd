"""Peak memory of tensors on a CPU; on a GPU PyTorch's allocator counts it."""

import weakref

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class TensorBytes(TorchDispatchMode):
    """Counts the bytes of all live tensors that operations inside the block made or changed.

    Attributes:
        most: The peak, without the memory that an operation needs only while it runs.
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
