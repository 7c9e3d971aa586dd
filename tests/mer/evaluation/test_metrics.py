import copy
import subprocess
import sys
import warnings

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from sklearn.metrics import f1_score, recall_score
from torch.utils.data import DataLoader, TensorDataset

import mer
from mer.evaluation import scoring
from mer.evaluation.metrics import UAR, UF1

# Counted by hand: 3 of 4 of class 0 are right and 1 of 2 of class 1, the others are swapped; class 2 is never there.
TARGET = torch.tensor([0, 0, 0, 0, 1, 1])
PREDICTIONS = torch.tensor([0, 0, 0, 1, 1, 0])
BY_HAND = {UF1: (6 / 8 + 2 / 4 + 0) / 3, UAR: (3 / 4 + 1 / 2 + 0) / 3}

SCIKIT_LEARN = {UF1: f1_score, UAR: recall_score}

both = pytest.mark.parametrize("metric", [UF1, UAR])


def score(metric, predictions, target, classes=3):
    measure = metric(num_classes=classes)
    measure.update(predictions, target)
    return measure.compute()


@st.composite
def batches(draw):
    """Predictions and targets of up to 7 classes, not all of which need be there, and their number."""
    classes = draw(st.integers(2, 7))
    pairs = draw(st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=40))
    predictions, target = torch.tensor(pairs).unbind(1)
    return predictions, target, classes


@both
def test_a_table_counted_by_hand_with_an_absent_class(metric):
    assert score(metric, PREDICTIONS, TARGET).item() == pytest.approx(BY_HAND[metric])


@both
@settings(max_examples=50, deadline=None)
@given(batches())
def test_against_scikit_learn(metric, batch):
    predictions, target, classes = batch
    expected = SCIKIT_LEARN[metric](
        target.numpy(), predictions.numpy(), labels=range(classes), average="macro", zero_division=0
    )
    assert score(metric, predictions, target, classes).item() == pytest.approx(expected)


@both
@settings(max_examples=50, deadline=None)
@given(batches())
def test_it_is_the_score_of_a_table_to_the_last_bit(metric, batch):
    predictions, target, classes = batch
    names = [f"class {code}" for code in range(classes)]
    table = pd.DataFrame({"target": [names[i] for i in target], "prediction": [names[i] for i in predictions]})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no clip of")
        expected = scoring.scores(table, names)[metric.__name__.lower()]
    value = score(metric, predictions, target, classes)
    assert value.dtype == torch.float64 and value.shape == () and value.item() == expected


@both
def test_updates_in_pieces_are_pooled(metric):
    draws = torch.Generator().manual_seed(0)
    target, predictions = torch.randint(5, (2, 97), generator=draws)
    pieces = metric(num_classes=5)
    for start, stop in [(0, 1), (1, 40), (40, 40), (40, 97)]:
        pieces.update(predictions[start:stop], target[start:stop])
    assert torch.equal(pieces.compute(), score(metric, predictions, target, 5))


@both
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_the_highest_logit_is_the_class(metric, kind):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).to(kind)
    logits[torch.arange(6), PREDICTIONS] = 9
    for outputs in (logits, logits.softmax(1)):
        assert torch.equal(score(metric, outputs, TARGET), score(metric, PREDICTIONS, TARGET))


@both
def test_small_integers_do_not_overflow(metric):
    codes = torch.arange(100)
    assert score(metric, codes.to(torch.uint8), codes.to(torch.int8), 100) == 1


