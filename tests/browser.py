"""Looking at a page with a browser, where there is one."""

import html
import json
import re
import shutil
import subprocess

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)

# Appended to a copy of the page: what a reader would see of it, sent to the page that frames it. A frame can be as
# narrow as a phone; a window cannot.
ASK = """<script>addEventListener("load", () => {
  const inside = (e) => e.closest(".scroll, .track") !== null;
  const far = [...document.body.querySelectorAll("*")].filter(
    (e) => !inside(e) && e.getBoundingClientRect().right > innerWidth + 0.5);
  parent.postMessage(JSON.stringify({
    width: innerWidth, scrolls: document.documentElement.scrollWidth, far: far.map((e) => e.outerHTML.slice(0, 80)),
    paper: getComputedStyle(document.body).backgroundColor, MORE
    images: [...document.images].every((i) => i.loading === "lazy" || i.naturalWidth > 0) }), "*");
});</script>"""
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<script>addEventListener("message", ({ data }) => (document.body.dataset.seen = data))</script>
<body><iframe src="copy.html" width="{width}" height="900" style="border: 0"></iframe></body>"""


def look(page, tmp_path, width, dark, more="", script=ASK):
    """What a reader would see of the page, and what the browser's console says.

    Args:
        page: Its text.
        tmp_path: For copies of it.
        width: Of the frame, in pixels.
        dark: The reader's colour scheme.
        more: Further fields of what is seen, in JavaScript.
        script: What asks for it.
    """
    (tmp_path / "copy.html").write_text(page.replace("</body>", script.replace("MORE", more) + "</body>"))
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("{width}", str(width)))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1500,1000",
        "--hide-scrollbars", "--enable-logging=stderr", "--dump-dom", frame.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = re.search(r'data-seen="([^"]*)"', shown.stdout)
    console = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    return (json.loads(html.unescape(seen[1])) if seen else {}), console
