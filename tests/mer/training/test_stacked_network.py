import pytest
import torch
from torch import nn

from mer.models import Network
from mer.training import stacked_network
from mer.training.stacked_network import StackedNetwork
from tests.drawing import Drawing


def stack_of(seeds: list[int], start: int = 0) -> StackedNetwork:
    networks = []
    for seed in seeds:
        torch.manual_seed(start + seed)
        networks.append(Drawing())
    stack = StackedNetwork(networks)
    stack.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    stack.note_masks({"flow": FLOW.expand(len(seeds), -1, -1, -1, -1)})
    return stack


def step(stack: StackedNetwork, slots: int) -> dict:
    """What a training step computes."""
    stack.random_numbers = stack.draw_numbers()
    return stack(flow=FLOW.expand(slots, -1, -1, -1, -1))


FLOW = torch.ones(64, 3, 4, 4)


def test_a_slots_masks_are_its_own():
    few, many = stack_of([5, 3]), stack_of([1, 3, 4, 5])
    for _ in range(3):
        two, four = step(few, 2)["logits"], step(many, 4)["logits"]
        torch.testing.assert_close(two, four[[3, 1]])
    assert not torch.equal(two[0], step(few, 2)["logits"][0])  # every step draws anew


def test_masks_keep_the_mean_and_leave_no_trace():
    stack = stack_of([0, 1])
    state = torch.get_rng_state()
    stack.note_masks({"flow": FLOW.expand(2, -1, -1, -1, -1)})
    outputs = step(stack, 2)
    assert torch.equal(state, torch.get_rng_state())
    assert stack.mask_shapes == [(64, 4, 1, 1), (64, 4, 4, 4), (64, 4, 4, 4), (64, 1)]
    flow = FLOW.expand(2, -1, -1, -1, -1)
    still = stack.eval()(flow=flow)
    torch.testing.assert_close(outputs["kept"].mean(1), still["kept"].mean(1), atol=0.5, rtol=0.5)
    torch.testing.assert_close(still["logits"][1], stack.slot_outputs(1, {"flow": flow})["logits"])


def test_numbers_drawn_at_once_are_those_drawn_step_by_step(monkeypatch):
    numbers = {}
    for count in (1, 1 << 14):
        monkeypatch.setattr(stacked_network, "NUMBERS_PER_DRAW", count)
        stack = stack_of([0, 1])
        numbers[count] = torch.stack([stack.draw_numbers() for _ in range(9)])
    first, second = numbers.values()
    assert torch.equal(first, second) and len(first.unique(dim=0)) == 9


def test_one_network_is_no_stack():
    with pytest.raises(ValueError, match="at least two"):
        StackedNetwork([Drawing()])


class Normed(Network):
    """A batch norm that is trained, between two convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=0.3), nn.Conv2d(5, 2, 2)

    def forward(self, flow):
        return {"logits": self.last(self.norm(self.first(flow)).relu()).mean((2, 3))}


def test_a_batch_norm_is_each_slots_own():
    torch.manual_seed(0)
    networks = [Normed().double() for _ in range(3)]
    for network in networks:
        nn.init.normal_(network.norm.weight)
    stack, flow = StackedNetwork(networks), torch.randn(3, 8, 3, 4, 4, dtype=torch.float64)
    for _ in range(2):
        stack(flow=flow)["logits"].square().sum().backward()
        for network, own in zip(networks, flow):
            network(own)["logits"].square().sum().backward()
    names = [name for name, _ in networks[0].named_parameters()]
    for slot, network in enumerate(networks):
        for name in names:
            torch.testing.assert_close(stack.slots.get_parameter(name).grad[slot], network.get_parameter(name).grad)
        for name, buffer in network.named_buffers():
            torch.testing.assert_close(stack.slots.get_buffer(name)[slot], buffer)
    stack.eval()
    for slot, network in enumerate(networks):
        expected = network.eval()(flow[slot])["logits"]
        torch.testing.assert_close(stack(flow=flow)["logits"][slot], expected)
        torch.testing.assert_close(stack.slot_outputs(slot, {"flow": flow})["logits"], expected)
