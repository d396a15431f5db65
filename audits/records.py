"""The record of one worklist line.

``records.jsonl`` is the truth of an audit (``record_file`` reads and writes it); tables, pages and queues are made from
it. Its JSON Schema is committed in docs/audit-record.schema.json and a test keeps the two equal. Coordinates are pixels
of the original picture (after EXIF orientation), boxes XYXY half-open; scores go up with anomaly. Paths under
``pictures`` are relative to the audit's folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, field_validator, model_validator

from ..agent.schemas import (
    DefectType,
    Frozen,
    InspectionReport,
    Name,
    Probability,
    Region,
    ReportError,
    Text,
    TraceStep,
    Verdict,
)

RECORD_VERSION: Literal["1.0"] = "1.0"
Cell = Annotated[str, Field(max_length=4000)]
Mask = Annotated[str, Field(max_length=1_000_000)]
Picture = Literal["thumbnail", "overlay", "image", "map"]


class WorklistLine(Frozen):
    """One line of work as the manifest or the folder gave it.

    Attributes:
        number: place in the worklist, from 1; records are in this order.
        image: the path as given.
        product: the enrolled product to compare with, None for none.
        serial: the part's serial number.
        lot: its lot.
        station: where the picture was taken.
        label: the expected result as given, None when not known.
        source_line: line of the manifest's file, None for folders.
    """

    number: Annotated[int, Field(ge=1)]
    image: Cell
    product: Cell | None = None
    serial: Cell | None = None
    lot: Cell | None = None
    station: Cell | None = None
    label: Cell | None = None
    source_line: Annotated[int, Field(ge=1)] | None = None

    @field_validator("image", mode="before")
    @classmethod
    def _name_is_text(cls, value: Any) -> Any:
        return spelt_out(value) if isinstance(value, str) else value

    @property
    def expected(self) -> Literal["OK", "NG"] | None:
        """What the label asks for: OK, NG (also for the name of a defect type), or None without a label."""
        if self.label is None or not self.label.strip():
            return None
        return "OK" if _plain(self.label) in GOOD_LABELS else "NG"

    @property
    def expected_type(self) -> str | None:
        """The defect type that the label names, None where it only says good or bad."""
        if self.expected != "NG" or self.label is None or _plain(self.label) in BAD_LABELS:
            return None
        return _plain(self.label)


GOOD_LABELS = frozenset({"ok", "good", "pass", "passed", "normal", "io", "i.o.", "0", "0.0", "true_ok"})
BAD_LABELS = frozenset(
    {"ng", "nok", "bad", "fail", "failed", "defect", "defective", "anomaly", "anomalous", "nio", "n.i.o.", "1", "1.0"}
)
"""A column of numbers with a gap is written with decimals by programs that keep it as fractions."""


class Said(Frozen):
    """One sentence of the report and the ids of the evidence behind it.

    Attributes:
        text: the sentence.
        evidence_ids: what it cites.
    """

    text: Text
    evidence_ids: tuple[Name, ...] = ()


class CitedDocument(Frozen):
    """A page that was retrieved.

    Attributes:
        evidence_id: its id in the report, ``D…``.
        doc_id: its id in the knowledge base.
        defect_type: what it is about.
        similarity: to the picture; None when looked up by type.
        cited: whether a sentence of the report stands on it.
    """

    evidence_id: Name
    doc_id: Text
    defect_type: Text = ""
    similarity: FiniteFloat | None = None
    cited: bool


class Timing(Frozen):
    """The only part of a record that two runs may differ in.

    Attributes:
        seconds: wall time of the inspection, pictures included; None when it was cut off.
        steps: seconds by step of the graph, actions included.
        finished: when it ended, ISO 8601 in UTC.
    """

    seconds: Annotated[float, Field(ge=0.0)] | None = None
    steps: dict[str, Annotated[float, Field(ge=0.0)]] = Field(default_factory=dict)
    finished: Name


class RecordError(Frozen):
    """Why a picture has no judgement.

    Attributes:
        kind: an error's code (``input``, ``product``, ``knowledge_locked``, ...), or ``timeout``, ``memory``,
            ``crashed`` (the worker ended), ``internal`` (a defect of the program).
        message: one line.
        exit_code: what the command ends with when this is the first such error.
    """

    kind: Name
    message: Text
    exit_code: int


class AuditRecord(Frozen):
    """What is known of one line.

    Attributes:
        id: of the line, its picture's bytes and the settings: 32 hexadecimal digits, unique in an audit.
        line: the work.
        sha256: of the file's bytes, None when it could not be read.
        verdict: REVIEW whenever ``error`` is set.
        image_score: the score of the whole picture in the product's own unit, None when not inspected.
        threshold: the image_score at and above which the product's false-alarm rate is met.
        probability: calibrated probability of a defect, None when uncalibrated.
        entropy: of the decision, in [0, 1], None when unknown.
        defect_type: None when the part is OK or nothing was inspected.
        regions: suspicious areas, strongest first.
        masks: of regions by id: COCO's compressed run lengths (see ``rle``), of the size ``size_px``.
        severity: of an NG by the control plan, a number or a word; None without one.
        disposition: by the control plan, such as ``scrap``.
        reaction: by the control plan.
        texts: the sentences by field of the report (verdict, location, defect_type, description, root_cause,
            consequence, action), each with its citations.
        documents: pages that were retrieved.
        actions: further looks that were taken, in order.
        flags: remarkable properties of the picture, such as ``tiny``.
        size_px: width and height of the original picture.
        pictures: files relative to the audit's folder by kind: ``thumbnail`` (160 px), ``image``, ``overlay`` and
            ``map`` (these three of one size).
        thread_id: under which a REVIEW is put before a person, None for what needs none.
        error: set when the picture could not be inspected.
        settings_sha256: of everything that can change the result: settings, product, plan, knowledge, versions.
        versions: those, one by one.
        report: the whole report as JSON, without the parts of its provenance that ``audit.json`` holds once.
        timing: how long it took.
    """

    schema_version: Literal["1.0"] = RECORD_VERSION
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    line: WorklistLine
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    verdict: Verdict
    image_score: FiniteFloat | None = None
    threshold: FiniteFloat | None = None
    probability: Probability | None = None
    entropy: Probability | None = None
    defect_type: DefectType | None = None
    regions: tuple[Region, ...] = ()
    masks: dict[Name, Mask] = Field(default_factory=dict)
    severity: Annotated[int, Field(ge=1, le=10)] | Text | None = None
    disposition: Text | None = None
    reaction: Text | None = None
    texts: dict[str, Said] = Field(default_factory=dict)
    documents: tuple[CitedDocument, ...] = ()
    actions: tuple[Name, ...] = ()
    flags: tuple[Name, ...] = ()
    size_px: tuple[int, int] | None = None
    pictures: dict[Picture, Text] = Field(default_factory=dict)
    thread_id: Name | None = None
    error: RecordError | None = None
    settings_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    versions: dict[str, str | None] = Field(default_factory=dict)
    report: dict[str, Any] | None = None
    timing: Timing

    @model_validator(mode="after")
    def _failures_judge_nothing(self) -> AuditRecord:
        if self.error is not None and self.verdict is not Verdict.REVIEW:
            raise ValueError("a picture that failed is REVIEW, never a judgement")
        return self

    def inspection(self) -> InspectionReport | None:
        """The whole report as a model; None when a worker ended before there was one."""
        return None if self.report is None else InspectionReport.model_validate(self.report)

    def comparable(self) -> dict[str, Any]:
        """The record as plain data without what two equal runs may differ in: times."""
        plain = self.model_dump(mode="json", exclude={"timing"})
        if plain["report"] is not None:
            plain["report"] = {
                **plain["report"],
                "trace": [{k: v for k, v in step.items() if k != "seconds"} for step in plain["report"]["trace"]],
            }
        return plain


class AuditHeader(Frozen):
    """``audit.json``: what holds for every record of the folder; written before the first.

    Attributes:
        flawscope: the version that wrote it.
        started: ISO 8601 in UTC.
        product: of lines that name none.
        settings: every setting's value and origin.
        shard: which of how many parts of the worklist.
        lines: of this shard of the worklist, whatever the limit.
        limit: the last run was to do only so many of them, None for all. The audit is finished when these have their
            records; a run with a higher limit, or without one, goes on from there.
        worklist_sha256: of the whole worklist.
        pictures: which records have pictures.
        merged: folders that were merged into this one.
    """

    schema_version: Literal["1.0"] = RECORD_VERSION
    flawscope: str
    started: Name
    product: str | None = None
    settings: dict[str, Any]
    shard: tuple[int, int] = (1, 1)
    lines: Annotated[int, Field(ge=0)]
    limit: Annotated[int, Field(ge=1)] | None = None
    worklist_sha256: str
    pictures: Literal["flagged", "all", "none"] = "flagged"
    merged: tuple[str, ...] = ()

    @property
    def watched(self) -> bool:
        """Whether ``watch`` writes here: its work has no number of lines, and never ends.

        A shard of a worklist with fewer lines than shards may have none either, but it is one of several.
        """
        return self.lines == 0 and self.shard == (1, 1)

    @property
    def asked(self) -> int:
        """Lines that the last run was to do."""
        return self.lines if self.limit is None else min(self.lines, self.limit)

    def asks(self, line: WorklistLine) -> bool:
        """Whether the last run was to do this line of the shard."""
        first, step = self.shard
        return self.limit is None or line.number <= first + (self.limit - 1) * step


def spelt_out(name: str) -> str:
    """A file's name as text: file systems allow names that are not UTF-8, JSON does not."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _plain(label: str) -> str:
    return "_".join(label.strip().lower().replace("-", "_").split())


def trace_seconds(trace: Iterable[TraceStep]) -> dict[str, float]:
    """Seconds by step, rounds added up."""
    seconds: dict[str, float] = {}
    for step in trace:
        seconds[step.action] = seconds.get(step.action, 0.0) + step.seconds
    return seconds


def record_error(error: ReportError) -> RecordError:
    """A report's error as a record's."""
    return RecordError(kind=error.code, message=" ".join(error.message.split())[:2000], exit_code=error.exit_code)


def record_schema() -> dict[str, Any]:
    """JSON Schema of a line of ``records.jsonl``."""
    return AuditRecord.model_json_schema()
