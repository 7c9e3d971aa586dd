"""What makes a prediction of a clip doubtful: its frame rate, face, head motion, blinks, cuts."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer.preprocessing.faces import silence
from mer.preprocessing.head_motion import fit, max_corner_shift, still_parts

SLOWEST = 50
"""Frames per second. A micro-expression may last a tenth of a second, of which slower cameras see few frames."""
SMALLEST_FACE = 150
"""Pixels. In a smaller face the skin moves by less than a pixel in an expression that can just be seen."""
FARTHEST_HEAD = 0.03
"""Motion of the head between onset and apex as a part of the crop's side."""
LARGEST_MOVEMENT = 3.0
"""Mean movement in pixels of a face of 128: a laugh, or speech, but no micro-expression."""
CLOSED = 0.6
"""Height of the eyes at the apex divided by that at the onset."""
CUT = 25.0
"""Mean difference in grey levels between two neighbouring frames."""

# Upper and lower lid of both eyes in MediaPipe's face mesh, and their corners.
_LIDS = ((159, 145), (158, 153), (386, 374), (385, 380))
_CORNERS = ((33, 133), (33, 133), (362, 263), (362, 263))


def face_width(landmarks: NDArray[np.float32]) -> float:
    """Width in pixels of the face with these landmarks (478, 2)."""
    return float(np.ptp(landmarks[:, 0]))


def count_faces(image: NDArray[np.uint8]) -> int:
    """Faces in an image, RGB (H, W, 3), that are at least half as wide as the widest."""
    with silence():
        detections = _detector().process(image).detections or []
    widths = [detection.location_data.relative_bounding_box.width for detection in detections]
    return sum(width >= 0.5 * max(widths) for width in widths)


def doubts(
    *,
    frames_per_second: float | None,
    onset_landmarks: NDArray[np.float32] | None,
    apex_landmarks: NDArray[np.float32] | None,
    flow: NDArray[np.float32],
    movement: NDArray[np.float64],
    crops: Sequence[NDArray[np.uint8]],
) -> Iterator[str]:
    """What makes the prediction of a clip doubtful, one sentence each.

    Args:
        frames_per_second: None if nobody knows it.
        onset_landmarks: Of the face, (478, 2); None for registered faces.
        apex_landmarks: Likewise; None if no face was seen there.
        flow: Flow map (3, S, S) of the aligned face.
        movement: See ``mer.preprocessing.apex``, up to the apex.
        crops: Aligned faces of neighbouring frames, uint8 grey.
    """
    size = flow.shape[-1]
    if frames_per_second is not None and frames_per_second < SLOWEST:
        yield f"{frames_per_second:g} frames per second: micro-expressions were recorded with {SLOWEST} and more"
    if onset_landmarks is not None and (width := face_width(onset_landmarks)) < SMALLEST_FACE:
        yield f"the face is {width:.0f} px wide: below {SMALLEST_FACE} px little of the skin's motion is left"
    head = max_corner_shift(fit(flow[:2], still_parts(size)), size)
    if head > FARTHEST_HEAD * size:
        yield f"the head moves by {head / size:.0%} of the face between onset and apex"
    if movement.max() > LARGEST_MOVEMENT:
        yield f"the face moves by {movement.max():.1f} px of 128: more than a micro-expression does"
    if onset_landmarks is not None and apex_landmarks is not None:
        ratio = _eye_height(apex_landmarks) / max(_eye_height(onset_landmarks), 1e-6)
        if not CLOSED < ratio < 1 / CLOSED:
            lids = "close" if ratio < 1 else "open"
            yield f"the eyes {lids} between onset and apex: a blink moves more than most expressions"
    jumps = [float(np.abs(b.astype(np.float32) - a).mean()) for a, b in zip(crops, crops[1:])]
    if jumps and max(jumps) > CUT:
        yield "the picture jumps between two frames: a cut?"


def _eye_height(landmarks: NDArray[np.float32]) -> float:
    """Height of the open eyes divided by their width (Soukupova and Cech, CVWW 2016)."""

    def lengths(pairs: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        first, second = np.array(pairs).T
        return np.linalg.norm(landmarks[first] - landmarks[second], axis=1)

    return float((lengths(_LIDS) / np.maximum(lengths(_CORNERS), 1e-6)).mean())


@cache
def _detector() -> Any:
    """A detector of all faces of an image, opened once."""
    with silence():
        from mediapipe.python.solutions.face_detection import FaceDetection

        detector = FaceDetection(model_selection=1, min_detection_confidence=0.6)
        detector.process(np.zeros((32, 32, 3), np.uint8))  # its threads write warnings while it opens
    return detector
