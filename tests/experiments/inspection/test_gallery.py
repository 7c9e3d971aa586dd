import re

import pytest

from data_modules.cache import extract
from data_modules.casme2 import CASME2
from data_modules.composite import MEGC2019
from data_modules.flow_maps import FlowMaps
from experiments.inspection import gallery
from mer import InputError
from tests import trees


@pytest.fixture(autouse=True)
def no_faces(monkeypatch):
    monkeypatch.setattr(extract, "run", trees.prepare_without_faces)


@pytest.mark.parametrize("name", ["casme2", "megc2019"])
def test_every_clip_has_its_picture(tmp_path, name):
    if name == "casme2":
        root = trees.casme2(tmp_path / "data", folder="Cropped", frame="reg_img{}.jpg")
        data = CASME2(root=str(root), cache=str(tmp_path / "cache"), crop_size=32)
    else:
        data = MEGC2019(root=str(trees.megc2019(tmp_path / "data")), cache=str(tmp_path / "cache"), crop_size=32)
    data.prepare_data()
    page = gallery.write(data, tmp_path / "results")
    text = page.read_text()
    pictures = re.findall(r'<img loading="lazy" src="([^"]+)"', text)
    assert len(pictures) == len(set(pictures)) == len(data.clips)
    assert {path.name for path in page.parent.iterdir()} == {*pictures, "index.html"}
    assert all(
        f">{clip}</b>" in text.replace(f"{subject} ", ">") for subject, clip in data.clips[["subject", "clip"]].values
    )
    assert all(f'id="{name}"' in text for name in data.classes) and "http" not in text


def test_flow_maps_have_no_gallery(flow_maps, tmp_path):
    with pytest.raises(InputError, match="no videos"):
        gallery.write(FlowMaps(root=str(flow_maps)), tmp_path)
