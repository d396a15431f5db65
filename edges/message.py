"""What is published of an inspection: one small, versioned message, made from the audit's record alone.

Its JSON Schema is committed in docs/verdict-message.schema.json and a test keeps the two equal. A message names its
record by an id that is made of the picture's bytes, its name and the settings, so that a receiver can drop a message
that it was sent twice. Boxes are XYXY half-open in pixels of the original picture.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from ..agent.schemas import Frozen, Name, Probability, Text, Verdict
from ..audits.records import AuditRecord

MESSAGE_VERSION: Literal["1.0"] = "1.0"
REGIONS = 20
"""Areas that a message names at most, strongest first: a broker refuses what grows without bound."""


class MessageRegion(Frozen):
    """A suspicious area.

    Attributes:
        box: x0, y0, x1, y1, half-open, original pixels.
        place: where, in words.
    """

    box: tuple[int, int, int, int]
    place: Name


class VerdictMessage(Frozen):
    """One verdict as other systems are told it.

    Attributes:
        idempotency_key: the same whenever this verdict is sent again; 32 hexadecimal digits.
        sequence: place among the verdicts of this watched folder, from 1: a part's later verdict has the higher one.
        part: what verdicts are kept in order by: the serial number, else the picture's name without its suffix.
        product: the enrolled product.
        image: the picture's name within the watched folder.
        sha256: of the picture's bytes, None when they could not be read.
        serial: of the part, None when its picture's name does not tell.
        lot: its lot.
        station: where the picture was taken.
        verdict: OK, NG or REVIEW; REVIEW whenever ``error`` is set.
        image_score: of the whole picture in the product's own unit.
        threshold: the image_score at and above which parts alarm.
        probability: calibrated probability of a defect, None when uncalibrated.
        entropy: of the decision, in [0, 1], None when unknown.
        defect_type: None when the part is OK or no type was named.
        regions: suspicious areas, strongest first.
        severity: by the control plan.
        disposition: by the control plan.
        reason: the sentence behind the verdict.
        action: what to do.
        error: why the picture has no judgement, such as ``input``.
        settings_sha256: of everything that can change the result.
        finished: when the inspection ended, ISO 8601 in UTC.
    """

    schema_version: Literal["1.0"] = MESSAGE_VERSION
    idempotency_key: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    sequence: Annotated[int, Field(ge=1)]
    part: Annotated[str, Field(min_length=1, max_length=4000)]
    product: str | None
    image: str
    sha256: str | None
    serial: str | None = None
    lot: str | None = None
    station: str | None = None
    verdict: Verdict
    image_score: FiniteFloat | None = None
    threshold: FiniteFloat | None = None
    probability: Probability | None = None
    entropy: Probability | None = None
    defect_type: Name | None = None
    regions: Annotated[tuple[MessageRegion, ...], Field(max_length=REGIONS)] = ()
    severity: int | Text | None = None
    disposition: Text | None = None
    reason: Text = ""
    action: Text = ""
    error: Name | None = None
    settings_sha256: str
    finished: Name


def part_of(record: AuditRecord) -> str:
    """What a record's messages are kept in order by."""
    return record.line.serial or PurePath(record.line.image).stem or record.line.image or record.id


def message_of(record: AuditRecord) -> VerdictMessage:
    """The message about a record; the same record always gives the same message."""
    said = {field: text.text for field, text in record.texts.items()}
    return VerdictMessage(
        idempotency_key=record.id,
        sequence=record.line.number,
        part=part_of(record),
        product=record.line.product,
        image=record.line.image,
        sha256=record.sha256,
        serial=record.line.serial,
        lot=record.line.lot,
        station=record.line.station,
        verdict=record.verdict,
        image_score=record.image_score,
        threshold=record.threshold,
        probability=record.probability,
        entropy=record.entropy,
        defect_type=None if record.defect_type is None else record.defect_type.name,
        regions=tuple(MessageRegion(box=region.box, place=region.place) for region in record.regions[:REGIONS]),
        severity=record.severity,
        disposition=record.disposition,
        reason=record.error.message if record.error is not None else said.get("verdict", ""),
        action=said.get("action", ""),
        error=None if record.error is None else record.error.kind,
        settings_sha256=record.settings_sha256,
        finished=record.timing.finished,
    )


def message_schema() -> dict[str, Any]:
    """JSON Schema of a message."""
    return VerdictMessage.model_json_schema()