@both
@pytest.mark.parametrize(
    "predictions, target, message",
    [
        (PREDICTIONS[:5], TARGET, r"\(5,\) and target \(6,\).*\(B,\) or \(B, 3\)"),
        (torch.zeros(6, 4), TARGET, r"\(6, 4\)"),
        (torch.zeros(6, 3, 1), TARGET, r"\(6, 3, 1\)"),
        (torch.zeros(6, 3), torch.zeros(6, 3), r"target \(6, 3\)"),
        (torch.tensor(0), torch.tensor(0), r"\(\)"),
        (PREDICTIONS.float(), TARGET, "predictions .* integers; they are torch.float32"),
        (PREDICTIONS, TARGET.float(), "target .* integers; they are torch.float32"),
        (PREDICTIONS + 2, TARGET, "predictions have the class 3; the 3 classes are 0 to 2"),
        (PREDICTIONS, TARGET - 1, "target have the class -1"),
    ],
)
def test_what_cannot_be_counted_is_refused_and_not_counted(metric, predictions, target, message):
    measure = metric(num_classes=3)
    with pytest.raises(ValueError, match=message):
        measure.update(predictions, target)
    assert measure.confusion.sum() == 0


@both
def test_a_score_of_one_class_is_refused(metric):
    with pytest.raises(ValueError, match="num_classes is 1"):
        metric(num_classes=1)


@both
def test_processes_are_pooled(metric):
    """As torchmetrics does between processes, whose states are gathered and reduced, here with another one's state."""
    other = metric(num_classes=3)
    other.update(PREDICTIONS[4:], TARGET[4:])
    measure = metric(
        num_classes=3,
        distributed_available_fn=lambda: True,
        dist_sync_fn=lambda state, group: [state, other.confusion],
    )
    measure.update(PREDICTIONS[:4], TARGET[:4])
    assert measure.compute().item() == pytest.approx(BY_HAND[metric])
    assert measure.confusion.sum() == 4  # each process keeps its own count


@both
def test_it_can_be_reset_in_inference_mode_and_used_outside(metric):
    measure = metric(num_classes=3)
    with torch.inference_mode():
        measure.update(TARGET, TARGET)
        measure.reset()
    measure.update(PREDICTIONS, TARGET)
    assert copy.deepcopy(measure).compute().item() == pytest.approx(BY_HAND[metric])


class Network(LightningModule):
    """A linear layer, scored by the metrics."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.uf1, self.uar = UF1(num_classes=3), UAR(num_classes=3)
        self.seen, self.logged = [], []

    def training_step(self, batch, index):
        inputs, target = batch
        return torch.nn.functional.cross_entropy(self.layer(inputs), target)

    def validation_step(self, batch, index):
        inputs, target = batch
        logits = self.layer(inputs)
        for name, metric in {"val/uf1": self.uf1, "val/uar": self.uar}.items():
            metric.update(logits, target)
            self.log(name, metric)
        self.seen.append((logits.argmax(1), target))

    def on_validation_end(self):
        self.logged.append({name: value.item() for name, value in self.trainer.callback_metrics.items()})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def test_a_lightning_module_logs_the_score_of_the_whole_epoch(tmp_path):
    draws = torch.Generator().manual_seed(0)
    target = torch.randint(3, (25,), generator=draws)
    data = TensorDataset(torch.randn(25, 4, generator=draws) + target[:, None], target)
    loader = DataLoader(data, batch_size=4)
    network = Network()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(network, loader, loader)
    epochs = [network.seen[:7], network.seen[7:]]
    assert len(network.logged) == 2 and len(network.seen) == 14
    for logged, epoch in zip(network.logged, epochs):
        predictions, targets = (torch.cat(tensors) for tensors in zip(*epoch))
        for name, metric in {"val/uf1": UF1, "val/uar": UAR}.items():
            assert logged[name] == pytest.approx(score(metric, predictions, targets).item(), abs=1e-6)


def test_mer_offers_the_metrics_and_imports_torch_for_nothing_else():
    assert mer.UF1 is UF1 and mer.UAR is UAR
    with pytest.raises(AttributeError, match="UF2"):
        mer.UF2  # noqa: B018
    code = (
        "import sys, mer, mer.evaluation.scoring, mer.evaluation.significance; "
        "print([name for name in ('torch', 'torchmetrics', 'lightning') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
