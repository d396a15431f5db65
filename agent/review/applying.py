"""Confirmed decisions become part of a product, and can be taken out again.

The journal says what is going to be done before anything is, and what was done afterwards; both the product and the
plant's pages tell by themselves whether their part is done. A process that is killed anywhere is therefore finished by
the next one, and nothing is done twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import ConfigError, ProductError, ReviewConflictError
from ..home import Home, alone
from .changes import Change, Kept, Part, ProductChange, ProductHistory, history_of, manifest_of
from .decisions import Decision, person
from .items import ReviewItem
from .journal import Journal
from .originals import Originals
from .standing import PRODUCT, standing_of

LOCK = ".products.lock"


class Pages(Protocol):
    """The plant's pages, as far as reviews write them."""

    def add(self, parts: Sequence[tuple[ReviewItem, Decision, str]]) -> dict[str, str]:
        """Make pages of items, decisions and reviewers that have none yet.

        Returns:
            What became of each item: the page's id, or why there is none.
        """

    def remove(self, items: Sequence[str], by: str) -> list[str]:
        """Remove the pages that were made of these items; their ids."""


Enrol = Callable[[str, Sequence[Path], Path | None], None]
"""Learns a product anew from references and, if given, a folder of defect examples."""


@dataclass(frozen=True)
class Applied:
    """What came of a step.

    Attributes:
        number: of the change.
        product: its name.
        enrolled: whether the product was learnt anew, or put back.
        pages: what became of each item's page, or the pages that were removed.
    """

    number: int
    product: str
    enrolled: bool
    pages: dict[str, str]


