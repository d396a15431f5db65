"""A reviewer's verdict on an inspection as a page of the plant: the same part need not be judged twice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ...agent.errors import KnowledgeError
from ...agent.reasoner.evidence import UNKNOWN, WHOLE_PICTURE
from ...agent.schemas import Evidence, InspectionReport, Verdict
from .plant_page import PlantPage, page_from_note, types_in
from .schema import GOOD, plain_text

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ReviewerVerdict:
    """What a person says of an inspected part.

    Attributes:
        verdict: OK or NG; a part in REVIEW teaches nothing.
        defect_type: the type's name, ``good`` for a false alarm; None when it is not known.
        note: the person's own words.
        reviewer: who says so.
        box: where, px of the original picture; None for anywhere.
    """

    verdict: Verdict
    defect_type: str | None
    note: str
    reviewer: str
    box: Box | None


def reviewer_verdict(
    report: InspectionReport,
    *,
    verdict: str | None = None,
    defect_type: str | None = None,
    note: str | None = None,
    reviewer: str | None = None,
    box: Box | None = None,
    region: str | None = None,
    user: str = "unknown",
) -> ReviewerVerdict:
    """What is given, completed by what a person answered during the inspection, then by what the inspection found.

    Args:
        report: the inspection.
        verdict: ``OK`` or ``NG``.
        defect_type: see `ReviewerVerdict`; None for the answer's, else the one that the note names, else the report's.
        note: None for the answer's.
        reviewer: None for who answered, else ``user``.
        box: None for the answer's, else ``region``'s.
        region: id of a region; None for the strongest.
        user: who runs the program.

    Raises:
        KnowledgeError: the picture was not inspected, there is no such region, or the verdict or note is missing.
    """
    if report.error is not None:
        raise KnowledgeError(f"{report.image} could not be inspected, so there is no verdict on it to keep.")
    person = next((item for item in report.evidence if item.kind == "person"), None)
    answered = dict(person.values) if person else {}
    words = note if note is not None else str(answered.get("note") or "")
    if not plain_text(words):
        raise KnowledgeError("the reviewer's words are missing.", hint='Say what is seen: --note "burr on edge"')
    decided = Verdict(verdict or str(answered.get("verdict") or report.verdict.value))
    if decided is Verdict.REVIEW:
        raise KnowledgeError("a part in REVIEW teaches nothing until somebody decides.", hint="Add --verdict OK or NG.")
    if decided is Verdict.OK:
        kind: str | None = GOOD
        if defect_type not in (None, GOOD):
            raise KnowledgeError(f"a part that is OK has no {defect_type}.", hint="Leave --type out, or --verdict NG.")
    else:
        kind = defect_type or str(answered.get("defect_type") or "") or _named(words, report)
    name = reviewer or (person.source if person else user)
    return ReviewerVerdict(decided, kind, words, name, box or _answered_box(person) or _box_of(report, region))


def page_of(
    report: InspectionReport,
    said: ReviewerVerdict,
    product: str,
    *,
    inspection: str,
    doc_id: str | None,
    taken: Collection[str],
    created: str,
    picture_name: str,
) -> PlantPage:
    """The page that a verdict becomes.

    Args:
        report: the inspection.
        said: the person's verdict.
        product: the page's.
        inspection: its id, kept as provenance.
        doc_id: name of the page, see `page_from_note`.
        taken: the same.
        created: the same.
        picture_name: the same.

    Raises:
        KnowledgeError: see `page_from_note`.
    """
    page = page_from_note(
        said.note,
        product,
        type_name=said.defect_type,
        doc_id=doc_id,
        taken=taken,
        author=said.reviewer,
        created=created,
        box=said.box,
        picture_name=picture_name,
    )
    source = f"{page.author} judged an inspected part {said.verdict.value}; the report said {report.verdict.value}."
    return page.model_copy(update={"inspection": plain_text(inspection)[:80] or None, "source": source})


def _named(words: str, report: InspectionReport) -> str | None:
    """The one type that the words name, else the report's."""
    named = types_in(words, report.product)
    if named:
        return named[0] if len(named) == 1 else None
    found = report.defect_type
    return found.name if found is not None and found.name != UNKNOWN else None


def _answered_box(person: Evidence | None) -> Box | None:
    sides = [person.values.get(side) for side in ("x0", "y0", "x1", "y1")] if person else []
    x0, y0, x1, y1 = (side if isinstance(side, int) else -1 for side in sides or (None,) * 4)
    return (x0, y0, x1, y1) if min(x0, y0, x1, y1) >= 0 else None


def _box_of(report: InspectionReport, region: str | None) -> Box | None:
    """A region's box; None when the whole picture deviates or nothing stands out."""
    if region is None:
        first = next(iter(report.regions), None)
        return None if first is None or first.place == WHOLE_PICTURE else first.box
    for found in report.regions:
        if found.id == region:
            return found.box
    known = ", ".join(found.id for found in report.regions) or "none"
    raise KnowledgeError(f"the report has no region {region!r}.", hint=f"It has: {known}.")
