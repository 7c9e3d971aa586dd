import re
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from experiments.demo.app import ANOTHER, application
from experiments.prediction.page import page
from mer.trained import load

LARGEST = 2_000_000
HOME = "http://127.0.0.1:7860"
OWN = {"Origin": HOME}


@pytest.fixture(scope="module")
def loaded(models):
    return {folder.name: load(folder, "cpu") for folder in models}


@pytest.fixture(scope="module")
def client(loaded):
    return TestClient(
        application(loaded, host="127.0.0.1", largest=LARGEST), base_url=HOME, raise_server_exceptions=False
    )


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """Where temporary files are written."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def send(client, *files, headers=OWN, **fields):
    """Upload files: paths, or pairs of a name and content."""
    parts = [(path.name, path.read_bytes()) if isinstance(path, Path) else path for path in files]
    return client.post("/", files=[("files", part) for part in parts], data=fields, headers=headers)


def said(response):
    """What the page says went wrong."""
    return re.search(r'role="alert"><h4>[^<]*</h4><p>([^<]*)</p>', response.text)[1]


def test_a_clip_has_the_page_that_predict_writes(client, loaded, models, clips, empty):
    for folder in models:
        response = send(client, *clips.video, model=folder.name)
        result = replace(loaded[folder.name].predict(clips.video[0]), clip=clips.video[0].name)
        assert response.status_code == 200 and ANOTHER in response.text
        assert response.text.replace(f"\n{ANOTHER}", "", 1) == page(result, folder.name)
    assert not list(empty.iterdir())


@pytest.mark.parametrize(("kind", "facts"), [("frames", "frame 8,frame 10"), ("pair", "frame 0,frame 1")])
def test_pictures_are_ordered_by_their_names(client, clips, kind, facts):
    text = send(client, *getattr(clips, kind)).text
    assert f"<h1>{len(getattr(clips, kind))} pictures</h1>" in text
    frames = re.findall(r"<strong>(frame \d+)</strong>", text)
    assert ",".join([frames[0], frames[-1]]) == facts


def test_two_numbered_pictures_are_onset_and_apex(client, clips):
    onset, apex = clips.pair[1].read_bytes(), clips.pair[0].read_bytes()
    text = send(client, ("img900.png", apex), ("img7.png", onset)).text
    assert text == send(client, *clips.pair).text


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nonsense", "nonsense.mp4: is no video that opens"),
        ("noise", "noise.avi, frame 0: no face is found in the onset frame"),
        ("two_faces", "two.avi: there are two faces in frame 0"),
        ("damaged", "as frame11.jpg: is not an image that opens"),
        ("same_number", "two pictures have the number 10"),
        ("unnumbered", "onset.png: has no number in its name"),
        ("mixed", "there are 2 files, not all of which are pictures"),
        ("single", "there is one picture"),
    ],
)
def test_what_is_no_clip_is_named(client, clips, empty, kind, message):
    response = send(client, *getattr(clips, kind))
    assert response.status_code == 400 and message in said(response)
    assert str(empty) not in response.text and not list(empty.iterdir())


def test_nothing_is_a_message_too(client):
    for response in (client.post("/", headers=OWN), send(client, ("", b""))):
        assert response.status_code == 400 and "there is no file" in said(response)
    assert "no such model" in said(send(client, ("a.avi", b"x"), model="<b>other"))
    response = client.post("/", content=b"--x\r\n", headers={**OWN, "Content-Type": "multipart/form-data"})
    assert response.status_code == 400 and said(response)


def test_a_playlist_opens_no_other_file(client, clips):
    entry = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{clips.video[0]}\n#EXT-X-ENDLIST\n"
    for name in ("list.avi", "list.m3u8"):
        response = send(client, (name, entry.encode()))
        assert response.status_code == 400 and "is no video" in said(response)


def test_names_of_files_lead_nowhere(client, clips, empty):
    name = "../../<b>up</b>/..\\evil\x1b[31m.avi"
    response = send(client, (name, clips.video[0].read_bytes()))
    assert response.status_code == 200 and "&lt;b&gt;up" in response.text and "\x1b" not in response.text
    picture = clips.frames[0].read_bytes()
    response = send(client, ("../../../1.jpg", picture), ("/tmp/frame2.jpg", picture))
    assert response.status_code == 200 and not list(empty.iterdir())


def test_a_large_upload_is_stopped_while_it_comes(client, empty):
    read = 0

    def body():
        nonlocal read
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.avi"\r\n\r\n'
        for _ in range(1000):
            read += 1 << 20
            yield bytes(1 << 20)

    response = client.post("/", content=body(), headers={**OWN, "Content-Type": "multipart/form-data; boundary=x"})
    assert response.status_code == 413 and said(response) == "these files have more than 2 MB; cut the video"
    assert not list(empty.iterdir())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200), ("localhost:7860", 200), ("[::1]:7860", 200), ("192.168.1.5", 200),
        ("evil.example", 403), ("evil.example:7860", 403), ("localhost.evil.example", 403), ("127.0.0.1.example", 403),
        ("", 403), ("[", 403), ("localhost@evil.example", 403),
    ],
)  # fmt: skip
def test_the_server_answers_to_its_own_names(client, host, status):
    assert client.get("/", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:7861", "http://127.0.0.1", "null", "", "127.0.0.1:7860"]
)
def test_a_form_of_another_page_is_refused(client, clips, origin):
    response = send(client, *clips.video, headers={"Origin": origin})
    assert response.status_code == 403 and "own page" in response.text
    if not origin:
        assert send(client, *clips.video, headers={}).status_code == 403


def test_every_page_loads_nothing_from_elsewhere(client, clips):
    form, again = client.get("/"), client.get("/")
    refused = send(client, *clips.nonsense), client.get("/other"), client.put("/", headers=OWN)
    for response in (form, send(client, *clips.pair), *refused):
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; img-src data:;") and "frame-ancestors 'none'" in policy
        assert response.headers["Cache-Control"] == "no-store" and "http" not in policy
        addresses = re.findall(r'\b(?:src|href|action)="([^"]*)"', response.text)
        assert all(address.startswith("data:") or address == "/" for address in addresses)
    nonce = re.search(r'<script nonce="([^"]+)">', form.text)[1]
    assert f"'nonce-{nonce}'" in form.headers["Content-Security-Policy"] and nonce not in again.text
    assert "script" not in send(client, *clips.pair).headers["Content-Security-Policy"]


def test_the_server_survives_what_nobody_expected(client, loaded, clips, monkeypatch):
    monkeypatch.setattr(loaded["casme3-ststnet"], "predict", lambda clip: 1 / 0)
    response = send(client, *clips.video)
    assert response.status_code == 500 and "its terminal says why" in said(response)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    monkeypatch.undo()
    assert send(client, *clips.pair).status_code == 200


def test_clips_are_classified_one_after_another_while_the_page_answers(loaded, clips, monkeypatch):
    classify, inside, most, entered, go = loaded["samm-ststnet"].predict, [], [], threading.Event(), threading.Event()

    def watched(clip):
        inside.append(threading.get_ident())
        most.append(len(inside))
        entered.set()
        assert go.wait(60)
        result = classify(clip)
        inside.pop()
        return result

    for model in loaded.values():
        monkeypatch.setattr(model, "predict", watched)
    app = application(loaded, host="127.0.0.1", largest=LARGEST)
    with TestClient(app, base_url=HOME) as users, ThreadPoolExecutor(3) as threads:  # all in one event loop
        waiting = [threads.submit(send, users, *clips.pair, model=name) for name in [*loaded, *loaded][:3]]
        assert entered.wait(60)
        assert users.get("/").status_code == 200 and not any(answer.done() for answer in waiting)
        go.set()
        assert [answer.result(60).status_code for answer in waiting] == [200] * 3
    assert most == [1, 1, 1]


def test_the_page_says_what_is_kept_and_how_much_is_taken(client):
    text = client.get("/").text
    assert "What is kept" in text and "2 MB at most" in text and "no lie detector" in text
    assert re.findall(r"<option>([^<]+)", text) == ["casme3-ststnet", "samm-ststnet"]
