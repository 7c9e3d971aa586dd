import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from data_modules.processes import pool
from experiments.benchmarks.flow_pairs import film
from mer.flow import optical_flow
from mer.flow.tvl1 import SMALLEST, tvl1
from mer.preprocessing.opencv import cv2

ROOT = Path(__file__).parents[3]
SIDE = 96
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32)
INSIDE = (..., slice(12, -12), slice(12, -12))


@pytest.fixture(scope="module")
def clips():
    """Onsets, apexes (3, 1, 224, 224) and true flow (3, 2, 224, 224), and the flow by OpenCV and by ``tvl1``."""
    pairs, truth = (np.stack(part) for part in zip(*[film(n, 224, peak) for n, peak in enumerate((0.3, 1.0, 2.0))]))
    opencv = np.stack([optical_flow(first, second) for first, second in pairs])
    frames = torch.from_numpy(pairs)
    first, second = frames[:, :1], frames[:, 1:]
    return first, second, truth, opencv, tvl1(first, second)


@pytest.fixture(scope="module")
def face():
    portrait = cv2.cvtColor(data.astronaut()[:256, 150:406], cv2.COLOR_RGB2GRAY)
    return cv2.resize(portrait, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def batch(*frames):
    return torch.from_numpy(np.stack(frames))[:, None]


def moved_by(flow, frame):
    """The earlier frame of a pair whose later one is ``frame`` and whose motion is ``flow``."""
    return cv2.remap(frame, X + flow[0], Y + flow[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def length(flow):
    return np.hypot(flow[:, 0], flow[:, 1])


def test_it_equals_opencv_on_synthetic_clips(clips):
    *_, opencv, flow = clips
    difference = length(flow.numpy() - opencv)
    assert difference.mean() < 0.015 and np.quantile(difference, 0.95) < 0.05


def test_it_is_as_near_to_the_truth_as_opencv(clips):
    *_, truth, opencv, flow = clips
    # A pair is off by up to 0.001 px more or less than OpenCV's, whose own error moves as much with the rounding.
    assert length(flow.numpy() - truth).mean() < length(opencv - truth).mean() + 1e-3


@pytest.mark.parametrize("changes", [{}, {"warps": 1, "median": 3}, {"data_weight": 0.05, "tau": 0.1, "median": 1}])
def test_at_one_scale_nothing_but_rounding_differs(face, changes):
    first = moved_by(0.8 * np.stack([np.exp(-((X - 40) ** 2 + (Y - 50) ** 2) / 300), np.zeros_like(X)]), face)
    reference = cv2.optflow.DualTVL1OpticalFlow_create()
    names = {"warps": "WarpingsNumber", "median": "MedianFiltering", "data_weight": "Lambda", "tau": "Tau"}
    reference.setScalesNumber(1)
    for name, value in changes.items():
        getattr(reference, f"set{names[name]}")(value)
    expected = reference.calc(first, face, None).transpose(2, 0, 1)
    flow = tvl1(batch(first), batch(face), scales=1, **changes)[0].numpy()
    assert np.abs(flow).max() > 0.3
    assert np.abs(flow - expected).mean() < 2e-4


def test_no_motion_is_no_flow(face):
    assert tvl1(batch(face), batch(face)).abs().max() < 1e-9
    blank = torch.full((1, 1, 20, 30), 7, dtype=torch.uint8)
    assert not tvl1(blank, blank).any()


def test_a_translation_and_an_affine_field_are_found(face):
    x, y = (X - SIDE / 2) / SIDE, (Y - SIDE / 2) / SIDE
    truth = [np.stack([np.full_like(X, 1.3), np.full_like(X, -0.7)]), np.stack([2 * x + y, -1.5 * y + 0.5 * x])]
    flow = tvl1(batch(*[moved_by(motion, face) for motion in truth]), batch(face, face)).numpy()
    error = length(flow - np.stack(truth))[INSIDE]
    assert (error.mean((1, 2)) < 0.05).all()


def test_a_pair_does_not_depend_on_its_batch_or_on_the_threads(face):
    bump = np.stack([np.exp(-((X - 40) ** 2 + (Y - 50) ** 2) / 300), np.zeros_like(X)])
    first, second = batch(*[moved_by(size * bump, face) for size in (0.3, 2.0, 0.9)]), batch(face, face, face)
    flow = tvl1(first, second)
    assert torch.equal(tvl1(first[1:2], second[1:2])[0], flow[1])
    order = [2, 1]
    assert torch.equal(tvl1(first[order], second[order]), flow[order])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(tvl1(first[:1], second[:1])[0], flow[0])
    finally:
        torch.set_num_threads(threads)


def test_floating_frames_are_grey_levels_over_255(face):
    first, second = batch(np.roll(face, 1, axis=1)), batch(face)
    expected = tvl1(first, second, scales=2)
    assert (tvl1(first / 255, second / 255, scales=2) - expected).abs().mean() < 0.01


@pytest.mark.parametrize("shape", [(SMALLEST, SMALLEST), (SMALLEST, 61), (70, 17)])
def test_small_and_oblong_frames_have_a_flow(face, shape):
    first = batch(face[: shape[0], : shape[1]])
    flow = tvl1(first, first.flip(-1))
    assert flow.shape == (1, 2, *shape) and flow.dtype == torch.float32 and flow.isfinite().all()


def frames(*shape, dtype=torch.uint8):
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (frames(1, 1, 32, 32), frames(1, 1, 32, 33), r"\(1, 1, 32, 32\) and \(1, 1, 32, 33\)"),
        (frames(2, 1, 32, 32), frames(1, 1, 32, 32), "differ in shape"),
        (frames(1, 2, 32, 32), frames(1, 2, 32, 32), r"\(B, 1, H, W\).*\(1, 2, 32, 32\)"),
        (frames(1, 32, 32), frames(1, 32, 32), r"\(1, 32, 32\)"),
        (frames(0, 1, 32, 32), frames(0, 1, 32, 32), "at least one pair"),
        (frames(1, 1, 1, 32), frames(1, 1, 1, 32), "32 x 1 px"),
        (frames(1, 1, 32, 1), frames(1, 1, 32, 1), "1 x 32 px"),
        (frames(1, 1, 32, 32), frames(1, 1, 32, 32, dtype=torch.float32), "float32"),
        (frames(1, 1, 32, 32, dtype=torch.int64), frames(1, 1, 32, 32, dtype=torch.int64), "int64"),
        (torch.full((1, 1, 32, 32), torch.nan), torch.zeros(1, 1, 32, 32), "NaN"),
        (torch.zeros(1, 1, 32, 32), torch.full((1, 1, 32, 32), 255.0), "0 to 255|255 to 255"),
    ],
)
def test_what_is_no_pair_of_batches_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        tvl1(first, second)


@pytest.mark.parametrize("wrong", [{"tau": 0.3}, {"scale_step": 1.0}, {"median": 4}, {"warps": 0}, {"theta": 0.0}])
def test_what_is_no_parameter_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        tvl1(frames(1, 1, 32, 32), frames(1, 1, 32, 32), **wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_what_the_cpu_computes_whatever_the_batch(clips):
    first, second, *_, flow = clips
    on_gpu = tvl1(first.cuda(), second.cuda())
    assert (on_gpu.cpu() - flow).norm(dim=1).mean() < 0.015
    assert torch.equal(tvl1(first[1:2].cuda(), second[1:2].cuda())[0], on_gpu[1])


def run(script, **environment):
    pytest.importorskip("triton")
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths} | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) >= "2.5.0", reason="Triton's interpreter needs an older NumPy")
def test_the_kernel_computes_what_the_plain_path_and_opencv_compute():
    run(
        """
        import torch
        from experiments.benchmarks.flow_pairs import film
        from kornia.filters import median_blur
        from mer.flow import tvl1
        from mer.flow import tvl1_triton
        from mer.preprocessing.opencv import cv2

        draws = torch.Generator().manual_seed(0)

        def randn(*shape):
            return torch.randn(*shape, generator=draws)

        def refine(kernels, earlier, later, guess, *given):
            tvl1._kernels = lambda device: kernels
            return tvl1._refine(earlier, later, guess.clone(), *given)

        def compare(height, width, tile, median, warps, inner, limit):
            tvl1_triton.TILE = tile
            later = 128 + 20 * randn(4, 1, height, width)
            earlier = later + 0.3 * (later.roll(1, -1) - later) + randn(4, 1, height, width)
            earlier[1] = later[1] = 77  # no texture
            earlier[2] = later[2]  # has converged
            guess = 0.5 * randn(4, 2, height, width)
            guess[2] = 0
            guess[3] *= 30  # out of the frame
            solver = tvl1.Solver(0.045, 0.3, 0.25 / 0.3, limit * height * width, inner, 2, median)
            expected = refine(None, earlier, later, guess, warps, solver)
            flow = refine(tvl1_triton, earlier, later, guess, warps, solver)
            assert (expected - guess)[0].abs().max() > 0.1 and not flow[2].any()
            # The warped grey levels, up to 255, are off by their rounding, the flow by that over the image gradient.
            torch.testing.assert_close(flow, expected, rtol=0, atol=5e-5)
            alone = refine(tvl1_triton, earlier[:1], later[:1], guess[:1], warps, solver)
            assert torch.equal(alone, flow[:1])

        compare(11, 33, 256, 5, 1, 2, 1e-2)
        compare(5, 40, 128, 3, 2, 2, 1e-2)
        compare(4, 67, 64, 1, 1, 3, 0.0)  # rows longer than a tile
        compare(5, 9, 64, 1, 1, 4, 1e9)  # one iteration is enough

        guess, blank = randn(1, 2, 11, 33), torch.zeros(1, 1, 11, 33)
        tvl1_triton.TILE = 256
        for size in (3, 5):
            still = tvl1.Solver(0.0, 0.0, 0.0, 0.0, 1, 1, size)  # nothing moves but by the median
            filtered = refine(tvl1_triton, blank, blank, guess, 1, still)
            assert torch.equal(filtered, median_blur(guess, size, "replicate"))

        # The flow of a pair is OpenCV's.
        first, second = film(0, 40, 1.0)[0]
        reference = cv2.optflow.DualTVL1OpticalFlow_create(nscales=2, warps=1)
        expected = torch.from_numpy(reference.calc(first, second, None)).permute(2, 0, 1)
        tvl1._kernels = lambda device: tvl1_triton
        tvl1_triton.TILE = 2048  # fewer steps: the interpreter's time goes with them
        first, second = torch.from_numpy(first), torch.from_numpy(second)
        flow = tvl1.tvl1(first[None, None], second[None, None], scales=2, warps=1)[0]
        assert flow.norm(dim=0).max() > 0.3 and (flow - expected).norm(dim=0).mean() < 0.015
        """,
        TRITON_INTERPRET="1",
    )


