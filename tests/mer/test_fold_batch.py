import pytest
import torch
from timm.layers import DropPath
from torch import nn

from mer.fold_batch import FoldBatch, StackedNetwork
from mer.models import Network
from mer.task import FirstStage, Task


class Drawing(Network):
    """Draws in every way that a stack knows, the same module twice."""

    def __init__(self, shared: bool = False):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 3)
        self.plane, self.feature, self.path = nn.Dropout2d(0.5), nn.Dropout(0.5), DropPath(0.5)
        if shared:
            self.again = self.head

    def forward(self, flow):
        x = self.plane(self.convolution(flow))
        x = self.feature(self.feature(x)).mean((2, 3))
        return {"logits": self.head(self.path(x)), "kept": x}


def stack_of(seeds: list[int], start: int = 0) -> StackedNetwork:
    networks = []
    for seed in seeds:
        torch.manual_seed(start + seed)
        networks.append(Drawing())
    stack = StackedNetwork(networks)
    stack.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return stack


FLOW = torch.ones(64, 3, 4, 4)


def test_a_slots_masks_are_its_own():
    few, many = stack_of([5, 3]), stack_of([1, 3, 4, 5])
    for _ in range(3):
        two = few(flow=FLOW.expand(2, -1, -1, -1, -1))["logits"]
        four = many(flow=FLOW.expand(4, -1, -1, -1, -1))["logits"]
        torch.testing.assert_close(two, four[[3, 1]])
    assert not torch.equal(two[0], few(flow=FLOW.expand(2, -1, -1, -1, -1))["logits"][0])  # every step draws anew


def test_masks_keep_the_mean_and_leave_no_trace():
    stack = stack_of([0, 1])
    state = torch.get_rng_state()
    outputs = stack(flow=FLOW.expand(2, -1, -1, -1, -1))
    assert torch.equal(state, torch.get_rng_state())
    assert [tuple(shape) for _, shape in stack.shapes] == [(64, 4, 1, 1), (64, 4, 4, 4), (64, 4, 4, 4), (64, 1)]
    still = stack.eval()(flow=FLOW.expand(2, -1, -1, -1, -1))
    torch.testing.assert_close(outputs["kept"].mean(1), still["kept"].mean(1), atol=0.5, rtol=0.5)
    torch.testing.assert_close(still["logits"][1], stack.one(1, {"flow": FLOW.expand(2, -1, -1, -1, -1)})["logits"])


def test_weights_have_the_groups_that_they_have_alone():
    tasks = [Task(Drawing(), weight_decay=0.1) for _ in range(2)]
    stack = FoldBatch(tasks, noise=(0, 1))
    decays = {name: group["weight_decay"] for group in stack.groups for name in group["params"]}
    assert decays == {"convolution.weight": 0.1, "convolution.bias": 0, "head.weight": 0.1, "head.bias": 0}
    assert [task.network.head.weight.ndim for task in tasks] == [2, 2]  # the tasks stay as they were


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_slot_by_slot(algorithm):
    tasks = [Task(Drawing()) for _ in range(3)]
    stack = FoldBatch(tasks, noise=(0, 1, 2))
    alone = [list(task.network.parameters()) for task in tasks]
    for index, weight in enumerate(stack.network.slots.parameters()):
        weight.grad = torch.randn_like(weight) * torch.tensor([0.01, 1, 9]).view(-1, *[1] * (weight.ndim - 1))
        for slot in range(3):
            alone[slot][index].grad = weight.grad[slot].clone()
    stack.configure_gradient_clipping(None, 0.7, algorithm)
    for slot in range(3):
        clip = nn.utils.clip_grad_norm_ if algorithm == "norm" else nn.utils.clip_grad_value_
        clip(alone[slot], 0.7)
        for weight, own in zip(stack.network.slots.parameters(), alone[slot]):
            torch.testing.assert_close(weight.grad[slot], own.grad)


class Own(Task):
    def loss(self, outputs, batch):
        return {"mine": outputs["logits"].sum()}


class Staged(Task):
    def first_stage(self):
        return FirstStage(1)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (lambda: Own(Drawing()), "Own cannot be stacked: it has its own loss"),
        (lambda: Staged(Drawing()), "first stage"),
        (lambda: Task(Drawing(shared=True)), "share a weight"),
    ],
)
def test_what_cannot_be_stacked_says_why(task, words):
    with pytest.raises(ValueError, match=words):
        FoldBatch([task(), task()], noise=(0, 1))


def test_one_network_is_no_stack():
    with pytest.raises(ValueError, match="at least two"):
        StackedNetwork([Drawing()])
