"""The command as a user starts it, and the page in a browser as a user sees it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn

from data_modules.processes import whole_files
from experiments.cli import main
from tests.browser import CHROMIUM
from tests.devtools import open_browser

ROOT = Path(__file__).parents[3]
SHOWN = "document.querySelector('h1') && document.readyState === 'complete'"
RESULT = f"{SHOWN} && document.querySelector('.chances-chart')"
REFUSED = f"{SHOWN} && document.querySelector('[role=alert]')"
FIT = "document.documentElement.scrollWidth <= innerWidth"


class Server:
    """``mer demo``, its address and what it has written."""

    def __init__(self, folder, *words):
        self.temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # a longer name would not be used
        self.errors = folder / "stderr"
        command = [sys.executable, "-m", "experiments.cli", "demo", "--port", "0", *words]
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip
        self.said = self.process.stdout.readline()
        self.address = re.search(r"http://\S+", self.said)[0]

    def end(self):
        """Interrupt it: its exit status."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(60)
        self.process.stdout.close()
        shutil.rmtree(self.temporary)
        return status


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"), "--model", ",".join(map(str, models)), "--largest", "3")
    yield running
    if running.process.poll() is None:
        running.end()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("no Chromium is installed")
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def upload(tab, server, files, model="casme3-ststnet"):
    tab.open(server.address)
    tab.choose("input[type=file]", *files)
    tab.run(f"document.querySelector('select').value = '{model}'; document.querySelector('button').click()")


def check(tab, server):
    """Nothing was asked of anybody else, and the browser has nothing to complain of but a refusal's status."""
    asked = {event["request"]["url"] for event in tab.events("Network.requestWillBeSent")}
    assert all(url.startswith((server.address, "data:")) for url in asked)
    entries = [event["entry"] for event in tab.events("Log.entryAdded")]
    assert not [entry for entry in entries if entry["source"] != "network"]
    assert not tab.events("Runtime.exceptionThrown")


@pytest.mark.parametrize(
    ("width", "dark", "kind"), [(1200, False, "video"), (420, True, "frames"), (420, False, "pair")]
)
def test_a_clip_is_sent_and_shown(browser, server, clips, width, dark, kind):
    tab = browser.tab(width, dark)
    tab.open(server.address)
    assert tab.run(FIT) and (tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)") == dark
    files = getattr(clips, kind)
    upload(tab, server, files, "samm-ststnet")
    tab.wait(RESULT)
    title = files[0].name if len(files) == 1 else f"{len(files)} pictures"
    assert tab.run("document.querySelector('h1').textContent") == title
    assert "samm-ststnet" in tab.run("document.querySelector('.top').textContent")
    assert tab.run("document.images.length") == 5
    assert tab.run("[...document.images].every((image) => image.naturalWidth > 0)") and tab.run(FIT)
    tab.run("document.querySelector('a').click()")
    tab.wait(f"{SHOWN} && document.querySelector('form')")
    check(tab, server)


def test_a_wrong_file_is_named_and_the_next_is_shown(browser, server, clips):
    tab = browser.tab(420)
    upload(tab, server, clips.nonsense)
    tab.wait(REFUSED)
    assert "nonsense.mp4: is no video" in tab.run("document.querySelector('[role=alert]').textContent")
    assert tab.run(FIT) and not tab.run("document.querySelector('button').disabled")
    upload(tab, server, clips.pair)
    tab.wait(RESULT)
    check(tab, server)


def test_a_large_file_is_not_sent_by_the_page_nor_taken_by_the_server(browser, server, tmp_path):
    (tmp_path / "large.avi").write_bytes(bytes(8_000_000))
    tab = browser.tab()
    upload(tab, server, [tmp_path / "large.avi"])
    assert tab.run("document.querySelector('input').validationMessage") == "These files have 8 MB; 3 are taken."
    assert not [event for event in tab.events("Network.requestWillBeSent") if event["request"]["method"] == "POST"]
    tab.call("Emulation.setScriptExecutionDisabled", value=True)  # then the server says it
    tab.open(server.address)
    tab.choose("input[type=file]", tmp_path / "large.avi")
    tab.run("document.querySelector('form').submit()")
    tab.wait(REFUSED)
    assert "more than 3 MB" in tab.run("document.querySelector('[role=alert]').textContent")


