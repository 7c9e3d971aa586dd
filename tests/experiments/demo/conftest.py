"""Models with random weights, and a synthetic film of a face as a video and as pictures."""

import hashlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from data_modules.synthesis import layouts
from data_modules.synthesis.filming import film
from data_modules.synthesis.layouts.layout import Clip
from mer import __version__
from mer.model_folder import build, revisions


def write_model(folder, seed):
    """A model's folder: STSTNet as it is before it is trained."""
    model = {
        "class_path": "mer.training.task.Task",
        "init_args": {"network": {"class_path": "mer.models.ststnet.STSTNet", "init_args": {"num_classes": 3}}},
    }
    torch.manual_seed(seed)
    task = build(model)
    folder.mkdir()
    weights = {f"seed{seed}.{name}": value for name, value in task.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    config = {
        "mer": __version__,
        "classes": ["negative", "positive", "surprise"],
        "seeds": [seed],
        "model": model,
        "input": {
            "inputs": ["flow"], "input_size": 28, "crop_size": 128, "num_frames": 6, "method": "tvl1",
            "backend": "opencv", "head_motion": "kept",
        },
        "revisions": revisions(task.network),
        "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Two folders, of other weights. Read only."""
    root = tmp_path_factory.mktemp("models")
    return [write_model(root / name, seed) for seed, name in enumerate(["casme3-ststnet", "samm-ststnet"])]


def write_video(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 200, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Files of a face: a video, three pictures, two; and those of what is no such clip. Read only."""
    (layout,), root = layouts.find("casme2").values(), tmp_path_factory.mktemp("film")
    clip = Clip(3, layout.subject(3), "EP01_02", 40, 46, 52, "1+2", "surprise")
    film(root, 0, (320, 240), layout, clip)
    files = [root / layout.frame(clip, number) for number in range(clip.onset, clip.offset + 1)]
    frames = [cv2.imread(str(file)) for file in files]
    made = root / "made"
    made.mkdir()
    for name, frame in {"onset.png": frames[0], "Apex.PNG": frames[6]}.items():
        cv2.imwrite(str(made / name), frame)
    for number in (8, 9, 10):
        cv2.imwrite(str(made / f"frame{number}.jpg"), frames[number])
    (made / "nonsense.mp4").write_bytes(b"no video at all " * 1000)
    (made / "frame11.jpg").write_bytes(b"no picture")
    noise = np.random.default_rng(0).integers(0, 255, (3, 240, 320, 3), np.uint8)
    video = write_video(made / "clip of a face.avi", frames)
    jpgs = [made / f"frame{number}.jpg" for number in (10, 8, 9)]
    return SimpleNamespace(
        video=[video],
        frames=jpgs,
        pair=[made / "Apex.PNG", made / "onset.png"],
        noise=[write_video(made / "noise.avi", list(noise))],
        two_faces=[write_video(made / "two.avi", [np.hstack([frame, frame]) for frame in frames[:3]])],
        nonsense=[made / "nonsense.mp4"],
        damaged=[jpgs[0], made / "frame11.jpg"],
        same_number=[jpgs[0], jpgs[0]],
        unnumbered=[jpgs[0], made / "onset.png"],
        mixed=[video, jpgs[0]],
        single=jpgs[:1],
    )
