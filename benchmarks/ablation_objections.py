"""Whether the verifier objects to a letter, as a report would state the option behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from ..agent.reasoner import DraftReport
from ..agent.schemas import Claim, DefectType, Evidence, Verdict
from ..agent.verifier import verify
from ..agent.vision_language import LetterAnswer
from ..graphs import evidence as ev
from ..tools.knowledge.schema import KnowledgeDocument
from ..training.questions import PRIOR_TASKS
from .mmad.answering import says_yes
from .mmad.evidence import PictureEvidence
from .mmad.questions import Item
from .mmad.run import question_of
from .mmad.scoring import DETECTION

FIELDS: dict[str, Literal["description", "root_cause"]] = {
    "Defect Description": "description",
    "Defect Analysis": "root_cause",
}
"""Field of a report that the answers of a subtask would stand in."""


def objects(
    item: Item, answer: LetterAnswer, evidence: PictureEvidence, pages: Sequence[KnowledgeDocument]
) -> bool | None:
    """Whether the verifier objects to an answer as a report would state it; None for what no report states.

    Args:
        item: the question.
        answer: its answer.
        evidence: as it was measured.
        pages: as they were given.
    """
    if answer.letter is None or PRIOR_TASKS[question_of(item).task] == "object":
        return None
    said = item.options[answer.letter]
    bundle = evidence.bundle
    records = ev.document_records([(page, None) for page in pages], first=1)
    items = [one for one in bundle.items if one.kind != "document"] + _evidence_items(records)
    bundle = replace(bundle, documents=ev.retrieved_documents(records), items=tuple(items))
    draft = _draft(item, said, _nearest(said, records), bundle.defect_type)
    return None if draft is None else bool(verify(draft, bundle).problems)


def _evidence_items(records: dict[str, Any]) -> list[Evidence]:
    return [Evidence.model_validate(item) for item in ev.document_evidence(records).values()]


def _nearest(said: str, records: dict[str, Any]) -> tuple[str, ...]:
    """The page that a report would cite for a sentence: the one that shares most words with it; none without pages."""
    words = set(said.lower().strip(" .").split())

    def shared(item_id: str) -> int:
        told = " ".join(str(records[item_id][name]) for name in ("description", "causes", "consequences", "action"))
        return len(words & set(told.lower().replace("'", " ").replace(".", " ").split()))

    return (max(records, key=shared),) if records else ()


def _draft(item: Item, said: str, cited: tuple[str, ...], named: DefectType | None) -> DraftReport | None:
    """The answer as a report would state it, under the type that the expert names; None for a place."""
    if item.subtask == DETECTION:
        return DraftReport(verdict=Verdict.NG if says_yes(said) else Verdict.OK)
    if item.subtask == "Defect Classification":
        slug = said.strip(" .").lower().replace(" ", "_")
        return DraftReport(verdict=Verdict.REVIEW, defect_type=DefectType(name=slug, posterior=None))
    if item.subtask in FIELDS and cited:
        claim = Claim(field=FIELDS[item.subtask], text=said, evidence_ids=cited)
        return DraftReport(verdict=Verdict.REVIEW, defect_type=named, claims=(claim,))
    return None
