"""Read a control plan: products, what is checked on them, known defects, how serious they are and what to do.

.. code-block:: yaml

    control_plan: CP-17
    products:
      - product: transistor
        characteristics:
          - characteristic: lead geometry
            severity: 8
            disposition: rework
            reaction_plan: Stop the forming press and check the die.
            defects:
              - type: bent_lead
                note: A lead is bent outwards.
                causes: [worn forming die]
                picture: photos/bent.jpg

What a product or a characteristic says holds for each of its defects that does not say otherwise. The file is the one
that ``tools.control_plan`` describes; what it says of a product's inspection makes no page and is left out here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...agent.errors import KnowledgeError
from ..control_plan.schema import INSPECTION_KEYS
from .import_rows import MAX_ROWS, ImportRow, ImportSource, RowError, field_name, picture_inside, picture_key
from .safe_yaml import LOADER, check_yaml
from .sections import printable

_INHERITED = frozenset({"product", "characteristic", "severity", "action", "reaction_plan"})


@dataclass(frozen=True)
class _Mapping:
    """A mapping of the file: text, lists and mappings by key, and the line on which it begins."""

    line: int
    values: Mapping[str, Any]


def read_plan(path: Path, text: str, product: str | None, notes: tuple[str, ...]) -> ImportSource:
    """Rows of a control plan, one for each defect.

    Args:
        path: of the file; pictures are relative to it.
        text: its content.
        product: of defects for which none is named.
        notes: what is to be said anyway.

    Raises:
        KnowledgeError: it is no YAML, no control plan, or holds no defect.
    """
    top = _parsed(path.name, text)
    if not isinstance(top, _Mapping) or not set(top.values) <= {"control_plan", "products", "characteristics"}:
        raise KnowledgeError(
            f"{path.name} is no control plan.", hint="At its top stand products, and control_plan for its name."
        )
    name = top.values.get("control_plan")
    title = f"{path.name}, {printable(name)[:30]}" if isinstance(name, str) and name.strip() else path.name
    rows: list[ImportRow] = []
    refused: list[str] = []
    inherited = {} if product is None else {"product": product}
    for place, found in _defects(top, inherited):
        if len(rows) + len(refused) >= MAX_ROWS:
            raise KnowledgeError(f"{path.name} has more than {MAX_ROWS} defects.", hint="Split it.")
        if isinstance(found, str):
            refused.append(f"{place}: {found}")
            continue
        try:
            rows.append(_row(place, found, path.parent))
        except RowError as error:
            refused.append(f"{place}: {error.message}")
    if not rows and not refused:
        raise KnowledgeError(f"{path.name} holds no defects.", hint="List them under products, characteristics.")
    return ImportSource(title, tuple(rows), tuple(refused), notes)


def _defects(top: _Mapping, inherited: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Place and fields of each defect, or what is wrong there."""
    for key in ("products", "characteristics"):
        yield from _level(top.values.get(key), key, top.line, inherited)


def _level(found: Any, key: str, line: int, inherited: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """The defects in a list of products, characteristics or defects."""
    if found is None:
        return
    if not isinstance(found, list):
        yield f"line {line}", f"{key} must be a list"
        return
    for item in found:
        if not isinstance(item, _Mapping):
            yield f"line {line}", f"each of the {key} must be a mapping such as 'type: burr'"
            continue
        place = f"line {item.line}"
        try:
            own, below = _split(item, key)
        except RowError as error:
            yield place, error.message
            continue
        fields = {**inherited, **own}
        if key == "defects":
            yield place, fields
            continue
        for name, inner in below.items():
            yield from _level(inner, name, item.line, fields)


def _split(item: _Mapping, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a mapping says itself, and its lists."""
    lists = {"products": ("characteristics", "defects"), "characteristics": ("defects",), "defects": ()}[key]
    own: dict[str, Any] = {}
    for written, value in item.values.items():
        if written in lists or (key == "products" and written in INSPECTION_KEYS):
            continue
        named = {"products": "product", "characteristics": "characteristic"}.get(key)
        name = named if named and written == "name" else field_name(written)
        if name is None or (key != "defects" and name not in _INHERITED):
            raise RowError(f"the key {printable(written)[:40]!r} is not read here")
        if name in own:
            raise RowError(f"{name} is given twice")
        if value is not None:
            own[name] = value
    return own, {name: item.values[name] for name in lists if name in item.values}


def _row(place: str, fields: dict[str, Any], folder: Path) -> ImportRow:
    if not fields.get("type") and not fields.get("note"):
        raise RowError("neither a type nor a note is given")
    if any(isinstance(value, _Mapping) for value in fields.values()):
        raise RowError("a value is a mapping where text is expected")
    if any(not isinstance(one, str) for value in fields.values() if isinstance(value, list) for one in value):
        raise RowError("a list holds something else than text")
    name = fields.get("picture")
    if not name:
        return ImportRow(place, fields)
    if not isinstance(name, str):
        raise RowError("picture must be one path")
    path = picture_inside(folder, name)
    return ImportRow(place, fields, path, picture_key(name))


def _parsed(name: str, text: str) -> Any:
    """The file as text, lists and mappings with their lines; every value is the text that is written there."""
    try:
        check_yaml(text)
        return _plain(name, yaml.compose(text, Loader=LOADER))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = printable(str(getattr(error, "problem", None) or error))[:120]
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise KnowledgeError(f"{name}{where}: no valid control plan: {reason}.", hint="Correct the file.") from error


def _plain(name: str, node: Any) -> Any:
    if node is None:
        return None
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" else str(node.value).strip()
    if isinstance(node, yaml.SequenceNode):
        return [_plain(name, one) for one in node.value]
    values: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value in values:
            raise KnowledgeError(f"{name}, line {key.start_mark.line + 1}: a key is no word or is written twice.")
        values[str(key.value)] = _plain(name, value)
    return _Mapping(line, values)
