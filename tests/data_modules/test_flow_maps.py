import cv2
import numpy as np
import pytest
import torch

from data_modules.base import generator
from data_modules.batches import Augmentation
from data_modules.flow_maps import FlowMaps
from mer.transforms import mirror_flow


def data_of(root, **settings) -> FlowMaps:
    data = FlowMaps(root=str(root), **settings)
    data.setup()
    data.hold_out("smic-s2", seed=0)
    return data


def test_pixels_become_u_v_and_strain(own_flow_maps):
    blue_green_red = np.zeros((28, 28, 3), np.uint8)
    blue_green_red[..., 0], blue_green_red[..., 1], blue_green_red[..., 2] = 51, 255, 0
    cv2.imwrite(str(own_flow_maps / "maps/s1_0.png"), blue_green_red)
    data = data_of(own_flow_maps)
    first = data.load(data.clips)["flow"][0]
    assert first.amax((1, 2)).tolist() == pytest.approx([-1.0, 1.0, 0.2])


def test_pictures_of_another_size_are_resampled(own_flow_maps):
    cv2.imwrite(str(own_flow_maps / "maps/s1_0.png"), np.full((56, 40, 3), 255, np.uint8))
    data = data_of(own_flow_maps)
    flow = data.load(data.clips)["flow"]
    assert flow.shape == (18, 3, 28, 28) and flow[0].eq(1).all()
    assert data_of(own_flow_maps, input_size=56).store["flow"].shape == (18, 3, 56, 56)


def test_folds_hold_every_clip_once_and_subjects_are_apart(flow_maps):
    data = data_of(flow_maps)
    rows = [row for fold in data.folds.values() for row in fold]
    assert sorted(rows) == list(range(18))
    for fold in data.folds:
        data.hold_out(fold, seed=0)
        train = set(data.train_dataloader().rows.tolist())
        (test,) = data.test_dataloader()
        assert train.isdisjoint(test["clip"].tolist()) and len(train) + len(test["clip"]) == 18
        assert set(data.clips["subject"][sorted(train)]).isdisjoint(data.clips["subject"][test["clip"].tolist()])


def test_the_order_depends_on_seed_and_fold_alone(flow_maps):
    def order(fold: str, seed: int) -> list:
        data = data_of(flow_maps)
        data.hold_out(fold, seed)
        return [batch["clip"].tolist() for batch in data.train_dataloader()]

    assert order("smic-s1", 0) == order("smic-s1", 0) != order("smic-s1", 1)


def test_a_mirrored_face_moves_the_other_way():
    flow = torch.randn(2, 3, 4, 4)
    turned = mirror_flow(flow)
    assert torch.equal(turned[:, 0], -flow[:, 0].flip(-1)) and torch.equal(turned[:, 1:], flow[:, 1:].flip(-1))
    assert torch.equal(mirror_flow(turned), flow)


def test_flips_have_their_probability(flow_maps):
    batch = {"flow": torch.ones(4000, 3, 1, 1), "target": torch.zeros(4000)}
    for probability in (0.0, 0.3, 1.0):
        augmentation = Augmentation(("flow",), probability, 0)
        flow = augmentation.apply(batch, augmentation.draw(4000, generator("a test")))["flow"]
        assert (flow[:, 0] < 0).float().mean().item() == pytest.approx(probability, abs=0.03)
        assert flow[:, 1:].eq(1).all()