class ProductDesk:
    """Applies changes and takes them back.

    Args:
        home: of the products and reviews.
        enrol: learns a product anew.
        pages: of the plant.
    """

    def __init__(self, home: Home, enrol: Enrol, pages: Pages) -> None:
        self._home = home
        self._journal = Journal(home.reviews)
        self._originals = Originals(home)
        self._enrol = enrol
        self._pages = pages

    def apply(
        self, change: ProductChange, by: str, *, references: Sequence[Path] = (), defects: Path | None = None
    ) -> Applied:
        """Let a product and the plant's pages learn from a change.

        Args:
            change: from `proposed`.
            by: who does it.
            references: where the good pictures are that the product was enrolled with.
            defects: folder of the defect examples that it was enrolled with.

        Raises:
            ConfigError: there is nothing to learn, or an earlier step was not finished.
            ReviewConflictError: somebody else has applied it meanwhile.
            ProductError: pictures that the product was enrolled with are not at hand.
            StorageError: the disk refuses.
        """
        with self._alone():
            known = history_of(self._journal, change.product)
            if known.open is not None:
                raise ConfigError(f"an earlier change of {change.product} was not finished.", hint=_FINISH)
            if not change.parts:
                raise ConfigError(f"there is nothing that {change.product} could learn.")
            planned = self._plan(change, known, references, defects)
            data = planned.model_dump(mode="json")
            self._journal.append(PRODUCT + change.product, "applying", person(by), data, after=known.version)
            return self._carry_out(change.product, planned, person(by))

    def finish(self, product: str, by: str) -> Applied | None:
        """Finish what a killed process began; None when there is nothing.

        Raises:
            FlawscopeError: as in `apply` and `revert`.
        """
        with self._alone():
            known = history_of(self._journal, product)
            if known.open == "applying":
                return self._carry_out(product, known.changes[-1], person(by))
            return self._take_back(product, known, person(by)) if known.open == "reverting" else None

    def revert(self, product: str, by: str) -> Applied:
        """Take the last change of a product back: the product as it was before, without the pages.

        Raises:
            ConfigError: there is none.
            ProductError: the product has been enrolled anew since.
        """
        with self._alone():
            known = history_of(self._journal, product)
            if not known.changes:
                raise ConfigError(f"{product} has learnt nothing from reviews that could be taken back.")
            last = known.changes[-1]
            self._refuse_other_product(product, last, known)
            if known.open != "reverting":
                data = {"number": last.number}
                self._journal.append(PRODUCT + product, "reverting", person(by), data, after=known.version)
            return self._take_back(product, history_of(self._journal, product), person(by))

    def _plan(
        self, change: ProductChange, known: ProductHistory, references: Sequence[Path], defects: Path | None
    ) -> Change:
        for part in change.parts:
            if standing_of(self._journal, part.id).applied is not None:  # since it was proposed
                raise ReviewConflictError(f"{part.id} has been applied meanwhile.", hint=_LOOK)
            item, _, _ = self._decided(change.product, part)
            self._originals.keep(Path(item.image), part.sha256)
        product, examples = change.product, None
        good: tuple[Kept, ...] = ()
        if change.enrols:
            good = self._originals.keep_references(product, references)
            good += tuple(Kept(name=part.name, sha256=part.sha256) for part in change.parts if part.reference)
        fresh = tuple(Kept(name=p.name, sha256=p.sha256, kind=p.example) for p in change.parts if p.example)
        if fresh or (change.enrols and defects is not None):
            before = next((old.examples for old in reversed(known.changes) if old.examples is not None), None)
            examples = self._originals.keep_examples(product, defects, before)
            examples += tuple(picture for picture in fresh if picture not in examples)
        return Change(
            number=known.count + 1,
            parts=change.parts,
            before=self._originals.keep_product(product),
            enrols=change.enrols,
            references=good,
            examples=examples,
        )

    def _carry_out(self, product: str, change: Change, by: str) -> Applied:
        """Do what is not done yet."""
        wanted = [self._decided(product, part) for part in change.parts if part.page]
        pages = self._pages.add(wanted) if wanted else {}
        if change.enrols and self._present(product) == change.before:
            with tempfile.TemporaryDirectory() as folder:
                good = self._originals.lay_out(change.references, Path(folder) / "good")
                examples = None
                if change.examples:
                    examples = Path(folder) / "defects"
                    self._originals.lay_out(change.examples, examples)
                self._enrol(product, good, examples)
        version = history_of(self._journal, product).version
        done = {"number": change.number, "after": self._present(product), "pages": pages}
        self._journal.append(PRODUCT + product, "applied", by, done, after=version)
        return Applied(change.number, product, change.enrols, pages)

    def _take_back(self, product: str, known: ProductHistory, by: str) -> Applied:
        last = known.changes[-1]
        removed = self._pages.remove([part.id for part in last.parts if part.page], by)
        moved = self._present(product) != last.before
        if moved:
            self._originals.restore_product(product, last.before)
        self._journal.append(PRODUCT + product, "reverted", by, {"number": last.number}, after=known.version)
        return Applied(last.number, product, moved, dict.fromkeys(removed, "removed"))

    def _refuse_other_product(self, product: str, last: Change, known: ProductHistory) -> None:
        present, after = self._present(product), known.after.get(last.number)
        if after is not None and present not in (after, last.before):
            raise ProductError(
                f"{product} has been enrolled anew since it learnt from reviews, so that cannot be taken back.",
                hint="Enrol it from the pictures that shall count: flawscope enroll",
            )

    def _present(self, product: str) -> str:
        return str(manifest_of(self._home.products / product)["sha256"])

    def _decided(self, product: str, part: Part) -> tuple[ReviewItem, Decision, str]:
        standing = standing_of(self._journal, part.id)
        if standing.item is None or standing.decision is None or standing.confirmed_by is None:
            raise ConfigError(
                f"{part.id} has been undone meanwhile.", hint=f"Take that back: flawscope review undo product:{product}"
            )
        return standing.item, standing.decision, standing.decided_by

    def _alone(self) -> AbstractContextManager[None]:
        return alone(self._home.reviews / LOCK)


_FINISH = "Finish it: flawscope review apply"
_LOOK = "Look again: flawscope review apply"
