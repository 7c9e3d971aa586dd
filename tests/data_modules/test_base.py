import pytest
import torch

from data_modules.batches import Augmentation, Batches, generator, spread_maps
from mer.transforms import resize, shift


class TestBatches:
    def test_every_batch_is_full_and_every_pass_holds_every_row(self):
        batches = Batches({"target": torch.arange(10)}, [1, 3, 5, 7, 9], 2, generator("a test"))
        seen = [row for _ in range(2) for batch in batches for row in batch["target"].tolist()]
        assert len(seen) == 2 * 3 * 2 and sorted(seen[:5]) == sorted(seen[5:10]) == [1, 3, 5, 7, 9]

    def test_a_batch_may_be_larger_than_the_data(self):
        (batch,) = Batches({"target": torch.arange(3)}, [0, 1, 2], 7)
        assert sorted(batch["target"].tolist()[:3]) == [0, 1, 2] and len(batch["target"]) == 7

    def test_any_row_of_a_clip_is_drawn_in_training_and_the_first_in_a_test(self):
        flow = torch.arange(10.0)[:, None, None, None] + torch.arange(12)[:, None, None] / 12
        store = {"flow": flow, "clip": torch.arange(10), "target": torch.arange(10)}
        spread = spread_maps(store)
        assert spread["flow"].shape == (40, 3, 1, 1) and torch.equal(spread["flow"][:10], flow[:, :3])
        stream = Batches(spread, [1, 2, 4], 3, generator("rows"))
        stream.rows_of_clip = 4
        batches = [batch for _ in range(60) for batch in stream]
        assert all(sorted(batch["clip"].tolist()) == [1, 2, 4] for batch in batches)
        assert all(batch["flow"].flatten(1)[:, 0].int().equal(batch["clip"].int()) for batch in batches)
        drawn = torch.cat([batch["flow"].flatten(1) for batch in batches]).unique(dim=0)
        assert torch.equal(drawn, flow[[1, 2, 4]].view(12, 3))  # all maps of these clips and no others
        (test,) = Batches(spread, [1, 2, 4])
        assert torch.equal(test["flow"], flow[[1, 2, 4], :3])

    def test_weights_make_rare_classes_as_frequent(self):
        targets = torch.tensor([0] * 90 + [1] * 9 + [2])
        weights = 1 / torch.bincount(targets)[targets]
        batches = Batches({"target": targets}, list(range(100)), 50, generator("a"), weights)
        drawn = torch.cat([batch["target"] for _ in range(50) for batch in batches])
        assert torch.bincount(drawn) / len(drawn) == pytest.approx([1 / 3] * 3, abs=0.03)
        again = Batches({"target": targets}, list(range(100)), 50, generator("a"), weights)
        assert torch.equal(drawn[:50], next(iter(again))["target"])


class TestAugment:
    @pytest.fixture
    def batch(self):
        draws = torch.Generator().manual_seed(0)
        pictures = {"onset": (8, 3, 9, 9), "frames": (8, 2, 3, 9, 9)}
        batch = {name: torch.randint(256, size, dtype=torch.uint8, generator=draws) for name, size in pictures.items()}
        return {**batch, "flow": torch.randn(8, 3, 9, 9, generator=draws), "target": torch.zeros(8)}

    def changed(self, batch, **options):
        augmentation = Augmentation(("flow", "onset", "frames"), **{"flip": 0.5, "shift": 0} | options)
        return augmentation.apply(batch, augmentation.draw(8, generator("a")))

    def test_all_inputs_of_a_clip_are_flipped_together(self, batch):
        seen = self.changed(batch, flip=0.5)
        flipped = [not torch.equal(old, new) for old, new in zip(batch["onset"], seen["onset"])]
        assert 0 < sum(flipped) < 8
        for clip, turned in enumerate(flipped):
            sign = torch.tensor([-1.0, 1, 1])[:, None, None] if turned else 1
            for name in ("flow", "onset", "frames"):
                there = batch[name][clip].flip(-1) if turned else batch[name][clip]
                assert torch.equal(seen[name][clip], there * sign if name == "flow" else there)

    def test_all_inputs_of_a_clip_are_shifted_together(self, batch):
        batch["onset"] = batch["frames"][:, 0] = batch["flow"].abs().mul(50).to(torch.uint8)
        seen = self.changed(batch, flip=0.0, shift=2)
        assert not torch.equal(seen["onset"], batch["onset"])
        assert torch.equal(seen["frames"][:, 0], seen["onset"])
        assert torch.equal(seen["flow"].abs().mul(50).to(torch.uint8), seen["onset"])


def test_a_shift_moves_by_whole_pixels():
    maps = torch.arange(16.0).view(1, 1, 4, 4).repeat(2, 3, 1, 1)
    shifted = shift(maps, torch.tensor([1, 0]), torch.tensor([0, -2]))
    assert torch.equal(shifted[0, :, 1:], maps[0, :, :3]) and torch.equal(shifted[0, :, 0], maps[0, :, 0])
    assert torch.equal(shifted[1, :, :, :2], maps[1, :, :, 2:]) and torch.equal(shifted[1, :, :, 3], maps[1, :, :, 3])


def test_pictures_stay_bytes_when_resampled():
    pictures = torch.tensor([0, 255, 2, 255], dtype=torch.uint8).view(1, 1, 1, 2, 2).expand(2, 3, 1, 2, 2)
    assert resize(pictures, 1).tolist() == [[[[[128]]]] * 3] * 2
    assert resize(pictures, 4).dtype == torch.uint8 and resize(pictures.float(), 4).shape == (2, 3, 1, 4, 4)
