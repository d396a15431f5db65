"""The desk: what waits for a person, and what a person does with it.

A decision is in the journal before its thread is told, and the journal says when the thread has been. Whoever comes to
the desk next finishes what a killed process left between the two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...audits.record_file import read_records, records_path
from ..errors import ConfigError, FlawscopeError, InputError, ReviewConflictError
from ..home import alone
from ..schemas import Verdict
from .decisions import Decision, person
from .items import Question, ReviewItem, record_items
from .journal import Journal, Kind
from .standing import Standing, standing_of, standings
from .threads import GraphThreads

LOCK = ".threads.lock"
SHORTEST_ID = 4
UNREAD_HINT = "Take the picture again and inspect it, or decide NG; undecided it stays REVIEW."


@dataclass(frozen=True)
class Waiting:
    """An item and where it stands."""

    item: ReviewItem
    standing: Standing


@dataclass(frozen=True)
class Outcome:
    """What came of a step.

    Attributes:
        standing: of the item now.
        verdict: that a thread ended with, None when none was told.
        asked_again: the item under which an undone thread waits now.
        problem: why a thread could not be told; the decision stands, and telling is tried again.
    """

    standing: Standing
    verdict: str | None = None
    asked_again: str | None = None
    problem: FlawscopeError | None = None


class ReviewDesk:
    """The queue of a home.

    Args:
        folder: of the home's reviews.
        audits: folders of audits.
        threads: whose questions are asked; None leaves threads alone.
        everything: also what the machine decided.
        second_person: a decision is confirmed by somebody other than who made it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        audits: Sequence[Path] = (),
        threads: GraphThreads | None = None,
        everything: bool = False,
        second_person: bool = False,
    ) -> None:
        self.journal = Journal(folder)
        self._audits = tuple(audits)
        self._threads = threads
        self._everything = everything
        self._second_person = second_person
        self._lock = folder / LOCK
        self._read: dict[Path, tuple[tuple[int, int], list[tuple[ReviewItem, str | None]]]] = {}

    # --- looking ----------------------------------------------------------------------------------------------------

    def queue(self) -> list[Waiting]:
        """All that is open or was decided: audits in their order, then threads, then what only the journal knows.

        Raises:
            InputError: an audit cannot be read.
            StorageError: the journal cannot be read.
        """
        known = standings(self.journal)
        items = {item.id: item for item in self._items()}
        for name, standing in known.items():
            if standing.item is not None:
                items[name] = standing.item  # as it was when somebody decided
        return [Waiting(item, known.get(name, Standing(name))) for name, item in items.items()]

    def find(self, name: str) -> Waiting:
        """The item whose id begins so.

        Raises:
            ConfigError: there is none, or more than one.
        """
        if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_ID},16}}", name):
            raise ConfigError(
                f"{name[:40]!r} cannot be an item's id.",
                hint=f"Give its first {SHORTEST_ID} letters or more, as `flawscope review list` shows them.",
            )
        found = [waiting for waiting in self.queue() if waiting.item.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"{len(found)} items begin with {name}.", hint="Give more of the id.")
        raise ConfigError(
            f"nothing to review has an id that begins with {name}.",
            hint="Name its audit (--audit FOLDER); a thread that was answered elsewhere waits no longer.",
        )

    def _items(self) -> list[ReviewItem]:
        asked = (
            {item.question.thread_id: item for item in self._threads.waiting() if item.question}
            if self._threads
            else {}
        )
        found: list[ReviewItem] = []
        for folder in self._audits:
            for item, thread_id in self._of_audit(folder):
                question = asked.pop(thread_id).question if thread_id in asked else None
                found.append(item if question is None else item.model_copy(update={"question": question}))
        return [*found, *asked.values()]

    def _of_audit(self, folder: Path) -> list[tuple[ReviewItem, str | None]]:
        """Its items; read again once the file has changed."""
        path = records_path(folder)
        try:
            seen = path.stat()
        except OSError as error:
            raise InputError(
                f"there is no audit in {folder}: {error.strerror or error}.", hint="Name the folder of its --out."
            ) from error
        stamp = (seen.st_mtime_ns, seen.st_size)
        if folder not in self._read or self._read[folder][0] != stamp:
            self._read[folder] = (
                stamp,
                list(record_items(read_records(path), path.parent, everything=self._everything)),
            )
        return self._read[folder][1]

    # --- deciding ---------------------------------------------------------------------------------------------------

    def decide(self, name: str, decision: Decision, by: str, *, version: int | None = None) -> Outcome:
        """Write a decision down, and tell the thread that waits for it.

        Args:
            name: the item's id or its beginning.
            decision: of the person.
            by: who that is.
            version: that they were looking at; None for the present one.

        Raises:
            ReviewConflictError: somebody else was quicker.
            InputError: the picture has changed since it was inspected, or it is to be OK and could not be read.
            ConfigError: there is no such item.
            StorageError: the disk refuses; nothing is decided then.
        """
        found = self.find(name)
        if found.standing.to_reopen:
            if (left := self._settled(found.item.id)).problem is not None:
                raise left.problem
            found = self.find(name)
        standing = found.standing
        if standing.decision is not None:
            raise ReviewConflictError(
                f"{found.item.id} is decided already: {standing.decision.verdict} by {standing.decided_by}.",
                hint=f"Take that back first: flawscope review undo {found.item.id}",
            )
        self._refuse_moved(standing, version)
        refuse_unread(found.item, decision)
        refuse_changed(found.item)
        data = {"item": found.item.model_dump(mode="json"), "decision": decision.model_dump(mode="json")}
        self.journal.append(found.item.id, "decided", person(by), data, after=standing.version)
        return self._settled(found.item.id)

    def confirm(self, name: str, by: str, *, version: int | None = None) -> Outcome:
        """Confirm a decision, so that products and the knowledge base may learn from it.

        Raises:
            ConfigError: nothing is decided, it is confirmed already, or a second person is asked for.
            ReviewConflictError: somebody else was quicker.
        """
        standing = self.find(name).standing
        if standing.decision is None:
            raise ConfigError(f"{standing.id} is not decided yet.", hint="Decide it: flawscope review decide ID OK|NG")
        if standing.confirmed_by is not None:
            raise ConfigError(f"{standing.id} is confirmed already, by {standing.confirmed_by}.")
        self._refuse_moved(standing, version)
        who = person(by)
        if self._second_person and who.casefold() == standing.decided_by.casefold():
            raise ConfigError(
                f"{who} decided {standing.id} and may not confirm it too (second_person is set).",
                hint="Let somebody else confirm it: --by NAME",
            )
        self.journal.append(standing.id, "confirmed", who, {}, after=standing.version)
        return Outcome(self._standing(standing.id))

    def undo(self, name: str, by: str, *, version: int | None = None) -> Outcome:
        """Take back the last step: a confirmation, else the decision; a thread that was told asks again.

        Raises:
            ConfigError: there is nothing to take back, a product has learnt from it, or its thread cannot ask again.
            ReviewConflictError: somebody else was quicker.
        """
        found = self.find(name)
        with alone(self._lock):  # a decision that a thread is being told must not be undone meanwhile
            standing = self._standing(found.item.id)
            if standing.decision is None or standing.item is None:
                raise ConfigError(f"{standing.id} is open: there is nothing to take back.")
            if standing.applied is not None:
                raise ConfigError(
                    f"the product {standing.item.product} has learnt from {standing.id}.",
                    hint=f"Take that back first: flawscope review undo product:{standing.item.product}",
                )
            self._refuse_moved(standing, version)
            if standing.confirmed_by is not None:
                self.journal.append(standing.id, "unconfirmed", person(by), {}, after=standing.version)
                return Outcome(self._standing(standing.id))
            reopen = self._was_told(standing)
            standing = self._standing(standing.id)
            self.journal.append(standing.id, "undone", person(by), {"reopen": reopen}, after=standing.version)
        return self._settled(found.item.id)

    def _was_told(self, standing: Standing) -> bool:
        """Whether a thread has gone on with the decision; what a killed process did not write down is written now."""
        question = standing.item.question if standing.item else None
        if question is None:
            return False
        threads = self._threads_of(question)
        if standing.to_resume:
            if threads.waits(question):
                return False
            self._tell(standing)
        threads.refuse_other_use(question)
        return True

    def _refuse_moved(self, standing: Standing, version: int | None) -> None:
        if version is not None and version != standing.version:
            raise ReviewConflictError(
                f"somebody else has changed {standing.id} since it was looked at.", hint="Look at it again."
            )

    # --- telling threads --------------------------------------------------------------------------------------------

    def settle(self) -> list[Outcome]:
        """Finish what a killed process left between the journal and a thread.

        Raises:
            StorageError: the journal cannot be read.
        """
        left = [name for name, standing in standings(self.journal).items() if standing.to_resume or standing.to_reopen]
        return [self._settled(name) for name in left]

    def _settled(self, name: str) -> Outcome:
        standing = self._standing(name)
        if not (standing.to_resume or standing.to_reopen):
            return Outcome(standing)
        try:
            with alone(self._lock):
                return self._tell(self._standing(name))
        except FlawscopeError as error:
            return Outcome(self._standing(name), problem=error)

    def _tell(self, standing: Standing) -> Outcome:
        """Tell the thread; call it while `alone`."""
        if not (standing.to_resume or standing.to_reopen) or standing.item is None or standing.item.question is None:
            return Outcome(standing)  # somebody else has told it
        question = standing.item.question
        threads = self._threads_of(question)
        if standing.to_reopen:
            again = threads.reopen(question)
            self._note(standing.id, "reopened", again.model_dump(mode="json"))
            now = next((item.id for item in self._items() if item.question == again), None)
            return Outcome(self._standing(standing.id), asked_again=now)
        decision = standing.decision
        assert decision is not None  # noqa: S101  # `follow` sets to_resume with a decision only
        answer = {**decision.model_dump(mode="json"), "by": standing.decided_by}
        verdict = threads.answer(question, answer)
        self._note(standing.id, "resumed", {"verdict": verdict})
        return Outcome(self._standing(standing.id), verdict=verdict)

    def _note(self, name: str, kind: Kind, data: dict[str, object]) -> None:
        """Write down what was done, after whatever another reviewer wrote meanwhile."""
        while True:
            try:
                self.journal.append(name, kind, "flawscope", data, after=self._standing(name).version)
            except ReviewConflictError:
                continue
            return

    def _threads_of(self, question: Question) -> GraphThreads:
        if self._threads is None:
            raise ConfigError(
                f"the thread {question.thread_id!r} is kept in a database that was not named.",
                hint="Name it: --threads FILE",
            )
        return self._threads

    def _standing(self, name: str) -> Standing:
        return standing_of(self.journal, name)


def refuse_unread(item: ReviewItem, decision: Decision) -> None:
    """Refuse to call a picture OK that could not be read: it shows nothing, so it cannot show a good part.

    Raises:
        InputError: it could not be read, and is to be OK.
    """
    if item.unread and decision.verdict is Verdict.OK:
        raise InputError(f"{item.image} could not be read, so it cannot be OK.", hint=UNREAD_HINT)


def refuse_changed(item: ReviewItem) -> None:
    """Refuse to judge a picture that is not the one that was inspected; one that is gone may be judged by the part.

    Raises:
        InputError: its bytes have changed.
    """
    if item.sha256 is None:
        return
    try:
        blob = Path(item.image).read_bytes()
    except (OSError, ValueError):
        return
    if hashlib.sha256(blob).hexdigest() != item.sha256:
        raise InputError(f"{item.image} has changed since it was inspected.", hint="Inspect it again, then review it.")
