import pytest
import torch
from torch import nn

from mer.training.first_stage import FirstStage
from mer.training.stacked_task import StackedTask
from mer.training.task import Task
from tests.drawing import Drawing


def test_weights_have_the_groups_that_they_have_alone():
    tasks = [Task(Drawing(), weight_decay=0.1) for _ in range(2)]
    stack = StackedTask(tasks, noise=(0, 1))
    decays = {name: group["weight_decay"] for group in stack.param_groups for name in group["params"]}
    assert decays == {"convolution.weight": 0.1, "convolution.bias": 0, "head.weight": 0.1, "head.bias": 0}
    assert [task.network.head.weight.ndim for task in tasks] == [2, 2]  # the tasks stay as they were


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_slot_by_slot(algorithm):
    tasks = [Task(Drawing()) for _ in range(3)]
    stack = StackedTask(tasks, noise=(0, 1, 2))
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
        StackedTask([task(), task()], noise=(0, 1))
