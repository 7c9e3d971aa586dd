"""HSTA against its published counts, a transcription of its formulas, and what it must show."""

import math

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch.nn.functional import cross_entropy

from mer.models.hsta import HSTA, PATCHES


def clips_for(network: HSTA, size: int, count: int = 2, frames: int = 4, seed: int = 0) -> dict:
    draws = torch.Generator().manual_seed(seed)
    shapes = {"flow": (3,), "depth": (3,), "onset": (3,), "apex": (3,), "frames": (frames, 3)}
    return {name: torch.randn(count, *shapes[name], size, size, generator=draws) for name in network.inputs}


def built(seed: int = 0, scatter: float = 0.05, **arguments) -> HSTA:
    """A network whose norms and biases are not 1 and 0, so that each of them counts."""
    torch.manual_seed(seed)
    network = HSTA(5, **{"size": 40, "stages": 2, **arguments})
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(scatter * torch.randn_like(weight))
    return network


class Formulas:
    """The network in plain float64, written from the formulas and reading nothing but the weights by name."""

    def __init__(self, network: HSTA, heads: int = 3):
        self.weights = {name: weight.double() for name, weight in network.state_dict().items()}
        self.heads = heads

    def linear(self, name, x):
        y = torch.einsum("bnd,od->bno", x, self.weights[f"{name}.weight"])
        return y + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else y

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    @staticmethod
    def gelu(x):
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2

    def attend(self, name, queries, tokens):
        q = self.linear(f"{name}.query", queries)
        k, v = self.linear(f"{name}.key", tokens), self.linear(f"{name}.value", tokens)
        width = q.shape[-1] // self.heads
        result = []
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            scores = torch.einsum("bmd,bnd->bmn", q[..., part], k[..., part]) / math.sqrt(width)
            shares = scores.exp() / scores.exp().sum(-1, keepdim=True)
            result.append(torch.einsum("bmn,bnd->bmd", shares, v[..., part]))
        return self.linear(f"{name}.project", torch.cat(result, -1))

    def tokens(self, name, pictures):
        kernel, bias = self.weights[f"{name}.project.weight"], self.weights[f"{name}.project.bias"]
        width, _, span, patch, _ = kernel.shape
        count, frames, _, size, _ = pictures.shape
        rows = [self.weights[f"{name}.cls"][0, 0].expand(count, width)]
        for time in range(0, frames - span + 1, span):
            for top in range(0, size - patch + 1, patch):
                for left in range(0, size - patch + 1, patch):
                    tubelet = pictures[:, time : time + span, :, top : top + patch, left : left + patch]
                    rows.append(torch.einsum("btcyx,dctyx->bd", tubelet, kernel) + bias)
        tokens = torch.stack(rows, 1)
        for place in range(tokens.shape[1]):
            for feature in range(width):
                angle = place / 10_000 ** ((feature - feature % 2) / width)
                tokens[:, place, feature] += math.cos(angle) if feature % 2 else math.sin(angle)
        return tokens

    def usta(self, name, x):
        y = self.norm(f"{name}.attention_norm", x)
        x = x + self.attend(f"{name}.attention", y, y)
        hidden = self.gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.mlp_norm", x)))
        return x + self.linear(f"{name}.mlp.fc2", hidden)

    def csta(self, name, x, partner):
        c = self.linear(f"{name}.enter.2", self.gelu(self.norm(f"{name}.enter.0", x[:, :1])))
        seen = self.norm(f"{name}.norm", torch.cat([c, partner[:, 1:]], 1))
        c = c + self.attend(f"{name}.attention", seen[:, :1], seen)
        cls = self.linear(f"{name}.leave.2", self.gelu(self.norm(f"{name}.leave.0", c)))
        return torch.cat([cls, x[:, 1:]], 1)

    def logits(self, clips, stages, depths):
        clips = {name: tensor.double() for name, tensor in clips.items()}
        frames = clips.pop("frames")
        special = self.tokens("special", torch.stack(list(clips.values()), 1))
        video = self.tokens("video", frames)
        for stage in range(stages):
            for block in range(depths[0]):
                special = self.usta(f"stages.{stage}.special.{block}", special)
            for block in range(depths[1]):
                video = self.usta(f"stages.{stage}.video.{block}", video)
            special, video = (
                self.csta(f"stages.{stage}.special_looks", special, video),
                self.csta(f"stages.{stage}.video_looks", video, special),
            )
        ends = [self.norm("special_norm", special[:, :1]), self.norm("video_norm", video[:, :1])]
        return self.linear("head", torch.cat(ends, -1))[:, 0]


