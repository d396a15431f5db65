"""What the journal comes to: where each item stands, and an audit's verdicts with the decisions laid over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pydantic import ValidationError

from ...audits.records import AuditRecord
from ..errors import StorageError
from ..schemas import Verdict
from .decisions import Decision
from .items import ReviewItem, record_item_id
from .journal import Entry, Journal

PRODUCT = "product:"


@dataclass(frozen=True)
class Standing:
    """Where an item stands.

    Attributes:
        id: the item's.
        version: entries so far; what a writer must have seen.
        item: as it was when decided; None when nothing stands.
        decision: None when it is open.
        decided_by: who decided.
        confirmed_by: who confirmed; None when nobody has.
        to_resume: a thread waits for this decision and has not been told yet.
        to_reopen: a thread was told a decision that has been undone, and must ask again.
        applied: the product's change that it went into; None when none.
    """

    id: str
    version: int = 0
    item: ReviewItem | None = None
    decision: Decision | None = None
    decided_by: str = ""
    confirmed_by: str | None = None
    to_resume: bool = False
    to_reopen: bool = False
    applied: int | None = None

    @property
    def state(self) -> str:
        """In one word."""
        if self.decision is None:
            return "open"
        if self.applied is not None:
            return "applied"
        return "decided" if self.confirmed_by is None else "confirmed"


def follow(standing: Standing, entry: Entry) -> Standing:
    """What an entry makes of a standing.

    Raises:
        StorageError: the entry is damaged.
    """
    moved = replace(standing, version=entry.version)
    if entry.kind == "decided":
        try:
            item = ReviewItem.model_validate(entry.data["item"])
            decision = Decision.model_validate(entry.data["decision"])
        except (KeyError, ValidationError) as error:
            raise StorageError(
                f"entry {entry.seq} of the journal of reviews is damaged.", hint="Restore it from a copy."
            ) from error
        asked = item.question is not None
        return Standing(entry.subject, entry.version, item, decision, entry.by, to_resume=asked)
    if entry.kind == "undone":
        reopen = bool(entry.data.get("reopen"))
        return Standing(entry.subject, entry.version, standing.item if reopen else None, to_reopen=reopen)
    if entry.kind == "confirmed":
        return replace(moved, confirmed_by=entry.by)
    if entry.kind == "unconfirmed":
        return replace(moved, confirmed_by=None)
    if entry.kind == "resumed":
        return replace(moved, to_resume=False)
    if entry.kind == "reopened":
        return Standing(entry.subject, entry.version)
    return moved


def standings(journal: Journal) -> dict[str, Standing]:
    """Where every item stands that was ever decided, by id.

    Raises:
        StorageError: the journal cannot be read.
    """
    found: dict[str, Standing] = {}
    of_products: dict[str, list[Entry]] = {}
    for entry in journal.entries():
        if entry.subject.startswith(PRODUCT):
            of_products.setdefault(entry.subject, []).append(entry)
        else:
            found[entry.subject] = follow(found.get(entry.subject, Standing(entry.subject)), entry)
    for entries in of_products.values():
        for name, number in _applied(entries).items():
            found[name] = replace(found[name], applied=number)
    return found


def standing_of(journal: Journal, name: str) -> Standing:
    """Where one item stands.

    Raises:
        StorageError: the journal cannot be read.
    """
    standing = Standing(name)
    for entry in journal.entries(name):
        standing = follow(standing, entry)
    if standing.item is None or standing.item.product is None:
        return standing
    return replace(standing, applied=_applied(journal.entries(PRODUCT + standing.item.product)).get(name))


def _applied(entries: Iterable[Entry]) -> dict[str, int]:
    """Items that a product has learnt from and not forgotten, with the number of the change."""
    changes: dict[int, list[str]] = {}
    for entry in entries:
        if entry.kind == "applying":
            changes[int(entry.data["number"])] = [str(part["id"]) for part in entry.data["parts"]]
        elif entry.kind == "reverted":
            changes.pop(int(entry.data["number"]), None)
    return {name: number for number, names in changes.items() for name in names}


@dataclass(frozen=True)
class DecidedRecord:
    """A record and what a person said of it.

    Attributes:
        record: the machine's.
        standing: of its item; None when nobody has decided.
    """

    record: AuditRecord
    standing: Standing | None

    @property
    def verdict(self) -> Verdict:
        """The person's where there is one, else the machine's."""
        decision = self.standing.decision if self.standing else None
        return self.record.verdict if decision is None else Verdict(decision.verdict)

    @property
    def defect_type(self) -> str | None:
        """The name of the defect type, from whoever has the last word on the part."""
        decision = self.standing.decision if self.standing else None
        if decision is not None:
            return decision.defect_type
        return None if self.record.defect_type is None else self.record.defect_type.name


def decided(records: Iterable[AuditRecord], journal: Journal) -> Iterator[DecidedRecord]:
    """Records with the decisions that stand laid over the machine's verdicts, in their order.

    Args:
        records: of an audit.
        journal: of the home that the reviews were made in.

    Raises:
        StorageError: the journal cannot be read.
    """
    known = standings(journal)
    for record in records:
        found = known.get(record_item_id(record))
        yield DecidedRecord(record, found if found is not None and found.decision is not None else None)
