"""The embedded reasoner: composes the report from the evidence alone, without any model.

It cannot invent: each sentence is a template of prompts/report.md filled from cited evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...prompts import render
from ..schemas import Claim, DefectType, Verdict
from .base import DraftReport, EvidenceBundle, ReasonerReply, RetrievedDocument

ClaimField = Literal["verdict", "location", "defect_type", "description", "root_cause", "consequence", "action"]
UNKNOWN = "unknown"
WHOLE_PICTURE = "whole picture"
QUOTED_CAUSES = 3


def binary_entropy(probability: float) -> float:
    """Entropy of a yes/no decision in bits, in [0, 1]; 0 at certainty, 1 at even odds."""
    return max(0.0, -sum(p * math.log2(p) for p in (probability, 1.0 - probability) if p > 0.0))


def number(value: float) -> str:
    """How a measured number is written in a sentence: three significant digits."""
    return f"{value:.3g}"


class EvidenceReasoner:
    """Verdict from the calibrated probability, words from regions, types and documents."""

    name = "evidence"

    def reason(
        self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]], schema: type[DraftReport]
    ) -> ReasonerReply:
        """Compose; see ``Reasoner.reason``. The pictures are not looked at again."""
        entropy = None if evidence.probability is None else binary_entropy(evidence.probability)
        verdict = decide(evidence, entropy)
        composer = _Composer(evidence, verdict)
        composer.compose()
        draft = schema(
            verdict=verdict,
            verdict_reason=composer.text("verdict"),
            defect_type=None
            if verdict is Verdict.OK
            else evidence.defect_type or DefectType(name=UNKNOWN, posterior=None),
            description=composer.text("location", "description"),
            root_cause=composer.text("root_cause"),
            consequence=composer.text("consequence"),
            action=composer.text("action"),
            claims=tuple(composer.claims),
        )
        return ReasonerReply(draft, entropy, "calibrated probability" if entropy is not None else "uncalibrated")


def decide(evidence: EvidenceBundle, entropy: float | None) -> Verdict:
    """OK or NG when the entropy allows it and no view contradicts, else REVIEW.

    Before the last round always OK or NG: more evidence may come.

    Args:
        evidence: probability, the accepted entropy and the views that contradict.
        entropy: decision entropy; None when uncalibrated.
    """
    if evidence.probability is None or entropy is None:
        return Verdict.REVIEW
    if evidence.final and (entropy > evidence.entropy_accept or evidence.contradicting or evidence.doubt):
        return Verdict.REVIEW
    return Verdict.NG if evidence.probability >= 0.5 else Verdict.OK


class _Composer:
    """Fills the templates and keeps each sentence with its citations."""

    def __init__(self, evidence: EvidenceBundle, verdict: Verdict) -> None:
        self.evidence = evidence
        self.verdict = verdict
        self.claims: list[Claim] = []
        self.ids = [item.id for item in evidence.items]

    def text(self, *fields: ClaimField) -> str:
        return " ".join(claim.text for claim in self.claims if claim.field in fields)

    def say(self, field: ClaimField, section: str, cites: Sequence[str], **variables: object) -> None:
        known = tuple(dict.fromkeys(cite for cite in cites if cite in self.ids))
        if known:  # a sentence that nothing carries is not said
            self.claims.append(Claim(field=field, text=render("report", section, **variables), evidence_ids=known))

    def compose(self) -> None:
        self._verdict()
        if self.verdict is Verdict.OK:
            self.say("action", "action_ok", self._of_kind("measurement"))
            return
        self._location()
        self._words(self._type())

    def _of_kind(self, *kinds: str) -> list[str]:
        return [item.id for item in self.evidence.items if item.kind in kinds]

    def _verdict(self) -> None:
        e = self.evidence
        if e.image_score is None:
            return
        measured = self._of_kind("measurement", "zoom", "reference", "consistency")
        if e.threshold is None or e.probability is None:
            section = "verdict_zero_shot" if e.zero_shot else "verdict_uncalibrated"
            self.say("verdict", section, measured, score=number(e.image_score))
            return
        section = {Verdict.NG: "verdict_ng", Verdict.OK: "verdict_ok", Verdict.REVIEW: "verdict_review"}[self.verdict]
        scores = {"score": number(e.image_score), "threshold": number(e.threshold)}
        if self.verdict is Verdict.REVIEW and e.contradicting:
            section, scores["views"] = "verdict_contradicted", " or ".join(f"the {view}" for view in e.contradicting)
        self.say("verdict", section, measured, **scores)

    def _location(self) -> None:
        regions = self.evidence.regions
        if not regions:
            return
        first = regions[0]
        if first.place == WHOLE_PICTURE:
            self.say("location", "location_whole", [first.id], place=first.place, box=list(first.box))
            return
        where = {"place": first.place, "box": list(first.box), "area": first.area_px}
        if len(regions) == 1:
            self.say("location", "location_one", [first.id], **where)
        else:
            self.say("location", "location_many", [r.id for r in regions], count=len(regions), **where)

    def _type(self) -> list[RetrievedDocument]:
        """Name the type; return the documents that speak of exactly that type, those of the product first."""
        kind = self.evidence.defect_type
        types = self._of_kind("type")
        if kind is None or kind.posterior is None:
            section = "type_none_zero_shot" if self.evidence.zero_shot else "type_none"
            self.say("defect_type", section, types or self._of_kind("measurement"))
            return []
        if kind.name == UNKNOWN:
            self.say("defect_type", "type_unknown", types, posterior=number(kind.posterior))
            return []
        self.say("defect_type", "type_known", types, name=words(kind.name), posterior=number(kind.posterior))
        matching = [d for d in self.evidence.documents if d.defect_type == kind.name]
        return sorted(matching, key=lambda d: d.product != self.evidence.product)

    def _words(self, documents: list[RetrievedDocument]) -> None:
        kind = self.evidence.defect_type
        if not documents and kind is not None and kind.name != UNKNOWN and kind.posterior is not None:
            section = "action_no_document" if self.verdict is Verdict.NG else "action_review"
            named = {"name": words(kind.name)} if self.verdict is Verdict.NG else {}
            self.say("action", section, self._of_kind("type"), **named)
            return
        if not documents:
            cites = [*self._of_kind("type"), *(d.evidence_id for d in self.evidence.documents)]
            like = next((d for d in self.evidence.documents if d.resemblance is not None), None)
            if like is not None:
                self._resembled(like)
            elif self.verdict is Verdict.NG:
                self.say("root_cause", "cause_unknown", cites or self._of_kind("measurement"))
            action = "action_unknown" if self.verdict is Verdict.NG else "action_review"
            self.say("action", action, self._of_kind("measurement", "region"))
            return
        # Pages may be incomplete, as a note from the plant is: each sentence comes from the first page that has it.
        if found := next((d for d in documents if d.description), None):
            self.say("description", "description_document", [found.evidence_id], sentence=found.description)
        if found := next((d for d in documents if any(d.causes)), None):
            causes = "; ".join(found.causes[:QUOTED_CAUSES]).rstrip(".")
            name = words(found.defect_type)
            self.say("root_cause", "cause_document", [found.evidence_id], name=name, causes=causes)
        if found := next((d for d in documents if any(d.consequences)), None):
            consequences = "; ".join(found.consequences[:QUOTED_CAUSES]).rstrip(".")
            self.say("consequence", "consequence_document", [found.evidence_id], consequences=consequences)
        if self.verdict is Verdict.REVIEW:
            self.say("action", "action_review", self._of_kind("measurement", "region"))
        elif found := next((d for d in documents if d.action), None):
            self.say("action", "action_document", [found.evidence_id], sentence=found.action)
        else:
            name = words(documents[0].defect_type)
            self.say("action", "action_no_document", self._of_kind("type"), name=name)

    def _resembled(self, page: RetrievedDocument) -> None:
        """What a page says whose part deviates alike; the type stays open, so that it is no more than a likeness."""
        likeness = {"page": page.doc_id, "similarity": number(page.resemblance or 0.0)}
        self.say("description", "resembles_page", [page.evidence_id], **likeness, sentence=page.description)
        if any(page.causes):
            causes = "; ".join(page.causes[:QUOTED_CAUSES]).rstrip(".")
            self.say("root_cause", "cause_resembled", [page.evidence_id], name=words(page.defect_type), causes=causes)


def words(slug: str) -> str:
    """A type's name as it is read: ``cut_lead`` -> ``cut lead``."""
    return slug.replace("_", " ")
