"""MFVAN: its formulas against plain ones, its ablations, the terms of its loss, and its first stage."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.data import DataLoader

from mer.models.mfvan import MFVAN, STRIDES, LocalAttention
from mer.training.mfvan_task import MFVANTask
from mer.transforms import normalise_pictures

ENCODER = "test_resnet"  # timm's smallest with batch norm


def build(seed: int = 0, num_classes: int = 3, **arguments) -> MFVAN:
    torch.manual_seed(seed)
    return MFVAN(num_classes, **{"size": 32, "encoder": ENCODER, "grid": 2, **arguments})


def awake(network: MFVAN) -> MFVAN:
    """With no weight at zero, where timm starts some, which stops what lies below them."""
    for weight in network.parameters():
        if not weight.any():
            weight.data.fill_(0.1)
    return network


@pytest.fixture(scope="module")
def batch():
    """Four clips of blurred noise, of which a part moves by a pixel."""
    noise = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    onset = F.interpolate(noise, (32, 32), mode="bilinear")
    apex = torch.where(torch.arange(32) < 16, onset.roll(1, dims=2), onset)
    return {"onset": onset.byte(), "apex": apex.byte(), "target": torch.tensor([0, 1, 2, 0])}


@pytest.fixture
def apex(batch):
    return normalise_pictures(batch["apex"])


def terms_of(task: MFVANTask, batch: dict) -> dict:
    return task.loss(task(batch), batch)


class TestFormulas:
    @pytest.mark.parametrize("grid", [1, 2])
    @pytest.mark.parametrize("mask", [True, False])
    def test_local_attention(self, mask, grid):
        torch.manual_seed(0)
        attend = LocalAttention(6, mask, temperature=0.1, grid=grid).double()
        maps = torch.randn(2, 6, 4, 4, dtype=torch.float64)
        first, _, last = attend.score
        if mask:
            attend.threshold.data.fill_(0.07)
        features, weights, masks = attend(maps)
        for clip in range(2):
            hidden = F.conv2d(maps[[clip]], first.weight, first.bias, padding=1)[0].clamp(min=0).detach()
            logits = [[float(last.weight.data[0, :, 0, 0] @ hidden[:, y, x]) for x in range(4)] for y in range(4)]
            total = sum(math.exp(x) for row in logits for x in row)
            feature, weight = torch.zeros(6, grid, grid, dtype=torch.float64), 0.0
            for y in range(4):
                for x in range(4):
                    kept = 1 / (1 + math.exp(-(logits[y][x] - 0.07) / 0.1)) if mask else 1.0
                    assert float(masks[clip, y, x]) == pytest.approx(kept, abs=1e-5)
                    weight += kept * math.exp(logits[y][x]) / total
                    feature[:, y * grid // 4, x * grid // 4] += (
                        kept * math.exp(logits[y][x]) / total * maps[clip, :, y, x]
                    )
            # the weights are float32 whatever the maps are
            torch.testing.assert_close(features[clip].double(), (feature / weight).flatten(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2))

    def test_a_mask_that_closes_everywhere_still_fuses(self):
        attend = LocalAttention(6, mask=True, temperature=0.1, grid=1)
        attend.threshold.data.fill_(1e4)
        feature, weights, masks = attend(torch.randn(2, 6, 4, 4))
        assert feature.isfinite().all() and not masks.any()
        torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2))

    def test_joint_loss(self, batch):
        network = awake(build()).eval()
        task = MFVANTask(network, lambda_mask=0.2, lambda_identity=0.5, mask_share=0.4).eval()
        terms = terms_of(task, batch)
        apex, onset = (
            [x.double() for x in network.encoder(normalise_pictures(batch[name]))] for name in ("apex", "onset")
        )
        outputs = task(batch)
        identity = [x.double() for x in outputs["identity"]]
        expected = dict.fromkeys(("scales", "mask", "identity", "orthogonality"), torch.zeros((), dtype=torch.float64))
        expected["classes"] = -outputs["logits"].double().log_softmax(1)[range(4), batch["target"]].mean()
        for index in range(3):
            log = outputs["scale_logits"][index].double().log_softmax(1)
            expected["scales"] = expected["scales"] - log[range(4), batch["target"]].mean()
            mask = outputs["masks"][index].double()
            expected["mask"] = expected["mask"] + 0.2 * ((mask.mean() - 0.4) ** 2 + (mask * (1 - mask)).mean())
            wrong = ((identity[index] - onset[index]) ** 2).mean()
            expected["identity"] = expected["identity"] + 0.5 / 3 * wrong
            m, i = (apex[index] - identity[index]).mean((2, 3)), identity[index].mean((2, 3))
            cosines = (m * i).sum(1) / (m.norm(dim=1) * i.norm(dim=1))
            expected["orthogonality"] = expected["orthogonality"] + 0.5 / 3 * (cosines**2).mean()
        for name, maps, frame in (("generation", identity, "onset"), ("reconstruction", apex, "apex")):
            drawn = network.decoder([x.float() for x in maps]).double()
            expected[name] = 0.5 * (drawn - batch[frame] / 255).abs().mean()
        assert terms.keys() == expected.keys()
        for name, term in terms.items():
            assert float(term) == pytest.approx(float(expected[name]), rel=1e-4, abs=1e-7), name

    def test_the_onset_is_what_is_to_be_predicted_and_learns_nothing_from_it(self, batch):
        network = awake(build()).eval()
        outputs, task = MFVANTask(network)(batch), MFVANTask(network)
        outputs["identity"] = [x.detach().requires_grad_() for x in outputs["identity"]]
        task.loss(outputs, batch)["identity"].backward()
        assert all(x.grad.any() for x in outputs["identity"])
        assert all(weight.grad is None for weight in network.parameters())


class TestNetwork:
    @pytest.mark.parametrize("identity", ["apex", "onset"])
    def test_every_parameter_gets_a_gradient(self, batch, identity):
        network = awake(build(identity=identity)).eval()
        sum(terms_of(MFVANTask(network), batch).values()).backward()
        silent = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
        assert silent == []

    @pytest.mark.parametrize("identity", ["apex", "onset", "none"])
    def test_trains_in_bfloat16(self, batch, identity):
        task = MFVANTask(build(identity=identity))
        with torch.autocast("cpu", torch.bfloat16):
            loss = sum({**terms_of(task, batch), **task.first_stage().loss(batch)}.values())
        loss.backward()
        assert loss.isfinite()
        assert all(weight.grad.isfinite().all() for weight in task.parameters() if weight.grad is not None)

    @pytest.mark.parametrize(
        ("arguments", "shapes"),
        [
            ({"scales": (8,)}, [(4, 4)]),
            ({"mask": False}, [(8, 8), (4, 4), (2, 2)]),
            ({"identity": "none"}, [(8, 8), (4, 4), (2, 2)]),
            ({"grid": 1}, [(8, 8), (4, 4), (2, 2)]),
        ],
    )
    def test_ablations(self, apex, arguments, shapes):
        network = build(**arguments).eval()
        outputs = network(apex, attention=True)
        assert outputs["logits"].shape == (4, 3)
        assert [x.shape for x in outputs["scale_logits"]] == [(4, 3)] * len(shapes)
        assert [tuple(x.shape[1:]) for x in outputs["masks"]] == shapes
        assert ("identity" in outputs) == (arguments.get("identity") != "none")
        assert outputs["attention"].shape == (4, 32, 32)
        assert outputs["attention"].amin((1, 2)).tolist() == [0] * 4
        assert outputs["attention"].amax((1, 2)).tolist() == [1] * 4
        assert not outputs["attention"].requires_grad
        torch.testing.assert_close(outputs["logits"], network(apex)["logits"])

    def test_reads_the_apex_alone_unless_identity_is_taken_from_the_onset(self, batch):
        assert build().inputs == MFVAN.reads() == MFVAN.reads(identity="none") == ("apex",)
        assert build(identity="onset").inputs == MFVAN.reads(identity="onset") == ("onset", "apex")
        task = MFVANTask(build(), mirror_test=True).eval()
        alone = task.predict_step({"apex": batch["apex"]})
        assert torch.equal(alone, task.predict_step({**batch, "onset": batch["onset"].flip(0)}))

    def test_nothing_moves_where_apex_and_onset_are_one(self, apex):
        outputs = build(identity="onset").eval()(apex=apex, onset=apex)
        assert all(not x.any() for x in outputs["motion"])
        assert outputs["logits"].isfinite().all()

    @pytest.mark.parametrize("identity", ["apex", "onset"])
    def test_clips_do_not_see_one_another(self, batch, identity):
        task = MFVANTask(awake(build(identity=identity))).eval()
        alone = [task.predict_step({name: tensor[[row]] for name, tensor in batch.items()}) for row in range(4)]
        torch.testing.assert_close(task.predict_step(batch), torch.cat(alone), atol=1e-5, rtol=1e-4)

    def test_the_seed_decides_the_weights(self):
        weights, again, others = (torch.nn.utils.parameters_to_vector(build(seed).parameters()) for seed in (0, 0, 1))
        assert torch.equal(weights, again)
        assert not torch.equal(weights, others)

    @pytest.mark.parametrize(
        "arguments", [{"num_classes": 7}, {"scales": (4,), "mask": False}, {"identity": "none"}, {"identity": "onset"}]
    )
    def test_recipes_share_what_the_first_stage_starts_from(self, arguments):
        first, second = (MFVANTask(build(**given)).first_stage().state_dict() for given in ({}, arguments))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_stacked_equals_one_by_one(self, apex):
        networks = [awake(build(seed)).eval() for seed in (0, 1)]
        weights, buffers = stack_module_state(networks)
        frames = torch.stack([apex, apex.flip(0)])
        stacked = vmap(lambda w, b, x: functional_call(networks[0], (w, b), (x,))["logits"])(weights, buffers, frames)
        alone = torch.stack([network(x)["logits"] for network, x in zip(networks, frames, strict=True)])
        torch.testing.assert_close(stacked, alone, atol=1e-5, rtol=1e-4)

    def test_stacked_networks_train(self, apex):
        networks = [build(seed) for seed in (0, 1)]
        weights, buffers = stack_module_state(networks)

        def loss(w, b, x):
            return F.cross_entropy(functional_call(networks[0], (w, b), (x,))["logits"], torch.tensor([0, 1, 2, 0]))

        gradients = vmap(torch.func.grad(loss), randomness="different")(weights, buffers, torch.stack([apex, apex]))
        assert all(gradient.isfinite().all() for gradient in gradients.values())

    @pytest.mark.parametrize("encoder", ["resnet18", "test_convnext", "mobilenetv3_small_050"])
    def test_takes_encoders_by_name(self, encoder):
        outputs = build(encoder=encoder).eval()(torch.zeros(1, 3, 32, 32))
        assert [x.shape[-1] for x in outputs["maps"]] == [32 // stride for stride in STRIDES]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"encoder": "resnet81"}, r"'resnet81'.*resnet18"),
            ({"encoder": "vit_tiny_patch16_224"}, "'vit_tiny_patch16_224' has no maps at strides 4, 8 and 16 of 32"),
            ({"encoder": "mixer_s32_224"}, "'mixer_s32_224' has no maps"),
            ({"size": 40}, "multiple of 16, 32 or more, not 40"),
            ({"size": 16}, "multiple of 16, 32 or more, not 16"),
            ({"scales": ()}, r"some of \(4, 8, 16\)"),
            ({"scales": (4, 32)}, r"not \(4, 32\)"),
            ({"scales": (4, 4)}, r"each once, not \(4, 4\)"),
            ({"identity": "offset"}, "'apex', 'onset' or 'none', not 'offset'"),
            ({"grid": 4}, "2 pixels, not a multiple of grid=4"),
            ({"temperature": 0.0}, "temperature above 0"),
        ],
    )
    def test_refuses_arguments_that_do_not_fit(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            build(**arguments)


class TestTask:
    @pytest.mark.parametrize(
        ("arguments", "missing"),
        [
            ({}, set()),
            ({"mask": False}, {"mask"}),
            ({"identity": "onset"}, {"identity"}),
            ({"identity": "none"}, {"identity", "generation", "reconstruction", "orthogonality"}),
        ],
    )
    def test_terms(self, batch, arguments, missing):
        names = {"classes", "scales", "mask", "identity", "generation", "reconstruction", "orthogonality"}
        terms = terms_of(MFVANTask(build(**arguments)), batch)
        assert terms.keys() == names - missing
        assert all(term.shape == () and term.isfinite() and term >= 0 for term in terms.values())

    def test_settings_of_every_task_hold(self, batch):
        task = MFVANTask(build().eval(), label_smoothing=0.3, weight_decay=0.2)
        plain = terms_of(MFVANTask(task.network), batch)
        smooth = terms_of(task, batch)
        assert all(smooth[name] != plain[name] for name in ("classes", "scales"))
        assert smooth["reconstruction"] == plain["reconstruction"]
        task.class_weights = torch.tensor([9.0, 1.0, 1.0])
        assert terms_of(task, batch)["scales"] != smooth["scales"]

    @pytest.mark.parametrize(
        "arguments", [{"lambda_mask": -1.0}, {"first_stage_steps": -1}, {"first_stage_lr": 0.0}, {"mask_share": 1.0}]
    )
    def test_refuses_settings_out_of_range(self, arguments):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            MFVANTask(build(), **arguments)


class TestFirstStage:
    def test_none_without_steps(self):
        assert MFVANTask(build(), first_stage_steps=0).first_stage() is None

    def test_learns_to_draw_and_leaves_the_rest(self, batch):
        task = MFVANTask(build(), first_stage_steps=30)
        stage, before = task.first_stage(), {name: x.clone() for name, x in task.network.state_dict().items()}
        losses = []
        stage.on_train_batch_end = lambda outputs, *_: losses.append(float(outputs["loss"]))
        trainer = Trainer(
            max_steps=stage.steps, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(stage, DataLoader([batch], batch_size=None))
        assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
        changed = {name.split(".")[0] for name, x in task.network.state_dict().items() if (x != before[name]).any()}
        assert changed == {"encoder", "decoder"}
        assert {name.split(".")[0] for name in stage.state_dict()} == {"encoder", "decoder"}
