import doctest
import subprocess
import sys

import numpy as np
import pytest
from skimage.data import astronaut

import mer


def test_the_examples_hold():
    assert doctest.testmod(mer).attempted > 4 and doctest.testmod(mer).failed == 0


def test_nothing_heavy_is_imported_before_it_is_used():
    code = "import sys, mer; sys.exit(bool({'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_all_names_are_there_and_no_others():
    for name in ("UAR", "UF1", "align", "flow_map", "load", "tvl1"):
        assert name in dir(mer) and callable(getattr(mer, name))
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        mer.fly  # noqa: B018


def test_a_face_is_aligned():
    portrait = astronaut()[:300, 60:400]
    face = mer.align(portrait)
    assert face.shape == (128, 128, 3) and face.dtype == np.uint8 and face.std() > 20
    later = np.roll(astronaut()[:300, 60:400], 3, axis=1)
    assert (
        np.abs(mer.align(later).astype(int) - face).mean()
        < np.abs(mer.align(later, like=portrait).astype(int) - face).mean()
    )
    with pytest.raises(mer.InputError, match="no face is found in the picture of 80 x 60"):
        mer.align(np.zeros((60, 80, 3), np.uint8))
