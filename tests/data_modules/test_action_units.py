import pandas as pd
import pytest
import torch

from data_modules.action_units import FEWEST, check_coded, parse, training_targets
from data_modules.flow_maps import FlowMaps
from data_modules.fold import FoldDataModule
from data_modules.stacked import StackedDataModule
from mer import InputError
from mer.training.action_units import ACTION_UNITS

CODES = ["4+7"] * 3 + ["L4B", "4+L10", "R12", "?", ""]


def of(targets: torch.Tensor, row: int, unit: int) -> float:
    return targets[row, ACTION_UNITS.index(unit)].item()


@pytest.mark.parametrize(
    ("code", "units"),
    [
        ("4+L7", {4, 7}),
        ("R12", {12}),
        ("4B", {4}),
        ("12A+ref(24)", {12, 24}),
        ("10A/B", {10}),
        ("?", set()),
        ("", set()),
    ],
)
def test_a_code_is_the_numbers_in_it(code, units):
    assert parse(code) == units


def test_a_fold_learns_what_enough_of_its_training_clips_have():
    clips = pd.DataFrame({"action_units": CODES})
    targets = training_targets(clips, range(8))
    assert targets.shape == (8, len(ACTION_UNITS)) and targets.dtype == torch.float32
    assert [of(targets, row, 4) for row in range(8)] == [1, 1, 1, 1, 1, 0, -1, -1]
    assert FEWEST == 5 and (targets[:, [ACTION_UNITS.index(unit) for unit in (7, 10, 12)]] == -1).all()


def test_held_out_clips_teach_nothing():
    clips = pd.DataFrame({"action_units": ["4"] * 6 + ["12"]})
    rows = [0, 1, 2, 3, 4, 6]
    targets = training_targets(clips, rows)
    assert (targets[5] == -1).all() and [of(targets, row, 4) for row in rows] == [1, 1, 1, 1, 1, 0]
    assert torch.equal(training_targets(clips.replace({5: "12"}), rows), targets)
    assert (training_targets(clips, rows[1:]) == -1).all()  # four clips are left that have it


def test_clips_without_the_column_have_no_codes():
    assert (training_targets(pd.DataFrame({"clip": ["a", "b"]}), [0, 1]) == -1).all()


def test_data_without_codes_are_refused():
    check_coded(pd.DataFrame({"action_units": CODES}))
    for codes in (CODES[1:], ["?"] * 9):
        with pytest.raises(InputError, match=r"no action unit is coded in 5 of the \d clips.*column action_units"):
            check_coded(pd.DataFrame({"action_units": codes}))


def test_flow_maps_read_the_column(own_flow_maps):
    clips = pd.read_csv(own_flow_maps / "clips.csv")
    clips["action_units"] = clips["emotion"].map({"negative": "4+7", "positive": "L12", "surprise": ""})
    clips.to_csv(own_flow_maps / "clips.csv", index=False)
    data = FlowMaps(root=str(own_flow_maps))
    data.hold_out("smic-s1", seed=0)
    assert (FoldDataModule(data).unit_targets == -1).all()  # four clips have each unit
    data.hold_out("nobody", seed=0)
    targets = FoldDataModule(data).unit_targets
    for row, emotion in enumerate(clips["emotion"]):
        assert of(targets, row, 12) == {"negative": 0, "positive": 1, "surprise": -1}[emotion]


def test_every_slot_of_a_stack_has_the_targets_of_its_fold(own_flow_maps):
    clips = pd.read_csv(own_flow_maps / "clips.csv").assign(action_units="4")
    clips.to_csv(own_flow_maps / "clips.csv", index=False)
    data, slots = FlowMaps(root=str(own_flow_maps)), [("smic-s1", 0), ("smic-s3", 0), ("nobody", 1)]
    data.setup()
    stack, alone = StackedDataModule(data, slots), []
    for fold, seed in slots:
        data.hold_out(fold, seed)
        alone.append(FoldDataModule(data).unit_targets)
        stack.streams = [*getattr(stack, "streams", []), data.train_dataloader()]
    assert torch.equal(stack.unit_targets, torch.stack(alone))
    assert [int((targets == 1).sum()) for targets in alone] == [12, 12, 18]
