"""What a trained model says of a clip."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one clip, and what it saw.

    Attributes:
        clip: The clip as it was named, with its interval if it is a part of a longer video.
        classes: Names of the K classes, in order.
        probabilities: Mean over the model's seeds, float32 (K,).
        spread: Standard deviation over the seeds, float32 (K,); 0 for a single seed.
        onset: Number of the first frame.
        apex: Number of the frame that the flow leads to.
        offset: Number of the last frame.
        frames_per_second: None if nobody knows it.
        start: Number of the first frame of the clip, or of the longer video that it is a part of: its time is 0.
        face_width: Distance of the outer ends of the face in the onset frame, in pixels; None for registered faces.
        warnings: What makes the prediction doubtful, one sentence each.
        flow: The flow map (3, S, S) of the aligned face, S the model's ``crop_size``: u (right), v (down), both in
            pixels, and strain.
        onset_face: The aligned face at the onset, uint8 RGB (S, S, 3).
        apex_face: Likewise at the apex.
        attention: Where the network looked, float32 (s, s) in [0, 1], mean over the seeds; None if it does not show it.
        frame_numbers: Numbers of the n frames from onset to offset that the motion was measured in.
        movement: How far the face has moved since the onset in each of them, without the head, in pixels of an aligned
            face of 128, float64 (n,).
    """

    clip: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    spread: NDArray[np.float32]
    onset: int
    apex: int
    offset: int
    frames_per_second: float | None
    face_width: float | None
    warnings: tuple[str, ...]
    flow: NDArray[np.float32]
    onset_face: NDArray[np.uint8]
    apex_face: NDArray[np.uint8]
    attention: NDArray[np.float32] | None
    frame_numbers: NDArray[np.int64]
    movement: NDArray[np.float64]
    start: int = 0

    @property
    def label(self) -> str:
        """The class with the highest probability."""
        return self.classes[int(np.argmax(self.probabilities))]

    def seconds(self, frame: int) -> float | None:
        """When a frame is shown, in seconds to the microsecond; None if the rate is unknown."""
        rate = self.frames_per_second
        return round((int(frame) - self.start) / rate, 6) if rate else None
