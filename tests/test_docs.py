import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from experiments.diagrams import made
from experiments.diagrams.drawing import Block, Figure
from experiments.diagrams.measured import measure

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_docs_are_what_the_networks_make():
    stale = [path.name for path, text in made().items() if not path.exists() or path.read_text() != text]
    assert not stale, f"{', '.join(stale)}: run python -m experiments.diagrams"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_a_figure_is_xml_and_its_words_are_escaped():
    figure = Figure(200, "A & B", "x < y")
    figure.chain(24, 100, Block("tensor", 60, "<x>"), Block("attention", 60, "a & b"), "+", lift=30)
    words = [text.text for text in ElementTree.fromstring(figure.svg()).iter("{http://www.w3.org/2000/svg}text")]
    assert {"A & B", "x < y", "<x>", "a & b", "+", "attention"} <= set(words)


def test_a_multiply_add_counts_as_two():
    found = measure("ststnet", "paper")
    convolutions, linear = 28 * 28 * 16 * 27, 400 * 3
    assert (found.parameters(), found.flops) == (1683, 2 * (convolutions + linear))
    assert found.shapes["pool"] == (16, 5, 5)
