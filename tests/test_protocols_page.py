"""The counts on the page of the protocols are those that the suite checks its data against."""

from pathlib import Path

from data_modules.protocols import PROTOCOLS

PAGE = (Path(__file__).parents[1] / "docs/protocols.md").read_text()


def test_the_page_has_the_counts_of_every_protocol():
    for name, rules in PROTOCOLS.items():
        for database, (clips, subjects, counts) in rules.parts.items() if name != "union-3" else ():
            classes = ", ".join(f"{label} {count}" for label, count in zip(rules.classes, counts, strict=True))
            assert f"| `{name}` | {database} | {clips} | {subjects} | {classes} |" in PAGE
