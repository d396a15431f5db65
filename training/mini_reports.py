"""Reports for the mini to write: the evidence reasoner's drafts in the form that models are asked for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

import numpy as np

from ..agent.reasoner.answer import NO_REGION, NO_TYPE
from ..agent.reasoner.base import DraftReport, EvidenceBundle, RetrievedDocument
from ..agent.reasoner.composing import compose
from ..agent.reasoner.evidence import UNKNOWN, EvidenceReasoner, words
from ..agent.schemas import DefectType, Evidence, Region, TypeCandidate, Verdict
from ..agent.vision_language.messages import Message, Picture
from ..tools.knowledge.schema import KnowledgeDocument, quoted_text
from .questions.simulated import Case

SENTENCES = 4
"""Of a report: it must end within few tokens, and the first four say what matters most."""
DOCUMENTS = 2
PAGE_TOKENS = 260
SIDE_PX = 512
AREA_PX = re.compile(r", \d+ px in area")
"""What drafts tell beside a box; prompts give it as a share, and the mini cannot multiply."""


def report_messages(bundle: EvidenceBundle, pictures: Sequence[Picture]) -> list[Message]:
    """The conversation that asks for a report, as an inspection asks it."""
    return compose(bundle, pictures, task="report", documents=PAGE_TOKENS)


def report_text(bundle: EvidenceBundle) -> str:
    """What the evidence reasoner says of a bundle, as the JSON of ``agent.reasoner.answer``.

    Args:
        bundle: of the last round.
    """
    draft = EvidenceReasoner().reason(bundle, (), DraftReport).draft
    kind = NO_TYPE if draft.defect_type is None else words(draft.defect_type.name)
    region = bundle.regions[0].id if bundle.regions and draft.verdict is not Verdict.OK else NO_REGION
    said = [
        {"about": claim.field, "text": AREA_PX.sub("", claim.text), "cites": list(claim.evidence_ids[:4])}
        for claim in draft.claims[:SENTENCES]
        if len(claim.text) <= 300
    ]
    return json.dumps({"verdict": draft.verdict.value, "defect_type": kind, "region": region, "sentences": said})


def bundle_of(case: Case, rng: np.random.Generator) -> EvidenceBundle:
    """A simulated case as a reasoner would get it.

    Args:
        case: with a prior.
        rng: draws the seed of what is shuffled.

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
    documents = tuple(_document(page, f"D{i}") for i, page in enumerate(case.pages[:DOCUMENTS], start=1))
    kind = None
    if prior.types:
        candidates = tuple(TypeCandidate(name=name, posterior=share) for name, share in prior.types)
        named = next((name for name, share in prior.types[:1] if share >= 0.5), UNKNOWN)
        kind = DefectType(name=named, posterior=dict(prior.types).get(named, prior.types[0][1]), candidates=candidates)
    items = [Evidence(id="M1", kind="measurement", text="The score of the picture.")]
    items += [Evidence(id=region.id, kind="region", text=f"An area at the {region.place}.") for region in regions]
    items += [Evidence(id="T1", kind="type", text="The comparison of types.")] if kind else []
    items += [Evidence(id=d.evidence_id, kind="document", text=d.description or d.doc_id) for d in documents]
    return EvidenceBundle(
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
        seed=hashlib.sha256(rng.bytes(8)).hexdigest(),
        size_px=(SIDE_PX, SIDE_PX),
        percentile=prior.percentile,
        admitted=prior.admitted,
        grid=prior.grid,
    )


def _document(page: KnowledgeDocument, number: str) -> RetrievedDocument:
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