@pytest.mark.parametrize(
    ("preset", "stages", "depths", "millions"),
    [
        ("base", 4, (1, 2), 81.9),
        ("base", 3, (1, 4), 104.3),
        ("small", 4, (1, 2), 20.9),
        ("tiny", 4, (1, 2), 5.4),
    ],
)
def test_has_the_published_number_of_parameters(preset, stages, depths, millions):
    with torch.device("meta"):
        network = HSTA(num_classes=7, preset=preset, stages=stages, depths=depths)
    tolerance = 0.1 if preset == "base" else 0.05
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(millions, abs=tolerance)


@pytest.mark.parametrize(("special", "moments"), [("frames", 2), ("flow", 1)])
def test_cuts_the_published_number_of_tokens(special, moments):
    with torch.device("meta"):
        network = HSTA(num_classes=7, preset="base", special=special)
        assert network.special(torch.empty(1, moments, 3, 224, 224)).shape == (1, 1 + 324, 384)
        assert network.video(torch.empty(1, 6, 3, 224, 224)).shape == (1, 1 + 588, 768)


@pytest.mark.parametrize("special", ["frames", "flow", "depth"])
@pytest.mark.parametrize(("stages", "depths"), [(2, (1, 2)), (1, (2, 1))])
def test_agrees_with_the_formulas(special, stages, depths):
    network = built(special=special, stages=stages, depths=depths).eval()
    clips = clips_for(network, 40)
    logits = network(**clips)["logits"]
    expected = Formulas(network).logits(clips, stages, depths)
    assert expected.abs().amax() > 0.1
    torch.testing.assert_close(logits.double(), expected, atol=1e-5, rtol=0)
    exact = network.double()(**{name: tensor.double() for name, tensor in clips.items()})["logits"]
    torch.testing.assert_close(exact, expected, atol=1e-10, rtol=0)


def test_only_keys_have_no_bias():
    linear = {name: part for name, part in HSTA(3).named_modules() if isinstance(part, torch.nn.Linear)}
    assert {name.split(".")[-1] for name, part in linear.items() if part.bias is None} == {"key"}
    assert all(part.bias is None for name, part in linear.items() if name.endswith("key"))


def test_the_weights_depend_neither_on_the_size_nor_on_the_frames():
    small, large = HSTA(3, size=32, stages=1).eval(), HSTA(3, size=64, stages=1)
    small.load_state_dict(large.state_dict())
    for size, frames in [(32, 2), (64, 8)]:
        assert small(**clips_for(small, size, frames=frames))["logits"].shape == (2, 3)


def test_keeps_nothing_from_inference_for_training():
    network = built(stages=1)
    clips = clips_for(network, 40)
    with torch.inference_mode():
        network(**clips)
    network(**clips)["logits"].sum().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())


class TestCheckpointing:
    @staticmethod
    def gradients(checkpoint: bool) -> tuple[list, int]:
        """Gradients of one training step, and how often its first block was computed."""
        network, computed = built(checkpoint=checkpoint, drop_path=0.5).train(), []
        network.stages[0].video[0].mlp.register_forward_pre_hook(lambda *_: computed.append(1))
        clips = clips_for(network, 40, count=4)
        torch.manual_seed(1)
        cross_entropy(network(**clips)["logits"], torch.arange(4)).backward()
        return [weight.grad for weight in network.parameters()], len(computed)

    def test_recomputes_the_same_gradients_to_the_bit(self):
        (kept, once), (recomputed, twice) = self.gradients(False), self.gradients(True)
        assert (once, twice) == (1, 2)
        assert all(torch.equal(a, b) for a, b in zip(kept, recomputed, strict=True))


def test_drop_path_rises_to_the_last_block():
    network = HSTA(3, stages=4, depths=(1, 2), drop_path=0.21)
    rates = [block.drop_path.drop_prob for stage in network.stages for block in stage.video]
    assert rates == pytest.approx([0.03 * i for i in range(8)])
    assert network.stages[-1].special_looks.drop_path.drop_prob == pytest.approx(0.21)


def test_the_learning_rate_falls_from_stage_to_stage():
    network = HSTA(3, stages=2)
    groups = param_groups_layer_decay(network, weight_decay=0.05, layer_decay=0.5)
    result = {id(weight): (group["lr_scale"], group["weight_decay"]) for group in groups for weight in group["params"]}
    layers = {"special.": 1 / 8, "video.": 1 / 8, "stages.0": 1 / 4, "stages.1": 1 / 2}
    for name, weight in network.named_parameters():
        scale = next((scale for start, scale in layers.items() if name.startswith(start)), 1.0)
        assert result[id(weight)] == (scale, 0.0 if weight.ndim == 1 else 0.05), name


