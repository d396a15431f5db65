"""Look at YAML from outside before it is loaded: the C loader ends the whole process where nesting is deep enough."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 40
LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""The same as the safe loader, ten times as fast where it was built with libyaml."""


def check_yaml(text: str | bytes, *, aliases: bool = False) -> None:
    """Refuse what is harmless to read and harmful to load.

    Args:
        text: a YAML document.
        aliases: whether ``*name`` may occur; a few lines of them stand for any number of copies.

    Raises:
        ValueError: it is nested too deep, or uses an alias.
        yaml.YAMLError: it is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise ValueError(f"line {line} uses an alias (*name): write out what it stands for")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"line {line} is nested too deep")