def test_without_scripts_a_form_does(browser, server, clips):
    tab = browser.tab()
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(server.address)
    tab.choose("input[type=file]", *clips.pair)
    tab.run("document.querySelector('form').requestSubmit()")
    tab.wait(RESULT)


def test_two_users_at_once_have_their_own_results_while_the_page_answers(browser, server, clips):
    tabs = [browser.tab(), browser.tab(420, True)]
    files = [clips.video, clips.frames]
    for tab, sent in zip(tabs, files):
        tab.open(server.address)
        tab.choose("input[type=file]", *sent)
    for tab in tabs:
        tab.run("document.querySelector('button').click()")
    seen = tabs[1].run("[document.querySelector('.state')?.textContent, document.querySelector('progress')?.hidden]")
    assert seen in (["is being computed", False], [None, None])  # the second, if the answer was there before
    third = browser.tab()
    third.open(server.address)
    assert third.run("document.querySelector('form') !== null")
    for tab, title in zip(tabs, ["clip of a face.avi", "3 pictures"]):
        tab.wait(RESULT)
        assert tab.run("document.querySelector('h1').textContent") == title
        check(tab, server)


def test_a_user_may_leave_while_sending(server):
    address = urlsplit(server.address)
    head = f"POST / HTTP/1.1\r\nHost: {address.netloc}\r\nOrigin: {server.address}\r\nContent-Length: 1000000\r\n"
    part = '--x\r\nContent-Disposition: form-data; name="files"; filename="secret.avi"\r\n\r\nRIFF'
    with socket.create_connection((address.hostname, address.port), timeout=30) as line:
        line.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n{part}".encode())


def test_nothing_is_kept_and_no_name_is_written(server):
    """After all that was sent to it by the tests above."""
    (own,) = server.temporary.iterdir()
    assert not [path for path in own.rglob("*") if not path.name.endswith(("wandb-artifacts", "wandb-media"))]
    assert server.end() == 0 and server.errors.read_text() == ""


@pytest.fixture
def signals():
    """What the command makes of signals ends with the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, action in before.items():
        signal.signal(number, action)


def test_other_hosts_are_warned_of_and_a_kill_is_as_ctrl_c(models, monkeypatch, signals, capsys):
    start = uvicorn.Server.startup

    async def start_and_end(server, sockets):
        await start(server, sockets)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(uvicorn.Server, "startup", start_and_end)
    monkeypatch.setattr(whole_files, "use_own_temporary_folder", lambda: None)
    words = ["demo", "--model", str(models[0]), "--host", "0.0.0.0", "--port", "0"]
    monkeypatch.setattr(sys, "argv", ["mer", *words])  # as the program, which has signals of its own
    assert main() == 0
    assert "--host 0.0.0.0: anybody who reaches this machine can use this page" in capsys.readouterr().err


def test_a_port_in_use_is_one_line(models, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--model", str(models[0]), "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"cannot listen on 127.0.0.1, port {port} (" in error and "--port" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--model"),
        (["--model", "nowhere"], "nowhere/config.yaml: cannot be read"),
        (["--model", "a,,b"], "is not a list of names"),
        (["--model", "nowhere", "--port", "70000"], "'70000' is no port"),
        (["--model", "nowhere", "--largest", "0"], "'0' is not a whole number above 0"),
        (["--model", "nowhere", "--host", "no host"], "cannot listen on no host"),
    ],
)
def test_wrong_words_are_one_line(words, message, capsys):
    assert main(["demo", "--port", "0", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_models_of_one_name_are_refused(models, capsys):
    assert main(["demo", "--port", "0", "--model", f"{models[0]},{models[0]}"]) == 2
    assert "two models are called casme3-ststnet" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "python_multipart"])
def test_without_the_extra_it_says_what_to_install(missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["demo", "--model", "models/x"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "install the extra" in error and "python-multipart" in error
