import os

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from data_modules.batches import Augmentation, generator
from data_modules.flow_maps import FlowMaps
from data_modules.map_files import read_map
from mer import InputError
from mer.flow import strain
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


def painted(kind: type, **colours: float) -> np.ndarray:
    """A picture as OpenCV writes it; half of it has these colours, the rest is 0."""
    picture = np.zeros((28, 30, 3), kind)
    picture[:, :14] = [colours[name] for name in ("blue", "green", "red")]
    return picture


class TestFormats:
    """u -.5, v .25 and strain .1 in every format that is read; others are refused by name."""

    def read(self, path) -> list[float]:
        flow = read_map(path)
        assert flow.shape == (3, 28, 30) and flow.dtype == np.float32
        return flow[:, 5, 5].tolist()

    @pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
    def test_pictures_are_scaled_by_their_type(self, tmp_path, name):
        kind, most = (np.uint8, 255) if name == "a.bmp" else (np.uint16, 65535)
        cv2.imwrite(str(tmp_path / name), painted(kind, red=0.25 * most, green=0.625 * most, blue=0.1 * most))
        assert self.read(tmp_path / name) == pytest.approx([-0.5, 0.25, 0.1], abs=2 / most)

    def test_kitti_has_pixels_and_says_where_they_are_known(self, tmp_path):
        kitti = painted(np.uint16, red=2**15 - 32, green=2**15 + 16, blue=1)
        cv2.imwrite(str(tmp_path / "a.png"), kitti)
        assert self.read(tmp_path / "a.png") == [-0.5, 0.25, 0]
        flow = read_map(tmp_path / "a.png")
        assert not flow[:2, :, 14:].any() and np.array_equal(flow[2], strain(flow[:2])) and flow[2].any()

    def test_arrays_are_read_for_what_they_are(self, tmp_path):
        flow = np.random.default_rng(0).normal(0, 2, (3, 28, 30)).astype(np.float32)
        cv2.writeOpticalFlow(str(tmp_path / "a.flo"), np.ascontiguousarray(flow[:2].transpose(1, 2, 0)))
        for name, array in {"b": flow[:2], "c": flow[:2].transpose(1, 2, 0), "d": flow.astype(np.float64)}.items():
            np.save(tmp_path / f"{name}.npy", array)
        for name in ("a.flo", "b.npy", "c.npy", "d.npy"):
            read = read_map(tmp_path / name)
            assert np.array_equal(read[:2], flow[:2])
            assert np.array_equal(read[2], flow[2] if name == "d.npy" else strain(flow[:2]))

    def test_what_holds_no_flow_is_refused(self, tmp_path):
        grey = np.random.default_rng(0).integers(0, 255, (28, 30), np.uint8)
        cv2.imwrite(str(tmp_path / "grey.png"), grey)
        cv2.imwrite(str(tmp_path / "three_times_the_same.png"), np.repeat(grey[..., None], 3, 2))
        cv2.imwrite(str(tmp_path / "float.tif"), painted(np.float32, red=-0.5, green=0.25, blue=0.1))
        np.save(tmp_path / "whole_numbers.npy", np.zeros((2, 28, 30), int))
        np.save(tmp_path / "flat.npy", np.zeros((28, 30)))
        np.save(tmp_path / "unknown.npy", np.full((2, 28, 30), np.nan))
        np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
        (tmp_path / "cut.flo").write_bytes(b"PIEH" + np.array([2**30, 2**30], np.int32).tobytes())
        (tmp_path / "cut.npy").write_bytes((tmp_path / "unknown.npy").read_bytes()[:-9])
        (tmp_path / "empty.npy").write_bytes(b"")
        for path in tmp_path.iterdir():
            with pytest.raises(InputError, match=path.name):
                read_map(path)

    def test_maps_of_several_formats_are_one_dataset(self, own_flow_maps):
        np.save(own_flow_maps / "maps/s1_0.npy", np.ones((2, 28, 28), np.float32))
        respell(own_flow_maps, lambda clips: clips.replace("maps/s1_0.png", "maps/s1_0.npy"))
        assert data_of(own_flow_maps).store["flow"].shape == (18, 3, 28, 28)


def respell(root, change) -> None:
    clips = pd.read_csv(root / "clips.csv", dtype=str)
    change(clips).to_csv(root / "clips.csv", index=False)


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [
        ("dataset", str.upper, ("dataset 'SMIC' (line 2) and 'smic' (line 3)",)),
        ("subject", str.upper, ("subject 'S1' (line 2) and 's1' (line 3)", "'S3' (line 14)")),
        ("subject", lambda name: f"s00{name[1:]}", ("subject 's001' (line 2) and 's1' (line 3)", "'s003' (line 14)")),
    ],
)
def test_one_person_has_one_name(own_flow_maps, column, change, words):
    def every_second(clips):
        clips.loc[::2, column] = clips.loc[::2, column].map(change)
        return clips

    respell(own_flow_maps, every_second)
    with pytest.raises(InputError) as refused:
        data_of(own_flow_maps)
    assert all(word in str(refused.value) for word in words)


