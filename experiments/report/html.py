"""Pages that need nothing but a browser, and look alike whatever they show."""

from base64 import b64encode
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

from data_modules.cache.store import write_text
from mer import __version__

HERE = "experiments.report"


def render(template: str, package: str = HERE, /, **content: object) -> str:
    """A page; in HTML every text is escaped.

    Args:
        template: A file in ``templates`` of the package; it extends ``base.html``, which has the look.
        package: Where it lies, if not here.
        content: What it shows.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys([package, HERE])]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_address"] = data_address
    return environment.get_template(template).render(version=__version__, **content)


def data_address(text: str) -> str:
    """The address of a CSV that lies in the page itself."""
    return f"data:text/csv;base64,{b64encode(_encoded(text)).decode()}"


def write(path: Path, text: str) -> None:
    """Write a page, or what belongs to it, whole.

    Half a character, which a file name that is no UTF-8 leaves, is written as its code.

    Raises:
        WriteError: As ``data_modules.cache.store.whole_file``.
    """
    write_text(path, _encoded(text).decode())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
