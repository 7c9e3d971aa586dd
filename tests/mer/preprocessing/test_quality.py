import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from mer.flow import flow_map
from mer.preprocessing.faces import FaceFinder, alignment, crop
from mer.preprocessing.quality import count_faces, doubts, face_width


@pytest.fixture(scope="module")
def portrait():
    return astronaut()[:300, 60:400]


@pytest.fixture(scope="module")
def landmarks(portrait):
    with FaceFinder() as finder:
        return finder.landmarks(portrait)


@pytest.fixture
def say(portrait, landmarks):
    """The doubts of a still portrait, with changes."""
    face = cv2.cvtColor(crop(portrait, alignment(landmarks)), cv2.COLOR_RGB2GRAY)
    calm = {
        "frames_per_second": 200.0,
        "onset_landmarks": 2 * landmarks,
        "apex_landmarks": 2 * landmarks,
        "flow": np.zeros((3, 128, 128), np.float32),
        "movement": np.array([0, 0.4]),
        "crops": [face, face],
    }
    return lambda **changes: " ".join(doubts(**{**calm, **changes}))


def test_a_calm_clip_has_no_doubts(say):
    assert say() == ""
    assert say(frames_per_second=None, onset_landmarks=None, apex_landmarks=None) == ""


def test_each_doubt_has_its_sentence(say, portrait, landmarks):
    assert "30 frames per second" in say(frames_per_second=30.0)
    assert f"the face is {face_width(landmarks):.0f} px wide" in say(onset_landmarks=landmarks)
    assert "5.0 px of 128" in say(movement=np.array([0, 5.0, 1.0]))
    transform = alignment(landmarks)
    faces = [crop(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY), transform) for _ in range(2)]
    turned = cv2.warpAffine(faces[0], np.float32([[1, 0, 5], [0, 1, 2]]), (128, 128), borderMode=cv2.BORDER_REPLICATE)
    assert "the head moves by 4%" in say(flow=flow_map(faces[0], turned, "farneback"))
    assert "jumps" in say(crops=[faces[0], 255 - faces[0]])


def test_a_blink_is_told_from_the_lids(say, landmarks):
    closed = 2 * landmarks.copy()
    for upper, lower in ((159, 145), (158, 153), (386, 374), (385, 380)):
        closed[upper] = closed[lower]
    assert "the eyes close" in say(apex_landmarks=closed)
    assert "the eyes open" in say(onset_landmarks=closed, apex_landmarks=2 * landmarks)


def test_faces_are_counted(portrait):
    assert count_faces(portrait) == 1
    assert count_faces(np.hstack([portrait, portrait[:, ::-1]])) == 2
    assert count_faces(np.full((200, 200, 3), 128, np.uint8)) == 0
