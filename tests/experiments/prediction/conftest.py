"""A prediction of a synthetic film of a face, its pictures and its flow measured as the suite does."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data_modules.synthesis import layouts
from data_modules.synthesis.filming import film
from data_modules.synthesis.layouts.layout import Clip
from mer.flow import flow_map, grey
from mer.prediction import Prediction
from mer.preprocessing.apex import movement
from mer.preprocessing.faces import FaceFinder, alignment, crop


@pytest.fixture(scope="session")
def brows(tmp_path_factory):
    """Raised brows, by three seeds, in frames 40 to 52 of a film with 200 frames per second."""
    (layout,), root = layouts.find("casme2").values(), tmp_path_factory.mktemp("film")
    clip = Clip(3, layout.subject(3), "EP01_02", 40, 46, 52, "1+2", "surprise")
    film(root, 0, (320, 240), layout, clip)
    numbers = np.arange(clip.onset, clip.offset + 1)
    frames = [cv2.imread(str(root / layout.frame(clip, number)))[..., ::-1].copy() for number in numbers]
    with FaceFinder() as finder:
        landmarks = finder.landmarks(frames[0])
    crops = [crop(frame, alignment(landmarks)) for frame in frames]
    flow = flow_map(crops[0], crops[6])
    attention = cv2.resize(np.hypot(flow[0], flow[1]), (28, 28), interpolation=cv2.INTER_AREA)
    return Prediction(
        clip="sub03/EP01_02.avi",
        classes=("negative", "positive", "surprise"),
        probabilities=np.array([0.21, 0.17, 0.62], np.float32),
        spread=np.array([0.04, 0.08, 0.11], np.float32),
        onset=clip.onset,
        apex=clip.apex,
        offset=clip.offset,
        frames_per_second=200.0,
        face_width=float(np.ptp(landmarks[:, 0])),
        warnings=("The face is 105 px wide; under 150, motion is hard to see.", "The head moves much."),
        flow=flow,
        onset_face=crops[0],
        apex_face=crops[6],
        attention=(attention / attention.max()).astype(np.float32),
        frame_numbers=numbers,
        movement=movement([grey(face) for face in crops]),
    )


@pytest.fixture(scope="session")
def bare(brows):
    """Two pictures of a registered face, nothing known of time, one seed, no attention."""
    return replace(
        brows, clip="onset.png:apex.png", spread=np.zeros(3, np.float32), onset=0, apex=1, offset=1, warnings=(),
        frames_per_second=None, face_width=None, attention=None, frame_numbers=np.array([0, 1]),
        movement=np.array([0.0, 0.3]),
    )  # fmt: skip


@pytest.fixture(scope="session")
def hostile(brows):
    """Names that would run, leave the folder, steer a terminal or not be encoded."""
    name = "../../<script>alert('x')</script>&\x1b[31m\u202e\n[bold]=1\udc80" + "long" * 60
    warnings = ("</ul><img src=x onerror=alert(1)>\x07",)
    return replace(brows, clip=name, classes=("<b>no</b>", "[red]\x1b", "a,\"b'"), warnings=warnings)
