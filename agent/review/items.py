"""What a person may be asked about: a record of an audit, or the question of an interrupted thread."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from ...audits.records import AuditRecord
from ..schemas import DefectType, Evidence, Frozen, InspectionReport, Probability, Region, Uncertainty, Verdict

ID_DIGITS = 16
"""Hexadecimal digits of an item's id: 64 bits, so that a million items share one with a chance of 3 in 10^8."""


class Question(Frozen):
    """The interrupt that waits for an answer.

    Attributes:
        thread_id: the run.
        interrupt_id: of the question; a thread that asks again has another.
        checkpoint_id: the state that the question was asked in.
    """

    thread_id: str
    interrupt_id: str
    checkpoint_id: str


class ReviewItem(Frozen):
    """One thing to decide, with what the machine knows of it.

    Attributes:
        id: the same for the same part: product, picture's bytes and serial number, or thread and question.
        source: where it comes from.
        image: path of the picture, absolute where it was found.
        sha256: of the bytes that were inspected; None when they could not be read.
        product: the enrolled product, None for none.
        serial: the part's serial number.
        lot: its lot.
        station: where the picture was taken.
        verdict: the machine's.
        image_score: the machine's, None when not inspected.
        threshold: the machine's.
        probability: of a defect, None when uncalibrated.
        defect_type: the machine's.
        regions: suspicious areas in pixels of the original picture, strongest first.
        reason: why it is open.
        size_px: width and height of the original picture.
        audit: folder of the audit, None for threads.
        pictures: the audit's files by kind, relative to its folder.
        anomaly_map: a thread's map in the artifact store.
        question: the thread's, None where no thread waits.
        error: why the picture could not be inspected.
        error_kind: the record's kind of that, see docs/audits.md.
    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    source: Literal["audit", "thread"]
    image: str
    sha256: str | None
    product: str | None = None
    serial: str | None = None
    lot: str | None = None
    station: str | None = None
    verdict: Verdict
    image_score: FiniteFloat | None = None
    threshold: FiniteFloat | None = None
    probability: Probability | None = None
    defect_type: DefectType | None = None
    regions: tuple[Region, ...] = ()
    reason: str = ""
    size_px: tuple[int, int] | None = None
    audit: str | None = None
    pictures: dict[str, str] = Field(default_factory=dict)
    anomaly_map: str | None = None
    question: Question | None = None
    error: str | None = None
    error_kind: str | None = None

    @property
    def unread(self) -> bool:
        """Whether no picture was ever seen: its file could not be read, so nobody can say that it shows a good part."""
        return self.error is not None and (self.error_kind == "input" or self.sha256 is None)

    def report(self) -> InspectionReport:
        """The machine's report as far as a page of the plant needs it."""
        seen = () if self.image_score is not None else (_UNSEEN,)
        return InspectionReport(
            image=self.image,
            sha256=self.sha256,
            product=self.product,
            verdict=self.verdict,
            image_score=self.image_score,
            uncertainty=Uncertainty(entropy=None, source="not kept with the review", calibrated=False),
            regions=self.regions,
            defect_type=self.defect_type,
            evidence=() if self.verdict is Verdict.REVIEW else seen,
        )


_UNSEEN = Evidence(id="H1", kind="person", text="A person decided during the inspection.")


def item_id(*parts: str | None) -> str:
    """The id of what these parts name."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:ID_DIGITS]


def record_item_id(record: AuditRecord) -> str:
    """The item of a record: product, bytes and serial number, whichever audit and settings it comes from.

    A picture that was audited again is the same item while its bytes are the same, and another one once they are not.
    """
    line = record.line
    picture = record.sha256 or f"unread {line.image}"
    return item_id("part", line.product, picture, line.serial)


def record_item(record: AuditRecord, folder: Path) -> ReviewItem:
    """The item of a record.

    Args:
        record: of an audit.
        folder: the audit's.
    """
    line, path = record.line, Path(record.line.image)
    error = None if record.error is None else record.error.message
    said = record.texts.get("verdict")
    reason = str((record.report or {}).get("verdict_reason") or "")
    return ReviewItem(
        id=record_item_id(record),
        source="audit",
        image=_absolute(path),
        sha256=record.sha256,
        product=line.product,
        serial=line.serial,
        lot=line.lot,
        station=line.station,
        verdict=record.verdict,
        image_score=record.image_score,
        threshold=record.threshold,
        probability=record.probability,
        defect_type=record.defect_type,
        regions=record.regions,
        reason=error or reason or (said.text if said else ""),
        size_px=record.size_px,
        audit=str(folder.absolute()),
        pictures={str(kind): name for kind, name in record.pictures.items()},
        error=error,
        error_kind=None if record.error is None else record.error.kind,
    )


def record_items(
    records: Iterable[AuditRecord], folder: Path, *, everything: bool = False
) -> Iterator[tuple[ReviewItem, str | None]]:
    """Items of an audit in its order, each once, with the thread that asks about it where the record names one.

    Args:
        records: of the audit.
        folder: the audit's.
        everything: those too that the machine decided.
    """
    seen: set[str] = set()
    for record in records:
        if record.verdict is not Verdict.REVIEW and not everything:
            continue
        item = record_item(record, folder)
        if item.id not in seen:
            seen.add(item.id)
            yield item, record.thread_id


def thread_item(question: Question, asked: dict[str, Any], values: dict[str, Any]) -> ReviewItem:
    """The item of a thread's question.

    Args:
        question: where it waits.
        asked: the interrupt's payload.
        values: the inspection's state, empty where a parent graph keeps it to itself.
    """
    picture = values.get("picture") or {}
    decision = values.get("decision") or {}
    kind = asked.get("defect_type")
    reasons = [str(reason) for reason in asked.get("reasons", []) if reason]
    size = picture.get("original_size_px")
    return ReviewItem(
        id=item_id("thread", question.thread_id, question.interrupt_id),
        source="thread",
        image=_absolute(Path(str(asked.get("image", "")))),
        sha256=picture.get("sha256"),
        product=asked.get("product"),
        verdict=Verdict.REVIEW,
        image_score=decision.get("score"),
        threshold=decision.get("threshold"),
        probability=asked.get("probability"),
        defect_type=None if kind is None else _defect_type(kind),
        regions=tuple(Region.model_validate(region) for region in asked.get("regions", [])),
        reason=" ".join(reasons),
        size_px=None if size is None else (int(size[0]), int(size[1])),
        anomaly_map=(values.get("expert") or {}).get("anomaly_map"),
        question=question,
    )


def _defect_type(kind: dict[str, Any]) -> DefectType:
    candidates = [{"name": c["name"], "posterior": c["posterior"]} for c in kind.get("candidates", [])]
    return DefectType.model_validate({"name": kind["name"], "posterior": kind["posterior"], "candidates": candidates})


def _absolute(path: Path) -> str:
    """The path from the root, so that a decision can be applied from elsewhere; as given where nothing is found."""
    try:
        return str(path.absolute()) if path.exists() else str(path)
    except (OSError, ValueError):  # a name too long, or with a NUL
        return str(path)
