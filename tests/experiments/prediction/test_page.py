import base64
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.prediction.page import NO_LIE_DETECTOR, file_names, page, write
from tests.browser import CHROMIUM, look
from tests.pages import Tables


@pytest.fixture(scope="module")
def text(brows):
    return page(brows, "casme3-ahmsa_net")


def pictures(text):
    """Pictures of a page by caption, RGB."""
    addresses = re.findall(r'<img src="data:image/\w+;base64,([^"]+)" alt="([^"]*)"', text)
    return {
        caption: cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        for data, caption in addresses
    }


def words(text):
    """What a reader reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text.split("</style>")[1]))


def test_a_page_shows_everything(text, brows):
    shown = words(text)
    for expected in (
        "casme3-ahmsa_net", "sub03/EP01_02.avi", NO_LIE_DETECTOR, "surprise probability 0.62 ± 0.11", "0.21 ± 0.04",
        "frame 40 0.200 s", "frame 46 0.230 s", "frame 52 0.260 s", f"{brows.face_width:.0f} px wide",
        "200 frames per second", *brows.warnings, "onset 40", "apex 46", "offset 52",
    ):  # fmt: skip
        assert expected in shown
    assert list(pictures(text)) == [
        "onset, frame 40", "apex, frame 46", "flow", "strain", "attention", "colour wheel of the flow",
    ]  # fmt: skip
    assert text.count('<circle class="dot"') == 13
    assert 'height="12" width="62.00%"' in text and 'class="whisker spread" x1="51.00%" x2="73.00%"' in text


def test_the_pictures_are_those_of_the_clip(text, brows):
    drawn = pictures(text)
    small = cv2.resize(drawn["apex, frame 46"], (128, 128), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - brows.apex_face).mean() < 3 < np.abs(small - brows.apex_face[::-1]).mean()
    red, green, blue = drawn["flow"].astype(float).transpose(2, 0, 1)
    upper, lower = np.s_[40:90, 60:196], np.s_[180:240, 60:196]
    assert (blue - green)[upper].mean() > 60 > 20 > (blue - green)[lower].mean()  # brows go up; the chin is still
    grey, orange = (np.ptp(drawn["attention"][place].astype(float), axis=-1).mean() for place in (lower, upper))
    assert orange > 60 > 20 > grey


def test_a_still_face_looks_still(brows):
    noise = np.random.default_rng(0).normal(0, 0.04, (3, 128, 128)).astype(np.float32)
    still = page(replace(brows, flow=np.abs(noise)), "model")
    assert "the rim and the full colour are 0.3 px" in re.sub(r"\s+", " ", still)
    assert pictures(still)["flow"].min(axis=-1).mean() > 190


def test_what_is_unknown_is_left_out(bare):
    text = page(bare, "model")
    shown = words(text)
    assert list(pictures(text))[2:] == ["flow", "strain", "colour wheel of the flow"]
    assert "frame rate unknown" in shown and "no spread between seeds is known" in shown
    for word in (" s ", "Seconds", "Attention", "±", "doubtful", "nan", "None"):
        assert word not in shown


def test_a_page_needs_nothing_else(brows, bare, tmp_path):
    write([brows, bare], tmp_path, "model")
    for path in tmp_path.glob("*.html"):
        read = Tables(path.read_text())
        assert "script" not in read.tags and "url(" not in path.read_text()
        local = [address for address in read.addresses if not address.startswith("data:")]
        assert all((tmp_path / address).is_file() for address in local)
        assert bool(local) == (path.name == "index.html")


def test_names_are_harmless(hostile, tmp_path):
    index = write([hostile, hostile], tmp_path / "out", "<i>model</i>\x1b")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    pages = sorted((tmp_path / "out").glob("*.html"))
    assert len(pages) == 3 and index in pages
    for path in pages:
        tags = set(Tables(path.read_text()).tags)
        assert not tags & {"script", "b", "i"} and "onerror" not in re.sub(r"&lt;.*?&gt;", "", path.read_text())
        assert "\x1b" not in path.read_text() and "\u202e" not in path.read_text()
    assert json.loads((tmp_path / "out/predictions.json").read_text())[0]["clip"] == hostile.clip


def test_a_single_clip_needs_no_list(brows, tmp_path):
    opened = write([brows], tmp_path, "model")
    assert opened.name.startswith("sub03_EP01_02.avi-") and opened.is_file()
    assert {path.name for path in tmp_path.iterdir()} == {opened.name, "predictions.json", "predictions.csv"}


def test_the_list_leads_to_every_clip(brows, bare, tmp_path):
    text = write([brows, bare, brows], tmp_path, "model").read_text()
    header, *rows = Tables(text).tables["predictions"]
    assert [row[0] for row in rows] == [brows.clip, bare.clip, brows.clip]
    assert header[-1] == "doubtful because" and rows[0][1] == "surpriseprobability 0.62 ± 0.11"
    links = [address for address in Tables(text).addresses if address.endswith(".html")]
    assert len(set(links)) == 3 and all((tmp_path / link).is_file() for link in links)
    assert bare.clip in (tmp_path / links[1]).read_text()


@given(st.lists(st.text(max_size=80) | st.sampled_from(["a", "A", "a/b", "a_b", "..", "", "con", "index"]), max_size=8))
def test_every_clip_has_its_own_file(clips):
    names = file_names(clips)
    assert len({name.lower() for name in names}) == len(clips)
    assert all(re.fullmatch(r"\w[\w.-]*-[0-9a-f]{12}(-\d+)?\.html", name, re.ASCII) for name in names)
    assert all(len(name) < 100 for name in names) and file_names(clips) == names


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (420, True)])
def test_pages_fit_and_say_nothing_to_the_console(brows, hostile, tmp_path, width, dark):
    index = write([brows, hostile], tmp_path / "out", "casme3-ahmsa_net")
    for path in (tmp_path / "out").glob("*.html") if width == 420 else [index]:
        seen, console = look(path.read_text(), tmp_path, width, dark)
        assert seen["width"] == seen["scrolls"] == width and not seen["far"], path.name
        assert not console and seen["images"] and (seen["paper"] == "rgb(21, 23, 26)") == dark
