"""The report in a browser, where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")

# Appended to a copy of the page: what a reader would see of it, sent to the page that frames it. A frame can be as
# narrow as a phone; a window cannot.
ASK = """<script>addEventListener("load", () => {
  const [table] = document.querySelectorAll("table");
  const inside = (e) => e.closest(".scroll, .track") !== null;
  const far = [...document.body.querySelectorAll("*")].filter(
    (e) => !inside(e) && e.getBoundingClientRect().right > innerWidth + 0.5);
  parent.postMessage(JSON.stringify({
    width: innerWidth, scrolls: document.documentElement.scrollWidth, far: far.map((e) => e.outerHTML.slice(0, 80)),
    paper: getComputedStyle(document.body).backgroundColor, csv: csv(table), latex: latex(table),
    images: [...document.images].every((i) => i.loading === "lazy" || i.naturalWidth > 0) }), "*");
});</script>"""
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<script>addEventListener("message", ({ data }) => (document.body.dataset.seen = data))</script>
<body><iframe src="copy.html" width="{width}" height="900" style="border: 0"></iframe></body>"""


def look(page, tmp_path, width, dark, more=ASK):
    """What a reader would see of the page, and what the browser's console says."""
    (tmp_path / "copy.html").write_text(page.replace("</body>", more + "</body>"))
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


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_the_page_fits_and_says_nothing_to_the_console(page, tmp_path, width, dark):
    seen, console = look(page, tmp_path, width, dark)
    assert seen["width"] == width and seen["scrolls"] == width and not seen["far"]
    assert not console and seen["images"]
    assert (seen["paper"] == "rgb(21, 23, 26)") == dark


def test_tables_are_copied_as_csv_and_latex(page, tmp_path):
    seen, _ = look(page, tmp_path, 1440, False)
    header, *lines = seen["csv"].splitlines()
    assert header == "data,best model,UF1,95 % interval,next,difference,p (Holm)"
    assert lines[0].startswith('"megc2019, megc2019, loso",ahmsa_net (012345),0.') and len(lines) == 2
    latex = seen["latex"].splitlines()
    assert latex[:2] == ["\\begin{tabular}{llrrlrr}", "\\toprule"] and latex[-1] == "\\end{tabular}"
    assert latex[2] == "data & best model & UF1 & 95 \\% interval & next & difference & p (Holm) \\\\"
    assert "ahmsa\\_net (012345)" in latex[4] and "--" in latex[4] and "$\\leq$" in latex[4] + "$\\leq$"


def test_an_error_would_be_seen(page, tmp_path):
    _, console = look(page, tmp_path, 1440, False, "<script>nothing.here()</script>")
    assert console
