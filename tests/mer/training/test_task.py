import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from mer.training.task import Task
from mer.transforms import normalise_flow


class Linear(nn.Module):
    inputs = ("flow",)

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 3)

    def forward(self, flow):
        return {"logits": self.layer(flow.flatten(1))}


def batch_of(clips: int = 6) -> dict:
    draws = torch.Generator().manual_seed(0)
    return {"flow": torch.randn(clips, 3, 8, 8, generator=draws), "target": torch.arange(clips) % 3}


def rates(**settings) -> list[float]:
    """Learning rate at each of 20 steps."""
    task = Task(Linear(), lr=1.0, **settings)
    seen = []
    task.on_train_batch_start = lambda *_: seen.append(task.optimizers().param_groups[0]["lr"])
    clips = [{name: tensor[0] for name, tensor in batch_of().items()}] * 20
    trainer = Trainer(
        max_steps=20, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, DataLoader(clips, batch_size=1))
    return seen


def test_the_rate_rises_then_falls_to_nothing():
    seen = rates(warmup=0.25)
    assert seen[:6] == sorted(seen[:6]) and max(seen) == 1.0 and seen[5:] == sorted(seen[5:], reverse=True)
    assert seen[-1] < 0.02


def test_a_constant_rate_stays():
    assert rates(warmup=0.0, schedule="constant") == [1.0] * 20


def test_vectors_do_not_decay():
    task = Task(Linear(), weight_decay=0.1)
    task.trainer = Trainer(max_steps=5, logger=False, enable_checkpointing=False)
    groups = task.configure_optimizers()["optimizer"].param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.0), (1, 0.1)]


def test_a_prediction_does_not_depend_on_the_other_clips():
    task, batch = Task(Linear()).eval(), batch_of()
    alone = torch.cat([task.predict_step({"flow": flow[None]}) for flow in batch["flow"]])
    assert torch.allclose(task.predict_step(batch), alone, atol=1e-6)
    assert torch.allclose(alone.sum(1), torch.ones(len(alone)))


@pytest.mark.parametrize("unit", [0.2, 1.0, 30.0])
def test_scaling_forgets_the_unit_and_the_drift(unit):
    flow = batch_of()["flow"]
    moved = flow * unit
    moved[:, :2] += 0.7 * unit
    assert torch.allclose(normalise_flow(moved), normalise_flow(flow), atol=1e-4)


def test_maps_of_one_clip_are_scaled_each_by_itself():
    forth, back = batch_of()["flow"], 7 * batch_of()["flow"].flip(-1)
    both = normalise_flow(torch.cat([forth, back], dim=1))
    assert torch.equal(both, torch.cat([normalise_flow(forth), normalise_flow(back)], dim=1))


def test_scaling_a_still_face_is_finite():
    assert normalise_flow(torch.zeros(2, 3, 8, 8)).isfinite().all()
