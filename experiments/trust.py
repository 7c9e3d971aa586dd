"""What a configuration may name: classes of a few packages, and nothing else."""

from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings
from yaml import YAMLError

from data_modules import DATASETS
from experiments.jobs import load_class
from experiments.results import check_yaml
from mer import InputError

PACKAGES = ("mer", "data_modules", "experiments", "torch", "lightning", "timm")
"""Packages whose classes a configuration may name. Others are imported only if the user names them."""
_load = get_loader("yaml")
_named: set[str] = set()


def trust(packages: tuple[str, ...]) -> None:
    """Have jsonargparse refuse, before it imports it, whatever lies outside ``PACKAGES`` and these.

    Args:
        packages: What the user has named with ``--allow``.

    Raises:
        InputError: If one of them is no name of a package.
    """
    allowed = [*PACKAGES, *DATASETS.values(), *packages]
    earlier = sorted(_named.difference(allowed))  # they are global
    try:
        set_parsing_settings(
            import_path_denylist=["*", *earlier], import_path_allowlist=allowed, instantiate_subclass_spec_in_any=False
        )
    except ValueError as error:
        raise InputError(f"--allow {','.join(packages)} names no package that can be allowed: {error}") from error
    _named.update(packages)
    set_loader("yaml", _load_plain, exceptions=(YAMLError, ValueError))


def check_names(config: object) -> None:
    """Refuse a configuration that names a function: what it would do nobody has declared.

    Args:
        config: Parsed, and so with names of allowed packages alone.

    Raises:
        InputError: With the name.
    """
    if isinstance(config, Namespace | dict):
        for name, value in config.items():
            if name == "class_path" and not isinstance(load_class(value), type):
                raise InputError(f"'{value}' is no class, and a configuration may name nothing else")
            check_names(value)
    elif isinstance(config, list | tuple):
        for value in config:
            check_names(value)
    elif callable(config) and not isinstance(config, type):
        name = f"{getattr(config, '__module__', '')}.{getattr(config, '__qualname__', config)}"
        raise InputError(f"'{name}' is no class, and a configuration may name nothing else")


def _load_plain(text: str) -> object:
    check_yaml(text)
    return _load(text)
