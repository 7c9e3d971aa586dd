"""The layouts that ``mer synthesize`` writes, each as the datasets in it by the folder that holds them."""

from data_modules.synthesis.layouts.casme2 import CASME2Layout
from data_modules.synthesis.layouts.casme3 import CASME3Layout
from data_modules.synthesis.layouts.clips import ClipsLayout
from data_modules.synthesis.layouts.layout import Layout
from data_modules.synthesis.layouts.samm import SAMMLayout
from data_modules.synthesis.layouts.smic import SMICLayout
from mer import InputError, near

LAYOUTS: dict[str, dict[str, Layout]] = {
    "casme2": {"": CASME2Layout()},
    "samm": {"": SAMMLayout()},
    "smic": {"": SMICLayout()},
    "casme3": {"": CASME3Layout()},
    "clips": {"": ClipsLayout()},
    "megc2019": {"casme2": CASME2Layout(), "samm": SAMMLayout(), "smic": SMICLayout()},
}


def find(name: str) -> dict[str, Layout]:
    """Look a layout up by its name.

    Raises:
        InputError: If there is no such layout; the message lists those that there are.
    """
    if name not in LAYOUTS:
        raise InputError(f"unknown layout '{name}'; there are {', '.join(LAYOUTS)}{near(name, LAYOUTS)}")
    return LAYOUTS[name]
