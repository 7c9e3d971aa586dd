"""The report in a browser, where there is one."""

import pytest

from tests.browser import CHROMIUM, look

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")

# The page's own functions, on its first table.
TABLE = 'csv: csv(document.querySelector("table")), latex: latex(document.querySelector("table")),'


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_the_page_fits_and_says_nothing_to_the_console(page, tmp_path, width, dark):
    seen, console = look(page, tmp_path, width, dark)
    assert seen["width"] == width and seen["scrolls"] == width and not seen["far"]
    assert not console and seen["images"]
    assert (seen["paper"] == "rgb(21, 23, 26)") == dark


def test_tables_are_copied_as_csv_and_latex(page, tmp_path):
    seen, _ = look(page, tmp_path, 1440, False, TABLE)
    header, *lines = seen["csv"].splitlines()
    assert header == "data,best model,UF1,95 % interval,next,difference,p (Holm)"
    assert lines[0].startswith('"megc2019, megc2019, loso",ahmsa_net (012345),0.') and len(lines) == 2
    latex = seen["latex"].splitlines()
    assert latex[:2] == ["\\begin{tabular}{llrrlrr}", "\\toprule"] and latex[-1] == "\\end{tabular}"
    assert latex[2] == "data & best model & UF1 & 95 \\% interval & next & difference & p (Holm) \\\\"
    assert "ahmsa\\_net (012345)" in latex[4] and "--" in latex[4] and "$\\leq$" in latex[4] + "$\\leq$"


def test_an_error_would_be_seen(page, tmp_path):
    _, console = look(page, tmp_path, 1440, False, script="<script>nothing.here()</script>")
    assert console
