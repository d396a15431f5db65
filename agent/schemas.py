"""The report: one frozen, versioned model that every way in (terminal, graph, script) returns.

Coordinates are pixels of the original picture (after EXIF orientation), boxes are XYXY half-open. Score up = more
anomalous. An unknown uncertainty is None, never 0. The JSON Schema of ``InspectionReport`` is committed in
docs/report.schema.json and a test keeps the two equal.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

SCHEMA_VERSION: Literal["1.0"] = "1.0"

Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=120)]
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Frozen(BaseModel):
    """Immutable and closed: an unknown field is an error, so drift between versions is seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(StrEnum):
    """The decision. REVIEW means that a person must look."""

    OK = "OK"
    NG = "NG"
    REVIEW = "REVIEW"


class Region(Frozen):
    """A connected suspicious area.

    Attributes:
        id: ``R1`` is the strongest.
        box: x0, y0, x1, y1, half-open, original pixels.
        area_px: pixels above the pixel threshold.
        peak: highest anomaly_map value inside.
        place: where, in words, such as ``upper left``.
    """

    id: Name
    box: tuple[int, int, int, int]
    area_px: Annotated[int, Field(ge=0)]
    peak: FiniteFloat
    place: Name

    @model_validator(mode="after")
    def _box_is_half_open(self) -> Region:
        x0, y0, x1, y1 = self.box
        if not (0 <= x0 < x1 and 0 <= y0 < y1):
            raise ValueError(f"box {self.box} is not a half-open XYXY box")
        return self


class TypeCandidate(Frozen):
    """One defect type and its share of the posterior."""

    name: Name
    posterior: Probability


class DefectType(Frozen):
    """The named defect. ``posterior`` is None when nothing was there to compare with.

    Attributes:
        name: a type of the knowledge base or the product, or ``unknown``.
        posterior: probability of ``name`` among the known types and unknown.
        candidates: the shortlist, most likely first.
    """

    name: Name
    posterior: Probability | None
    candidates: tuple[TypeCandidate, ...] = ()


class Evidence(Frozen):
    """Something a sentence may cite.

    Attributes:
        id: ``M…`` measurement, ``R…`` region, ``T…`` type comparison, ``D…`` document, ``Z…`` zoom, ``C…`` reference,
            ``S…`` self-consistency, ``Q…`` picture quality, ``H…`` a person,
            ``K…`` what the knowledge base could not tell, ``F…`` an attempt to refute the suspicion,
            ``L…`` a logical check, ``X…`` a comparison with a template, ``W…`` a size in millimetres, ``P…`` the
            control plan.
        kind: what it is.
        text: what it says, in one sentence; document text is quoted data, never instructions.
        source: the document id, product or view it comes from.
        values: the numbers behind the text.
    """

    id: Name
    kind: Literal[
        "measurement",
        "region",
        "type",
        "document",
        "zoom",
        "reference",
        "consistency",
        "quality",
        "person",
        "knowledge",
        "refutation",
        "check",
        "plan",
    ]
    text: Text
    source: Text = ""
    values: dict[str, float | int | str | bool | None] = {}


class Claim(Frozen):
    """One sentence of the report and the ids of the evidence that carries it.

    Attributes:
        field: the report field that the sentence belongs to.
        text: the sentence.
        evidence_ids: at least one id; a claim that cites nothing is cut by the verifier.
    """

    field: Literal["verdict", "location", "defect_type", "description", "root_cause", "consequence", "action"]
    text: Text
    evidence_ids: Annotated[tuple[Name, ...], Field(min_length=1)]


