"""Every network keeps the model's contract; what each publishes about itself holds."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, stack_module_state, vmap

from mer.models.ahmsa_net import AHMSANet
from mer.models.hsta import HSTA
from mer.models.htnet import HTNet, cut, join
from mer.models.mfvan import MFVAN
from mer.models.off_apexnet import OFFApexNet
from mer.models.rcn import RCN, AttentionUnit, RecurrentConvolution
from mer.models.ststnet import STSTNet
from mer.models.timm_baseline import TimmBaseline
from mer.transforms import MIRRORS

NETWORKS = {
    "ahmsa_net": (AHMSANet, {}),
    "ahmsa_net-transposed": (AHMSANet, {"channel": "transposed"}),
    "hsta": (HSTA, {"size": 34, "stages": 2}),
    "hsta-flow": (HSTA, {"size": 34, "stages": 1, "special": "flow"}),
    "htnet": (HTNet, {}),
    "htnet-released": (HTNet, {"patch": 7, "dim": 16, "depths": (1, 1, 2)}),
    "mfvan": (MFVAN, {"size": 32, "encoder": "test_resnet", "grid": 2}),
    "mfvan-onset": (MFVAN, {"size": 32, "encoder": "test_resnet", "grid": 2, "identity": "onset"}),
    "off_apexnet": (OFFApexNet, {"hidden": 64}),
    "rcn": (RCN, {}),
    "ststnet": (STSTNet, {}),
    "timm_baseline": (TimmBaseline, {"name": "resnet10t"}),
}
"""Class and arguments of each network; the size is 28 unless they say another."""
NETWORKS |= {
    f"{name}-both": (network, {**arguments, "flow_channels": 6})
    for name, (network, arguments) in NETWORKS.items()
    if network.reads(**arguments)[0] == "flow" and name not in ("ahmsa_net-transposed", "htnet-released")
}

SHAPES = {"onset": (3,), "apex": (3,), "frames": (4, 3)}
"""Of one clip, before height and width."""


def batch_for(network, size, flow_channels=3):
    """The inputs of four clips, of about the range that scaling gives them."""
    draws, shapes = torch.Generator().manual_seed(0), {**SHAPES, "flow": (flow_channels,)}
    return {name: torch.randn(4, *shapes[name], size, size, generator=draws) for name in network.inputs}


@pytest.fixture(params=NETWORKS)
def build(request):
    """How to make one of the networks, its weights seeded."""
    network, arguments = NETWORKS[request.param]

    def make(num_classes: int = 3, seed: int = 0):
        torch.manual_seed(seed)
        return network(num_classes, **arguments)

    make.arguments = arguments
    return make


@pytest.fixture
def batch(build):
    """Four clips for the network."""
    return batch_for(build(), build.arguments.get("size", 28), build.arguments.get("flow_channels", 3))


@pytest.fixture
def flow():
    """Four scaled flow maps."""
    return torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))


class TestEveryNetwork:
    def test_declares_what_it_reads(self, build):
        network = build()
        assert network.inputs == type(network).reads(**build.arguments)
        assert set(network.inputs) <= set(MIRRORS)
        assert network.revision >= 1

    @pytest.mark.parametrize("num_classes", [3, 7])
    def test_gives_a_logit_per_class(self, build, batch, num_classes):
        logits = build(num_classes)(**batch)["logits"]
        assert logits.shape == (4, num_classes)
        assert logits.isfinite().all()

    def test_every_parameter_gets_a_gradient(self, build, batch):
        network = build().eval()  # no dropout or drop-path: nothing is left out by chance
        for weight in network.parameters():  # timm starts some at zero, which stops what lies below them
            weight.data.add_(0.01)
        F.cross_entropy(network(**batch)["logits"], torch.tensor([0, 1, 2, 0])).backward()
        silent = {name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()}
        # What serves MFVAN's own loss alone: test_mfvan.py has its gradients.
        assert {name.split(".")[0] for name in silent} <= {"decoder", "identities", "attentions", "heads"}
        assert not silent or isinstance(network, MFVAN)

    def test_the_seed_decides_the_weights(self, build):
        weights, again, others = (torch.nn.utils.parameters_to_vector(build(3, s).parameters()) for s in (0, 0, 1))
        assert torch.equal(weights, again)
        assert not torch.equal(weights, others)

    def test_clips_do_not_see_one_another(self, build, batch):
        network = build().eval()
        together = network(**batch)["logits"]
        alone = [network(**{name: clips[i : i + 1] for name, clips in batch.items()})["logits"] for i in range(4)]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)

    def test_reads_every_flow_map(self, build, batch):
        network = build().eval()
        for weight in network.parameters():
            weight.data.add_(0.01)
        batch = {name: clips.requires_grad_() for name, clips in batch.items()}
        network(**batch)["logits"].square().sum().backward()
        if "flow" in batch:
            motion = batch["flow"].grad.unflatten(1, (-1, 3))[:, :, :2]
            assert motion.flatten(3).any(-1).all()

    def test_trains_in_bfloat16(self, build, batch):
        network = build()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(**batch)["logits"].float(), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        assert loss.isfinite()
        assert all(weight.grad.isfinite().all() for weight in network.parameters() if weight.grad is not None)

    def test_stacked_equals_one_by_one(self, build, batch):
        networks = [build(seed=seed).eval() for seed in (0, 1)]
        weights, buffers = stack_module_state(networks)
        pairs = {name: torch.stack([clips, clips.flip(0)]) for name, clips in batch.items()}
        stacked = vmap(lambda w, b, x: functional_call(networks[0], (w, b), (), x)["logits"])(weights, buffers, pairs)
        alone = [
            network(**{name: clips[i] for name, clips in pairs.items()})["logits"] for i, network in enumerate(networks)
        ]
        torch.testing.assert_close(stacked, torch.stack(alone), atol=1e-5, rtol=1e-4)

    def test_stacked_networks_train(self, build, batch):
        networks = [build(seed=seed) for seed in (0, 1)]
        weights, buffers = stack_module_state(networks)

        def loss(w, b, x):
            return F.cross_entropy(functional_call(networks[0], (w, b), (), x)["logits"], torch.tensor([0, 1, 2, 0]))

        pairs = {name: torch.stack([clips, clips]) for name, clips in batch.items()}
        gradients = vmap(torch.func.grad(loss), randomness="different")(weights, buffers, pairs)
        assert all(gradient.isfinite().all() for gradient in gradients.values())


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


def check_attention(network, flow):
    """It shows a map a clip from 0 to 1, and the same logits."""
    outputs = network.eval()(flow, attention=True)
    assert outputs["attention"].shape == (4, 28, 28)
    assert outputs["attention"].amin((1, 2)).tolist() == [0] * 4
    assert outputs["attention"].amax((1, 2)).tolist() == [1] * 4
    assert not outputs["attention"].requires_grad
    torch.testing.assert_close(outputs["logits"], network(flow)["logits"])


class TestSTSTNet:
    def test_has_the_parameters_of_its_description(self):
        assert parameters(STSTNet(3)) == 1683

    @pytest.mark.parametrize("size", [4, 27, 28, 29, 56])
    def test_takes_other_sizes(self, size):
        assert STSTNet(5, size)(torch.zeros(2, 3, size, size))["logits"].shape == (2, 5)

    @pytest.mark.parametrize("size", [-28, 0, 3])
    def test_refuses_a_map_that_pooling_would_empty(self, size):
        with pytest.raises(ValueError, match=f"at least 4, not {size}"):
            STSTNet(3, size)

    def test_refuses_a_stream_without_kernels(self):
        with pytest.raises(ValueError, match="at least one kernel"):
            STSTNet(3, kernels=(3, 0))


class TestOFFApexNet:
    def test_has_the_parameters_that_others_count(self):
        assert parameters(OFFApexNet(3)) == 2_664_475

    @pytest.mark.parametrize("size", [4, 27, 28, 56])
    def test_takes_other_sizes(self, size):
        assert OFFApexNet(5, size, hidden=8)(torch.zeros(2, 3, size, size))["logits"].shape == (2, 5)

    def test_its_streams_read_one_flow_each_and_no_strain(self, flow):
        streams = OFFApexNet(3, hidden=8).streams
        horizontal, vertical = flow[:, :2].clone(), flow[:, :2].clone()
        horizontal[:, 0] += 1
        vertical[:, 1] += 1
        seen = streams(flow[:, :2])
        assert torch.equal(streams(horizontal)[:, 16:], seen[:, 16:])
        assert torch.equal(streams(vertical)[:, :16], seen[:, :16])
        strained = flow.clone()
        strained[:, 2] += 1
        network = OFFApexNet(3, hidden=8)
        assert torch.equal(network(strained)["logits"], network(flow)["logits"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [({"size": 3}, "at least 4, not 3"), ({"kernels": (6, 0)}, "kernels="), ({"hidden": 0}, "hidden=0")],
    )
    def test_refuses_what_would_be_empty(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            OFFApexNet(3, **arguments)


class TestRCN:
    def test_passes_and_the_attention_unit_cost_next_to_no_parameters(self):
        assert parameters(RCN(3)) == 3 * 25 * 16 + 2 * 9 * 16 * 16 + 5 * 2 * 16 + 3 * 17
        assert parameters(RCN(3, passes=4)) - parameters(RCN(3, passes=3)) == 2 * 16  # a batch norm
        assert not parameters(AttentionUnit())

    @pytest.mark.parametrize("size", [2, 27, 60])
    def test_takes_other_sizes(self, size):
        assert RCN(5, size)(torch.zeros(2, 3, size, size))["logits"].shape == (2, 5)

    def test_every_pass_reads_the_output_of_the_one_before(self):
        torch.manual_seed(0)
        layer = RecurrentConvolution(4, passes=2).eval()  # a batch norm that has seen nothing changes next to nothing
        x = torch.rand(2, 4, 6, 6)
        state = (seen := layer.forwards(x)).relu()
        for _ in range(2):
            state = (seen + layer.recurrent(state)).relu()
        torch.testing.assert_close(layer(x), state, atol=1e-4, rtol=1e-3)

    def test_weighs_positions_by_the_mean_of_their_channels(self):
        x = torch.tensor([[[0.0, 2.0], [1.0, 4.0]], [[0.0, 2.0], [1.0, 4.0]]])[None]
        weighed, weights = AttentionUnit()(x)
        assert weights[0].tolist() == [[0, 0.5], [0.25, 1]]
        assert weighed[0, 1].tolist() == [[0, 1], [0.25, 4]]

    def test_shows_where_it_looks(self, flow):
        check_attention(RCN(3), flow)

    def test_shows_finite_attention_where_nothing_moves(self):
        seen = RCN(3).eval()(torch.zeros(1, 3, 28, 28), attention=True)
        assert seen["attention"].isfinite().all() and seen["logits"].isfinite().all()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [({"size": 1}, "at least 2"), ({"width": 0}, "width=0"), ({"passes": -1}, "passes=-1")],
    )
    def test_refuses_what_would_be_empty(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            RCN(3, **arguments)


class TestHTNet:
    def test_has_the_parameters_of_the_release(self):
        with torch.device("meta"):
            released = HTNet(3, patch=7, dim=256, depths=(2, 2, 10))
        assert round(parameters(released) / 1e6, 1) == 139.6

    def test_is_small_by_default(self):
        assert parameters(HTNet(3)) < 1_000_000

    @pytest.mark.parametrize(("size", "patch"), [(56, 4), (112, 8), (28, 7)])
    def test_takes_other_sizes(self, size, patch):
        assert HTNet(3, size, patch)(torch.zeros(1, 3, size, size))["logits"].shape == (1, 3)

    def test_blocks_are_squares_of_the_map(self):
        x = torch.arange(16.0).view(1, 4, 4, 1)
        assert cut(x, 2)[0, :, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
        assert torch.equal(join(cut(x, 2), 2), x)

    def test_areas_of_the_face_do_not_see_one_another_before_they_are_joined(self, flow):
        network = HTNet(3).eval()
        seen = []
        network.levels[0].register_forward_hook(lambda _, __, outputs: seen.append(outputs[0]))
        moved = flow.clone()
        moved[:, :, :14, :14] += 1  # one eye
        network(flow)
        network(moved)
        changed = (seen[0] != seen[1]).any(-1).any(0)
        assert changed[:7, :7].all() and not changed[7:].any() and not changed[:, 7:].any()

    def test_shows_where_it_looks(self, flow):
        check_attention(HTNet(3), flow)

    def test_one_patch_a_block_is_shown_as_no_choice(self, flow):
        network = HTNet(3, patch=7, dim=16, depths=(1, 1, 1)).eval()
        assert not network(flow, attention=True)["attention"].any()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"size": 30}, "multiple of 2 x patch=2, not 30"),
            ({"depths": (2, 2, 2)}, "4 by 4 blocks"),
            ({"depths": ()}, "at least one layer"),
            ({"depths": (1, 0)}, "at least one layer"),
            ({"patch": 0}, "patch=0"),
            ({"heads": 0}, "24 channels among 0 heads"),
        ],
    )
    def test_refuses_arguments_that_do_not_fit(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            HTNet(3, **arguments)


class TestTimmBaseline:
    def test_builds_a_fixed_grid_of_patches_for_the_size(self):
        network = TimmBaseline(3, size=32, name="vit_tiny_patch16_224")
        assert network(torch.zeros(1, 3, 32, 32))["logits"].shape == (1, 3)

    def test_names_the_nearest_networks(self):
        with pytest.raises(ValueError, match=r"'resnet81'.*resnet18"):
            TimmBaseline(3, name="resnet81")


class TestAHMSANet:
    def test_is_small(self):
        assert parameters(AHMSANet(3)) < 1_000_000

    @pytest.mark.parametrize("size", [56, 112])
    def test_takes_larger_maps(self, size):
        assert AHMSANet(3, size)(torch.zeros(1, 3, size, size))["logits"].shape == (1, 3)

    @pytest.mark.parametrize("channel", ["gate", "transposed"])
    def test_shows_where_it_looks(self, flow, channel):
        check_attention(AHMSANet(3, channel=channel), flow)

    def test_is_at_first_little_but_the_averaged_flow_map(self, flow):
        network = AHMSANet(3, finest=28, widths=(3, 5, 8), depths=(1, 1, 1), heads=(1, 1, 2), layer_scale=1e-9).eval()
        seen = {}
        network.classifier.register_forward_hook(lambda _, inputs, __: seen.update(x=inputs[0]))
        network(flow)
        coarse = seen["x"].view(4, 7, 7, 8)
        torch.testing.assert_close(coarse[..., :3].permute(0, 3, 1, 2), torch.nn.functional.avg_pool2d(flow, 4))
        assert coarse[..., 3:].abs().max() < 1e-6

    def test_shows_finite_attention_where_nothing_moves(self):
        seen = AHMSANet(3).eval()(torch.zeros(1, 3, 28, 28), attention=True)["attention"]
        assert seen.isfinite().all()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"size": 30}, "30 pixels is no multiple of finest=14"),
            ({"finest": 7}, "divisible by 2, not 7"),
            ({"widths": (16, 32, 64)}, "per level"),
            ({"widths": (2, 3)}, "at least 3 wide"),
            ({"widths": (6, 3)}, "never narrow"),
            ({"depths": (1, 0)}, "at least one block"),
            ({"heads": (1, 2)}, "3 channels among 2 heads"),
            ({"channel": "gates"}, "'gate' or 'transposed', not 'gates'"),
            ({"kernel": 4}, "odd kernel, not 4"),
        ],
    )
    def test_refuses_arguments_that_do_not_fit(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            AHMSANet(3, **arguments)
