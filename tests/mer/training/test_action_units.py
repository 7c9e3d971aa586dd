import pytest
import torch
from torch.nn import functional

from mer.models.ahmsa_net import AHMSANet
from mer.models.htnet import HTNet
from mer.models.mfvan import MFVAN
from mer.models.off_apexnet import OFFApexNet
from mer.models.rcn import RCN
from mer.models.ststnet import STSTNet
from mer.training.action_units import ACTION_UNITS, action_unit_loss, network_outputs
from mer.training.mfvan_task import MFVANTask
from mer.training.stacked_task import StackedTask
from mer.training.task import Task

UNITS = len(ACTION_UNITS)
OUTPUTS = network_outputs(3, 0.5)


def batch_of(clips: int = 6) -> dict:
    draws = torch.Generator().manual_seed(0)
    flow = torch.randn(clips, 3, 28, 28, generator=draws)
    return {"flow": flow, "target": torch.arange(clips) % 3, "clip": torch.arange(clips)}


def targets_of(clips: int = 6) -> torch.Tensor:
    """Clips with and without codes in turn; the last action unit is too rare to be learned."""
    targets = torch.randint(2, (clips, UNITS), generator=torch.Generator().manual_seed(1)).float()
    targets[1::2], targets[:, -1] = -1, -1
    return targets


def test_the_loss_is_the_mean_over_clips_with_codes():
    logits, targets = torch.randn(6, UNITS), targets_of()
    known = functional.binary_cross_entropy_with_logits(logits[::2, :-1], targets[::2, :-1])
    torch.testing.assert_close(action_unit_loss(logits, targets), known)
    assert action_unit_loss(logits, torch.full_like(targets, -1)) == 0


def test_only_clips_with_codes_teach_the_network():
    task, batch = Task(STSTNet(OUTPUTS, dropout=0), action_units=0.5).eval(), batch_of()
    task.unit_targets = targets_of()
    batch["flow"].requires_grad_()
    weights = task.network.get_parameter("streams.0.weight"), task.network.get_parameter("head.weight")
    term = task.loss(task(batch), batch)["action_units"]
    flow, first, last = torch.autograd.grad(term, [batch["flow"], *weights])
    assert flow.flatten(1).any(1).tolist() == [True, False] * 3
    assert first.any()
    assert last.any(1).tolist() == [False] * 3 + [True] * (UNITS - 1) + [False]


def test_a_batch_without_codes_teaches_the_classes_alone():
    task, batch = Task(STSTNet(OUTPUTS, dropout=0), action_units=0.5), batch_of()
    task.unit_targets = torch.full((6, UNITS), -1.0)
    terms = task.loss(task(batch), batch)
    gradients = torch.autograd.grad(terms["action_units"], list(task.parameters()))
    assert terms["action_units"] == 0 < terms["classes"]
    assert not any(gradient.any() for gradient in gradients)


def test_its_weight_is_the_weight_of_the_term():
    batch, terms = batch_of(), []
    for weight in (0.5, 1.5):
        torch.manual_seed(0)
        task = Task(STSTNet(OUTPUTS, dropout=0), action_units=weight)
        task.unit_targets = targets_of()
        terms.append(task.loss(task(batch), batch))
    assert terms[0]["classes"] == terms[1]["classes"]
    torch.testing.assert_close(terms[0]["action_units"] * 3, terms[1]["action_units"])


def test_without_a_weight_there_are_only_classes():
    task, batch = Task(STSTNet(network_outputs(3, 0))), batch_of()
    assert task(batch).keys() == {"logits"} and task.loss(task(batch), batch).keys() == {"classes"}


@pytest.mark.parametrize("network", [AHMSANet, HTNet, OFFApexNet, RCN, STSTNet])
def test_every_network_of_flow_has_both_outputs(network):
    tasks, batch = [Task(network(OUTPUTS), action_units=0.5).eval() for _ in range(2)], batch_of()
    outputs = tasks[0](batch)
    assert outputs["logits"].shape == (6, 3) and outputs["action_units"].shape == (6, UNITS)
    assert torch.equal(
        torch.cat([outputs["logits"], outputs["action_units"]], 1), tasks[0].network(batch["flow"])["logits"]
    )
    torch.testing.assert_close(tasks[0].predict_step(batch).sum(1), torch.ones(6))
    stack = StackedTask(tasks, noise=(0, 1)).eval()
    both = {name: torch.stack([x, x]) for name, x in batch.items()}
    torch.testing.assert_close(stack.predict_step(both)[1], tasks[1].predict_step(batch), atol=1e-5, rtol=0)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="MFVAN's joint loss has no action units"):
        MFVANTask(MFVAN(3, 32, encoder="test_resnet", grid=2), action_units=0.5)
    with pytest.raises(ValueError, match="action_units -1 must be 0 or more"):
        Task(STSTNet(3), action_units=-1)