class TestAttention:
    @pytest.mark.parametrize("special", ["frames", "flow"])
    def test_shows_where_it_looks(self, special):
        network = built(special=special).eval()
        clips = clips_for(network, 40)
        outputs = network(**clips, attention=True)
        seen = outputs["attention"]
        assert seen.shape == (2, 40, 40)
        assert seen.amin((1, 2)).tolist() == [0] * 2
        assert seen.amax((1, 2)).tolist() == [1] * 2
        assert not seen.requires_grad
        assert torch.equal(outputs["logits"], network(**clips)["logits"])

    @pytest.mark.parametrize("special", ["frames", "flow"])
    @pytest.mark.parametrize(("row", "column"), [(0, 2), (3, 1)])
    def test_lights_up_the_patch_that_it_looks_at(self, special, row, column):
        """One patch of the special data and one of the video are bright, and every query looks for brightness."""
        size = 70  # 5 x 12 = 60 px and 4 x 16 = 64 px of it are seen
        network = built(scatter=0.0, special=special, size=size).eval()
        with torch.no_grad():
            for name, weight in network.named_parameters():
                looks = "looks.attention" in name
                if name.endswith("project.weight") and weight.ndim == 5:
                    weight.zero_()[0] = 1.0  # feature 0 is the brightness of the patch
                elif ".special." in name or ".video." in name:
                    weight.mul_(0.0 if "project" in name or "fc2" in name else 1.0)  # USTA changes nothing
                elif looks and "query" in name:
                    weight.copy_(torch.zeros_like(weight) if weight.ndim > 1 else torch.ones_like(weight))
                elif looks and "key" in name:
                    weight.zero_()[:, 0] = 10.0
        clips = {name: torch.zeros_like(tensor) for name, tensor in clips_for(network, size, frames=6).items()}
        expected = torch.zeros(size, size)
        for name, tensor in clips.items():
            patch = PATCHES[name == "frames"]
            # The video's patch is elsewhere, and bright in one pair of frames only.
            top, left = (16, 32) if name == "frames" else (row * patch, column * patch)
            place = ..., slice(top, top + patch), slice(left, left + patch)
            (tensor[:, 2:4] if name == "frames" else tensor)[place] = 1.0
            expected[place] += 0.5 if name == "apex" else 1.0 if name != "onset" else 0.5
        seen = network(**clips, attention=True)["attention"]
        torch.testing.assert_close(seen, expected.expand(2, -1, -1), atol=1e-3, rtol=0)
        assert seen[:, 64:].amax() == seen[:, :, 64:].amax() == 0

    def test_covers_what_the_patches_cover(self):
        network = built(stages=1).eval()
        seen = network(**clips_for(network, 47), attention=True)["attention"]  # 36 px and 32 px of 47 are seen
        assert (seen[:, :32, :32].amax((1, 2)) > 0).all()
        assert seen[:, 36:].amax() == seen[:, :, 36:].amax() == 0

    def test_the_weights_shown_are_those_that_attention_uses(self):
        attention = built(stages=1, scatter=1.0).stages[0].video[0].attention
        tokens = torch.eye(7, 192)[None]
        with torch.no_grad():
            for head in attention.value.weight.zero_().view(3, 64, 192):
                head[:7, :7] = torch.eye(7)  # a token's value is its number: what a query finds is how it looked
            attention.value.bias.zero_()
            attention.project.weight.copy_(torch.eye(192))
            attention.project.bias.zero_()
            result = attention(tokens, tokens).view(1, 7, 3, 64)[..., :7].mean(2)
            shown = attention.weights(tokens, tokens)
        assert shown.std() > 0.01
        torch.testing.assert_close(shown, result, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("frames", [0, 1, 5])
def test_refuses_frames_that_make_no_pairs(frames):
    network = HSTA(3, size=32, stages=1)
    with pytest.raises(ValueError, match=f"in pairs, not {frames}"):
        network(**clips_for(network, 32, frames=frames))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "large"}, "'tiny', 'small', 'base', not 'large'"),
        ({"special": "landmarks"}, "'frames', 'flow', 'depth', not 'landmarks'"),
        ({"size": 15}, "at least 16, that of a patch, not 15"),
        ({"stages": 0}, "stages=0"),
        ({"depths": (1, 0)}, r"depths=\(1, 0\)"),
        ({"depths": (1, 2, 3)}, r"depths=\(1, 2, 3\)"),
    ],
)
def test_refuses_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        HSTA(3, **arguments)


def test_knows_its_inputs_before_it_is_built():
    assert HSTA.reads() == ("onset", "apex", "frames")
    assert HSTA.reads(special="flow", preset="base") == ("flow", "frames")
    assert HSTA.reads(special="depth") == ("depth", "frames")