def compile_kernel(folder):
    """The kernel for two GPUs, and what they would need for it."""
    import triton
    from triton.backends.compiler import GPUTarget

    from mer.flow import tvl1_median, tvl1_triton

    os.environ["TRITON_CACHE_DIR"] = folder
    function = tvl1_triton._refine
    constants = {"SIZE": 5, "PAIRS": tvl1_median.exchanges(25), "TILE": tvl1_triton.TILE}
    kinds = dict.fromkeys(["earlier", "images", "maps"], "*fp32") | dict.fromkeys(constants, "constexpr")
    kinds |= dict.fromkeys(["height", "width", "warps", "inner", "outer"], "i32")
    signature = {name: kinds.get(name, "fp32") for name in function.arg_names}
    source = triton.compiler.ASTSource(fn=function, signature=signature, constexprs=constants)
    for architecture in (80, 90):
        target = GPUTarget("cuda", architecture, 32)
        compiled = triton.compile(source, target=target, options=tvl1_triton.OPTIONS)
        assert compiled.asm["cubin"] and "fma.rn.f32" not in compiled.asm["ptx"]
        # Three barriers of its own (after a warp, a median filter, a tile of an iteration), two of the sum.
        assert compiled.asm["ptx"].count("bar.sync") >= 5
        path = Path(folder, "cubin")
        path.write_bytes(compiled.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", path]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        usage = {name: int(number) for name, number in re.findall(r"(REG|STACK):(\d+)", usage)}
        # At most a counter of the outer loops is kept in memory.
        assert usage["REG"] <= 64 and usage["STACK"] <= 8, usage


def test_the_kernel_compiles_for_gpus_that_are_not_here(tmp_path):
    pytest.importorskip("triton")
    # In another process: the kernel of this one stays as it is.
    assert dict(pool.run(compile_kernel, [(str(tmp_path),)], [(os.getpid, ())])) == {0: None}