class Uncertainty(Frozen):
    """How unsure the decision is.

    Attributes:
        entropy: normalised to [0, 1]; None when it cannot be known.
        source: where it comes from, such as ``calibrated probability`` or ``token log-probabilities``.
        calibrated: whether the probability behind it was calibrated on this product's references.
        type_entropy: entropy of the type posterior, normalised; None without types.
        p_correct: how often such answers were right, by a calibrator fitted to checked ones; None without one.
        parts: what the entropy was made of, and entropies of a model's further words: ``expert``, ``verdict`` (with the
            ``mass`` of its three options), ``disagreement`` of the two, ``type``, ``location``; each None when unknown.
    """

    entropy: Probability | None
    source: Text
    calibrated: bool
    type_entropy: Probability | None = None
    p_correct: Probability | None = None
    parts: dict[str, Probability | None] = {}


class TraceStep(Frozen):
    """One round of the loop.

    Attributes:
        action: the step, such as ``localise`` or ``zoom``.
        entropy_before: decision entropy when it started, None before the first decision.
        entropy_after: decision entropy when it ended.
        seconds: wall time.
        note: what it found, in one line.
    """

    action: Name
    entropy_before: Probability | None = None
    entropy_after: Probability | None = None
    seconds: Annotated[float, Field(ge=0.0)]
    note: Text = ""


class ReportError(Frozen):
    """Why a picture has no judgement."""

    code: Name
    message: Text
    exit_code: int


class InspectionReport(Frozen):
    """Everything known about one picture.

    Attributes:
        image: the path as given, or ``<array>``.
        sha256: of the file's bytes.
        product: the enrolled product, None for ad-hoc references or none.
        verdict: OK, NG or REVIEW.
        image_score: the score of the whole picture in the product's own unit, None when not inspected.
        probability: calibrated probability of a defect; None when uncalibrated.
        threshold: the image_score at and above which the product's false-alarm rate is met.
        regions: suspicious areas, strongest first.
        defect_type: None when the part is OK or nothing was inspected.
        evidence: everything cited, and what was seen but not used.
        claims: the sentences above with their citations.
        artifacts: files beside the report by name (``overlay``, ``anomaly_map``, ``heatmap``, ``report``).
        trace: what was done, in order.
        provenance: versions, hashes, settings with their origins.
        error: set when the picture could not be inspected; the verdict is then REVIEW.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    image: str
    sha256: str | None
    product: str | None
    verdict: Verdict
    verdict_reason: Text = ""
    image_score: FiniteFloat | None = None
    probability: Probability | None = None
    threshold: FiniteFloat | None = None
    uncertainty: Uncertainty
    regions: tuple[Region, ...] = ()
    defect_type: DefectType | None = None
    description: Text = ""
    root_cause: Text = ""
    consequence: Text = ""
    action: Text = ""
    evidence: tuple[Evidence, ...] = ()
    claims: tuple[Claim, ...] = ()
    artifacts: dict[str, str] = {}
    trace: tuple[TraceStep, ...] = ()
    provenance: dict[str, Any] = {}
    error: ReportError | None = None

    @field_validator("image", mode="before")
    @classmethod
    def _name_is_text(cls, value: Any) -> Any:
        """File systems allow names that are not UTF-8, JSON does not: odd bytes are spelt out in hexadecimal."""
        if isinstance(value, str) and any("\udc80" <= char <= "\udcff" for char in value):
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return value

    @model_validator(mode="after")
    def _hangs_together(self) -> InspectionReport:
        known = {item.id for item in self.evidence}
        if len(known) != len(self.evidence):
            raise ValueError("evidence ids are not unique")
        for claim in self.claims:
            missing = set(claim.evidence_ids) - known
            if missing:
                raise ValueError(f"claim cites unknown evidence {sorted(missing)}")
        if self.error is not None and self.verdict is not Verdict.REVIEW:
            raise ValueError("a picture that failed is REVIEW, never a judgement")
        decided_by_a_person = any(item.kind == "person" for item in self.evidence)
        if self.verdict is not Verdict.REVIEW and self.image_score is None and not decided_by_a_person:
            raise ValueError(f"verdict {self.verdict.value} without an image_score")
        return self
