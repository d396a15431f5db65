"""What confirmed decisions would change: pictures for a product's references and defect examples, and pages.

A part that is OK becomes a good reference, so that the thresholds are worked out with it; one that is NG and has a type
becomes an example of the type; what a person wrote becomes a page of the plant. Nothing here changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import FlawscopeError, InputError, ProductError, StorageError
from ..schemas import Frozen, Verdict
from .desk import refuse_changed
from .items import ReviewItem
from .journal import Entry, Journal
from .standing import PRODUCT, Standing, standings


class Part(Frozen):
    """One decision's share in a change.

    Attributes:
        id: the item's.
        sha256: of the picture.
        name: its file's name.
        reference: it becomes a good reference.
        example: it becomes an example of this defect type.
        page: it becomes a page of the plant.
    """

    id: str
    sha256: str
    name: str
    reference: bool = False
    example: str | None = None
    page: bool = False


@dataclass(frozen=True)
class ProductChange:
    """What confirmed decisions would change of one product.

    Attributes:
        product: its name.
        parts: in the order of their confirmation.
        left_out: item ids with the reason why nothing is learnt from them.
    """

    product: str
    parts: tuple[Part, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def enrols(self) -> bool:
        """Whether the product itself changes."""
        return any(part.reference or part.example for part in self.parts)


def proposed(journal: Journal, products: Path) -> list[ProductChange]:
    """Everything that is confirmed and not yet applied, by product; those without a product come under ``""``.

    Args:
        journal: of the reviews.
        products: folder of the enrolled products.

    Raises:
        StorageError: the journal cannot be read.
    """
    grouped: dict[str, list[Standing]] = {}
    for standing in standings(journal).values():
        if standing.state == "confirmed" and standing.item is not None:
            grouped.setdefault(standing.item.product or "", []).append(standing)
    return [_change(name, of, products) for name, of in sorted(grouped.items())]


def _change(product: str, confirmed: list[Standing], products: Path) -> ProductChange:
    left_out: dict[str, str] = {}
    parts: dict[str, Part] = {}
    try:
        known = {entry["sha256"] for entry in manifest_of(products / product)["references"]} if product else set()
        refused = None if product else "it names no product"
    except ProductError as error:
        known, refused = set(), error.message.rstrip(".")
    for standing in confirmed:
        item = standing.item
        assert item is not None  # noqa: S101  # proposed() takes no others
        try:
            part = _part(item, standing, known)
        except FlawscopeError as error:
            left_out[item.id] = error.message.rstrip(".")
            continue
        if refused is not None:
            left_out[item.id] = refused
        elif part.sha256 in parts:
            left_out[item.id] = f"its picture is that of {parts[part.sha256].id}"
        elif not (part.reference or part.example or part.page):
            taught = "the product knows the picture" if part.sha256 in known else "it has neither a type nor a note"
            left_out[item.id] = taught
        else:
            parts[part.sha256] = part
    return ProductChange(product, tuple(parts.values()), left_out)


def _part(item: ReviewItem, standing: Standing, known: set[str]) -> Part:
    decision = standing.decision
    assert decision is not None  # noqa: S101  # it is confirmed
    if item.sha256 is None or item.error is not None:
        raise InputError("its picture could not be inspected.")
    if not Path(item.image).is_file():
        raise InputError(f"{item.image} is gone.")
    refuse_changed(item)
    good = decision.verdict is Verdict.OK
    return Part(
        id=item.id,
        sha256=item.sha256,
        name=Path(item.image).name,
        reference=good and item.sha256 not in known,
        example=None if good else decision.defect_type,
        page=bool(decision.note or decision.defect_type),
    )


def manifest_of(folder: Path) -> dict[str, Any]:
    """What an enrolled product says of itself.

    Raises:
        ProductError: it is not enrolled, or cannot be read.
    """
    try:
        manifest = json.loads((folder / "product.json").read_text(encoding="utf-8"))
        _ = [entry["sha256"] for entry in manifest["references"]], manifest["sha256"]
    except FileNotFoundError as error:
        raise ProductError(f"the product {folder.name!r} is not enrolled.") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProductError(f"the product {folder.name!r} is damaged.") from error
    return dict(manifest)


# --- what was changed before ------------------------------------------------------------------------------------------


class Kept(Frozen):
    """A picture that is kept by its content.

    Attributes:
        name: of its file.
        sha256: of its bytes.
        kind: the defect type that it shows; None for a good reference.
    """

    name: str
    sha256: str
    kind: str | None = None


class Change(Frozen):
    """A change of a product, as the journal has it.

    Attributes:
        number: counted from 1 for each product.
        parts: what it consists of.
        before: hash of the product's manifest.
        enrols: whether the product itself changes.
        references: all good references afterwards.
        examples: all defect examples afterwards; None where the types stay as they are.
    """

    number: int
    parts: tuple[Part, ...]
    before: str
    enrols: bool
    references: tuple[Kept, ...]
    examples: tuple[Kept, ...] | None


@dataclass(frozen=True)
class ProductHistory:
    """The changes of a product that stand, oldest first, and how far the last step came.

    Attributes:
        version: entries so far.
        changes: those that were not taken back.
        after: hash of the product's manifest after each, by number.
        open: ``applying`` or ``reverting`` when a process was killed in it, else None.
        count: changes that there ever were.
    """

    version: int
    changes: tuple[Change, ...]
    after: Mapping[int, str]
    open: str | None
    count: int


def history_of(journal: Journal, product: str) -> ProductHistory:
    """What the journal says of a product.

    Raises:
        StorageError: it cannot be read, or an entry is damaged.
    """
    changes: dict[int, Change] = {}
    after: dict[int, str] = {}
    version, count, unfinished = 0, 0, None
    for entry in journal.entries(PRODUCT + product):
        version = entry.version
        unfinished = entry.kind if entry.kind in ("applying", "reverting") else None
        try:
            number = int(entry.data["number"])
            if entry.kind == "applying":
                changes[number], count = _read(entry), count + 1
            elif entry.kind == "applied":
                after[number] = str(entry.data["after"])
            elif entry.kind == "reverted":
                changes.pop(number)
        except (KeyError, ValueError, ValidationError) as error:
            raise StorageError(
                f"entry {entry.seq} of the journal of reviews is damaged.", hint="Restore it from a copy."
            ) from error
    return ProductHistory(version, tuple(changes.values()), after, unfinished, count)


def _read(entry: Entry) -> Change:
    return Change.model_validate(entry.data)


__all__ = ["Change", "Kept", "Part", "ProductChange", "history_of", "manifest_of", "proposed"]
