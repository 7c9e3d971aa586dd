"""YAML that does not grow when it is read."""

import yaml
from yaml import AliasEvent, CollectionEndEvent, CollectionStartEvent, YAMLError

DEEPEST = 40  # lists and mappings inside one another
LARGEST = 1 << 20  # characters


def check_yaml(text: str) -> None:
    """Refuse YAML that a few lines could make grow without end: aliases, or many collections inside one another.

    Raises:
        YAMLError: If it is such, or no YAML.
    """
    if len(text) > LARGEST:
        raise YAMLError(f"it has over {LARGEST} characters, as no configuration has")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent):
            raise YAMLError(f"the alias *{event.anchor}: write what it stands for")
        if depth > DEEPEST:
            raise YAMLError(f"over {DEEPEST} lists or mappings lie inside one another")
