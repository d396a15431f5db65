"""Reports for the mini to write: short, in the form that models are asked for, and kept by the verifier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from ..agent.reasoner.answer import NO_REGION, NO_TYPE, Answer
from ..agent.reasoner.base import DraftReport, EvidenceBundle, RetrievedDocument
from ..agent.reasoner.composing import compose, document_lines, said_type
from ..agent.reasoner.evidence import UNKNOWN, WHOLE_PICTURE, EvidenceReasoner, number, words
from ..agent.reasoner.prior_lines import Prior
from ..agent.reasoner.reading import as_draft
from ..agent.schemas import DefectType, Evidence, Region, TypeCandidate, Verdict
from ..agent.verifier import verify
from ..agent.vision_language.messages import Message, Picture
from ..tools.knowledge.categories import CategoryChoice, category_knowledge
from ..tools.knowledge.schema import KnowledgeDocument, quoted_text
from .questions.simulated import Case

DOCUMENTS = 4
PAGE_TOKENS = (220, 300, 700)
"""Budgets of the quoted pages: short prompts teach the same and take less time, the last one is that of inspections."""
SIDE_PX = 512
ADMITTED = 0.95
"""How often the map of a made-up part that alarms may speak for a defect, and that of another may not."""
CAUSE_LETTERS = 90
"""A longer cause is not told: it must be copied word by word."""
DECIDING = {Verdict.NG: "The score is above the threshold.", Verdict.OK: "The score is below the threshold."}
OPEN = "The evidence does not settle it."
ACTIONS = {
    Verdict.NG: "Quarantine the part.",
    Verdict.OK: "No action: the part passes.",
    Verdict.REVIEW: "Have a person look and decide.",
}
VIEWS: tuple[tuple[str, Literal["zoom", "reference", "consistency"], str], ...] = (
    ("Z1", "zoom", "At twice the resolution the suspicious window scores {}; windows of good parts score {}."),
    ("C1", "reference", "Place by place against the most similar references it scores {}; good parts score {}."),
    ("S1", "consistency", "4 shifted copies score {} on average; copies of good parts score {}."),
)


def report_messages(bundle: EvidenceBundle, pictures: Sequence[Picture], budget: int = PAGE_TOKENS[0]) -> list[Message]:
    """The conversation that asks for a report, as an inspection asks it.

    Args:
        bundle: the evidence.
        pictures: labelled.
        budget: of the quoted pages, estimated tokens.
    """
    return compose(bundle, pictures, task="report", documents=budget)


def report_of(bundle: EvidenceBundle, budget: int = PAGE_TOKENS[0]) -> Answer:
    """What the evidence says, in the form that models are asked for and without a sentence that would be cut.

    Type and verdict are those of the evidence reasoner, except that how sure it must be is left to the thresholds that
    judge every answer: OK and NG are told apart by the alarm alone. The sentences are short and repeat no numbers.

    Args:
        bundle: of the last round.
        budget: of the quoted pages; a cause that the prompt does not show is not told.
    """
    draft = EvidenceReasoner().reason(_as_told(bundle), (), DraftReport).draft
    kind = NO_TYPE if draft.defect_type is None else said_type(draft.defect_type.name)
    region = bundle.regions[0].id if bundle.regions and draft.verdict is not Verdict.OK else NO_REGION
    shown = "\n".join(document_lines(bundle.documents, budget))
    said = [{"about": about, "text": text, "cites": (cite,)} for about, text, cite in _sentences(bundle, draft, shown)]
    answer = Answer.model_validate({"verdict": draft.verdict, "defect_type": kind, "region": region, "sentences": said})
    kept = verify(as_draft(answer, bundle, DraftReport)[0], bundle).draft.claims
    stands = {(claim.field, claim.text) for claim in kept}
    return answer.model_copy(update={"sentences": tuple(s for s in answer.sentences if (s.about, s.text) in stands)})


def report_text(answer: Answer) -> str:
    """An answer as JSON, spaced as answers that are held to a schema are."""
    return json.dumps(answer.model_dump(mode="json"))


def _as_told(bundle: EvidenceBundle) -> EvidenceBundle:
    """Evidence that decides by the alarm, and is final where a view contradicts it."""
    sure = None
    if bundle.probability is not None and bundle.image_score is not None and bundle.threshold is not None:
        sure = float(bundle.image_score >= bundle.threshold)
    return replace(bundle, probability=sure, final=bool(bundle.contradicting))


def _sentences(bundle: EvidenceBundle, draft: DraftReport, shown: str) -> Iterator[tuple[str, str, str]]:
    """What a sentence is about, its text, and the evidence that carries it."""
    yield "verdict", DECIDING.get(draft.verdict, OPEN), "M1"
    if draft.verdict is not Verdict.OK:
        if bundle.regions:
            first = bundle.regions[0]
            spread = first.place == WHOLE_PICTURE
            yield "location", f"The deviation is {'spread over' if spread else 'at'} the {first.place}.", first.id
        named = draft.defect_type.name if draft.defect_type else UNKNOWN
        compared = "T1" if bundle.defect_type else "M1"
        if named == UNKNOWN:
            yield "defect_type", "The type stays unknown.", compared
        else:
            yield "defect_type", f"It is most like {said_type(named)}.", compared
            yield from _cause(bundle.documents, named, shown)
    yield "action", ACTIONS[draft.verdict], "M1"


def _cause(documents: Sequence[RetrievedDocument], named: str, shown: str) -> Iterator[tuple[str, str, str]]:
    """The likeliest cause on the first page about a type."""
    page = next((document for document in documents if document.defect_type == named), None)
    if page is not None and page.causes:
        cause = page.causes[0].rstrip(".")
        if len(cause) <= CAUSE_LETTERS and cause in shown:
            yield "root_cause", f"{cause}.", page.evidence_id


def bundle_of(
    case: Case, rng: np.random.Generator, *, made_up: bool = True, sure: bool = False, bare: bool = False
) -> EvidenceBundle:
    """A case as a reasoner would get it.

    Args:
        case: with a prior.
        rng: draws the seed of what is shuffled, how sure the expert is, and what further looks there were.
        made_up: whether the case is; a real one's score and pages are left as they are.
        sure: the expert is, and nothing contradicts it.
        bare: nothing but the measurements: no pages, no further looks.

    Raises:
        ValueError: the case has no prior.
    """
    prior = case.prior
    if prior is None:
        raise ValueError("a report needs a prior")
    regions = tuple(
        Region(id=box.id, box=box.box, area_px=max(1, round(box.area_share * SIDE_PX**2)), peak=1.0, place=box.place)
        for box in prior.boxes
    )
    count = 0 if bare else int(rng.integers(1, DOCUMENTS + 1))
    documents = tuple(_document(page, f"D{i}", made_up=made_up) for i, page in enumerate(case.pages[:count], start=1))
    kind = None
    if prior.types:
        candidates = tuple(TypeCandidate(name=name, posterior=share) for name, share in prior.types)
        named = next((name for name, share in prior.types[:1] if share >= 0.5), UNKNOWN)
        kind = DefectType(name=named, posterior=dict(prior.types).get(named, prior.types[0][1]), candidates=candidates)
    items = [Evidence(id="M1", kind="measurement", text="The score of the picture.")]
    items += [Evidence(id=region.id, kind="region", text=f"An area at the {region.place}.") for region in regions]
    items += [Evidence(id="T1", kind="type", text="The comparison of types.")] if kind else []
    items += [Evidence(id=d.evidence_id, kind="document", text=d.description or d.doc_id) for d in documents]
    items += [] if bare else _views(prior, rng)
    seed = hashlib.sha256(rng.bytes(8)).hexdigest()
    bundle = EvidenceBundle(
        product=case.subject.product,
        image_score=prior.score,
        threshold=prior.threshold,
        probability=prior.probability,
        calibrated=prior.calibrated,
        regions=regions,
        defect_type=kind,
        documents=documents,
        items=tuple(items),
        final=True,
        seed=seed,
        size_px=(SIDE_PX, SIDE_PX),
        percentile=prior.percentile,
        admitted=prior.admitted,
        grid=None if bare else prior.grid,
    )
    if case.base and not bare and rng.random() < 0.5:
        given = CategoryChoice("given", ((case.subject.product, None),))
        bundle = replace(bundle, category=category_knowledge(given, case.base, dict(prior.types), seed))
    if made_up and prior.probability is not None:
        told = prior.probability if not sure and rng.random() < 0.4 else _surer(prior.probability, rng)
        agrees = sure or rng.random() < ADMITTED
        bundle = replace(bundle, probability=told, admitted=agrees == (told >= 0.5))
    if prior.probability is not None and not sure and rng.random() < 0.1:
        bundle = replace(bundle, contradicting=(str(rng.choice(["zoom", "nearest references", "whole picture"])),))
    return bundle


def _surer(probability: float, rng: np.random.Generator) -> float:
    """A probability on the same side, as near to 0 or 1 as those of calibrated products mostly are."""
    open_share = float(10.0 ** rng.uniform(-4.5, -1.3))
    return 1.0 - open_share if probability >= 0.5 else open_share


def _views(prior: Prior, rng: np.random.Generator) -> list[Evidence]:
    """Further looks, as an inspection that was in doubt took them."""
    if rng.random() < 0.5:
        return []
    taken = sorted(rng.choice(len(VIEWS), size=int(rng.integers(1, 3)), replace=False))
    score, typical = (prior.score or 0.0), rng.uniform(0.3, 0.9)
    found: list[Evidence] = []
    for identity, kind, text in (VIEWS[int(i)] for i in taken):
        said = text.format(number(score * rng.uniform(0.9, 1.1)), number(typical))
        found.append(Evidence(id=identity, kind=kind, text=said))
    return found


def _document(page: KnowledgeDocument, number: str, *, made_up: bool) -> RetrievedDocument:
    """A page as it is retrieved; one that was made up is headed by its type, as real ones mostly are."""
    if made_up:
        page = page.model_copy(update={"title": words(page.defect_type).capitalize()})
    return RetrievedDocument(
        evidence_id=number,
        doc_id=f"{page.product}.{page.defect_type}",
        defect_type=page.defect_type,
        product=page.product,
        similarity=0.5,
        description=page.description,
        causes=page.likely_causes,
        consequences=page.consequences,
        action=page.action,
        text=quoted_text(page),
    )
