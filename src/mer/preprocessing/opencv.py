"""OpenCV, imported in one place: ``from mer.preprocessing.opencv import cv2``.

Its wheel leaves a few libraries to the system (libGL, GLib), which servers and containers often lack. MediaPipe imports
OpenCV too, so a module that uses both imports this one first.
"""

import os
import re

from mer import InputError

# A file of a few bytes may claim to hold a billion pixels; 8K video has fewer than these. Read on import.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 25))

try:
    import cv2
except ImportError as error:
    library = re.search(r"lib[\w.+-]*\.so[.\d]*", str(error))
    if library is None:
        raise
    raise InputError(
        f"OpenCV does not start: the system library {library[0]} is missing ({error}). Install it with "
        "`apt-get install libgl1 libglib2.0-0` (Debian, Ubuntu), `dnf install mesa-libGL glib2` (Fedora) or "
        "`conda install -c conda-forge libgl glib`."
    ) from None

__all__ = ["cv2"]