def test_blanks_around_a_name_are_no_part_of_it(own_flow_maps):
    before = data_of(own_flow_maps)

    def every_second(clips):
        clips.loc[::2, ["dataset", "subject"]] = " " + clips.loc[::2, ["dataset", "subject"]] + " "
        return clips

    respell(own_flow_maps, every_second)
    after = data_of(own_flow_maps)
    assert after.folds == before.folds and after.fingerprint == before.fingerprint


@pytest.mark.parametrize("way", ["written twice", "written otherwise", "linked"])
def test_two_rows_do_not_share_a_file(own_flow_maps, way):
    other = {"written twice": "maps/s1_0.png", "written otherwise": "./maps//s1_0.png", "linked": "maps/link.png"}[way]
    os.symlink("s1_0.png", own_flow_maps / "maps/link.png")
    respell(own_flow_maps, lambda clips: clips.replace("maps/s2_1.png", other))
    with pytest.raises(InputError, match=rf"line 9: file '{other}' is that of line 2"):
        data_of(own_flow_maps)


class TestBothMotions:
    """With the map from apex to offset, of the column ``file_return``."""

    @pytest.fixture
    def with_return(self, own_flow_maps):
        for path in sorted((own_flow_maps / "maps").iterdir()):
            back = cv2.imread(str(path))[::-1]
            cv2.imwrite(str(path.with_name(f"{path.stem}-return.png")), back)
        respell(own_flow_maps, lambda clips: clips.assign(file_return=clips["file"].str.replace(".png", "-return.png")))
        return own_flow_maps

    def test_it_has_channels_of_its_own(self, with_return):
        forth, both = data_of(with_return), data_of(with_return, motion="both", input_size=14)
        assert both.store["flow"].shape == both.dummy_batch()["flow"][:18].shape == (18, 6, 14, 14)
        forth, both = (data.load(data.clips)["flow"] for data in (forth, data_of(with_return, motion="both")))
        assert torch.equal(both[:, :3], forth) and torch.equal(both[:, 3:], forth.flip(-2))

    def test_it_is_part_of_the_data_only_where_it_is_read(self, with_return):
        forth, both = FlowMaps(root=str(with_return)), FlowMaps(root=str(with_return), motion="both")
        before = forth.fingerprint, both.fingerprint
        (with_return / "maps/s1_0-return.png").write_bytes(b"")
        forth, both = FlowMaps(root=str(with_return)), FlowMaps(root=str(with_return), motion="both")
        assert forth.fingerprint == before[0] != before[1] != both.fingerprint
        forth.prepare_data()
        with pytest.raises(InputError, match=r"s1_0-return\.png"):
            both.prepare_data()

    def test_the_column_is_needed(self, own_flow_maps):
        with pytest.raises(InputError, match=r"lacks the column\(s\) file_return;"):
            data_of(own_flow_maps, motion="both")

    def test_the_two_motions_do_not_share_a_file(self, own_flow_maps):
        respell(own_flow_maps, lambda clips: clips.assign(file_return=clips["file"]))
        with pytest.raises(InputError, match="line 2: file 'maps/s1_0.png' is that of line 2"):
            data_of(own_flow_maps, motion="both")


class TestOddMaps:
    def test_black_maps_are_named(self, own_flow_maps):
        cv2.imwrite(str(own_flow_maps / "maps/s1_0.png"), np.zeros((28, 28, 3), np.uint8))
        with pytest.warns(UserWarning, match="s1_0.png is all black"):
            FlowMaps(root=str(own_flow_maps)).prepare_data()

    def test_swapped_channels_are_noticed(self, own_flow_maps):
        assert FlowMaps(root=str(own_flow_maps)).problems == []
        for path in (own_flow_maps / "maps").iterdir():
            cv2.imwrite(str(path), cv2.imread(str(path))[..., ::-1])
        with pytest.warns(UserWarning, match="18 of 18 maps.*are they swapped"):
            FlowMaps(root=str(own_flow_maps)).prepare_data()


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


def test_all_maps_of_a_clip_are_mirrored():
    forth, back = torch.randn(2, 5, 3, 4, 4)
    both = mirror_flow(torch.cat([forth, back], dim=1))
    assert torch.equal(both, torch.cat([mirror_flow(forth), mirror_flow(back)], dim=1))


def test_flips_have_their_probability(flow_maps):
    batch = {"flow": torch.ones(4000, 3, 1, 1), "target": torch.zeros(4000)}
    for probability in (0.0, 0.3, 1.0):
        augmentation = Augmentation(("flow",), probability, 0)
        flow = augmentation.apply(batch, augmentation.draw(4000, generator("a test")))["flow"]
        assert (flow[:, 0] < 0).float().mean().item() == pytest.approx(probability, abs=0.03)
        assert flow[:, 1:].eq(1).all()
