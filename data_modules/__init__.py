"""The data: one data module per dataset, chosen by name; ``fold.FoldDataModule`` hands its folds to Lightning."""

from importlib import import_module
from typing import Any

DATASETS = {
    "synthetic": "data_modules.synthetic.Synthetic",
    "casme2": "data_modules.casme2.CASME2",
    "samm": "data_modules.samm.SAMM",
    "smic": "data_modules.smic.SMIC",
    "casme3": "data_modules.casme3.CASME3",
    "megc2019": "data_modules.composite.MEGC2019",
    "composite": "data_modules.composite.Composite",
    "clips": "data_modules.clips.Clips",
    "flow_maps": "data_modules.flow_maps.FlowMaps",
}


def data_module(name: str) -> Any:
    """Import the data module of a name in ``DATASETS``."""
    module, _, kind = DATASETS[name].rpartition(".")
    return getattr(import_module(module), kind)
