"""A headless Chromium that is driven as its developer tools drive it, over two pipes."""

import json
import os
import select
import subprocess
import time
from contextlib import contextmanager

from tests.browser import CHROMIUM

PATIENCE = 90  # seconds


class Tab:
    """A page that a user of their own has open."""

    def __init__(self, browser, target, width, dark):
        self.browser = browser
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def run(self, script):
        """What an expression gives in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def choose(self, selector, *paths):
        """Put files into an input, as a user does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def wait(self, script):
        """Until an expression is true, also over pages."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = self.call("Runtime.evaluate", expression=f"Boolean({script})", returnByValue=True)
            if answer.get("result", {}).get("value") is True:
                return
            time.sleep(0.05)
        raise TimeoutError(script)

    def events(self, method):
        """What the page has reported of a kind so far."""
        seen = self.browser.events
        return [
            event["params"] for event in seen if event.get("sessionId") == self.session and event["method"] == method
        ]


class Browser:
    """See ``open_browser``."""

    def __init__(self, send, receive):
        self.send, self.receive, self.events, self._waiting, self._last = send, receive, [], b"", 0

    def call(self, method, session=None, **parameters):
        """Ask the browser for something and wait for its answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self.events.append(answer)

    def _read(self):
        while b"\0" not in self._waiting:
            assert select.select([self.receive], [], [], PATIENCE)[0], "the browser is silent"
            part = os.read(self.receive, 1 << 20)
            assert part, "the browser has ended"
            self._waiting += part
        message, _, self._waiting = self._waiting.partition(b"\0")
        return json.loads(message)

    def tab(self, width=1200, dark=False):
        """A page of another user: no cookies, no cache in common."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return Tab(self, target, width, dark)


@contextmanager
def open_browser(folder):
    """A browser whose profile lies in a folder."""
    theirs, ours = os.pipe(), os.pipe()
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        f"--user-data-dir={folder}", "--remote-debugging-pipe",
    ]  # fmt: skip
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{ours[1]}', "bash", *command],
        pass_fds=(theirs[0], ours[1]),
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs[0])
    os.close(ours[1])
    try:
        yield Browser(theirs[1], ours[0])
    finally:
        process.terminate()
        process.wait(PATIENCE)
        os.close(theirs[1])
        os.close(ours[0])
