"""What a model said becomes a draft, or one line that says what is wrong with it."""

from __future__ import annotations

import json

from pydantic import ValidationError

from ..schemas import Claim, DefectType, Verdict
from ..vision_language import Generated
from .answer import NO_REGION, NO_TYPE, Answer
from .base import DraftReport, EvidenceBundle
from .evidence import UNKNOWN

SHOWN_FAULTS = 4


def checked(generated: Generated, evidence: EvidenceBundle) -> Answer | str:
    """The answer, or in one line what is wrong with it.

    Args:
        generated: what the model said.
        evidence: what it was told; its shortlist and regions are all that it may name.
    """
    text = generated.text
    try:
        value, _ = json.JSONDecoder().raw_decode(text, max(text.find("{"), 0))
        answer = Answer.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)[:SHOWN_FAULTS]
        return "; ".join(f"{'.'.join(map(str, f['loc']))[:60] or 'answer'}: {f['msg']}" for f in faults)
    except (ValueError, RecursionError):
        if generated.finish_reason == "length":
            return "it was cut for its length; write fewer sentences."
        return "it holds no whole JSON object."
    named = named_type(answer.defect_type, evidence)
    if named is None:
        return f"defect_type must be one of: {', '.join((*evidence.shortlist, UNKNOWN, NO_TYPE))}."
    if answer.verdict is Verdict.OK and named not in (NO_TYPE, UNKNOWN):
        return "a part that is OK has the defect_type none."
    regions = {region.id for region in evidence.regions}
    if answer.region != NO_REGION and answer.region not in regions:
        return f"region must be one of: {', '.join([*sorted(regions), NO_REGION])}."
    return answer


def as_draft(
    answer: Answer, evidence: EvidenceBundle, schema: type[DraftReport]
) -> tuple[DraftReport, tuple[str, ...]]:
    """The report's fields, and what was left out of them.

    Args:
        answer: of the form.
        evidence: what it rests on.
        schema: the draft's class.
    """
    from ...tools.knowledge.schema import plain_text

    claims, problems = [], []
    for sentence in answer.sentences:
        text = plain_text(sentence.text)
        if not sentence.cites:
            problems.append(f"a sentence about the {sentence.about.replace('_', ' ')} cites nothing")
        elif text:
            claims.append(Claim(field=sentence.about, text=text, evidence_ids=tuple(dict.fromkeys(sentence.cites))))
    draft = schema(verdict=answer.verdict, defect_type=_defect_type(answer, evidence), claims=tuple(claims))
    return draft, tuple(problems)


def _defect_type(answer: Answer, evidence: EvidenceBundle) -> DefectType | None:
    if answer.verdict is Verdict.OK:
        return None
    named, compared = named_type(answer.defect_type, evidence), evidence.defect_type
    named = UNKNOWN if named is None or named == NO_TYPE else named
    candidates = compared.candidates if compared else ()
    shares = {candidate.name: candidate.posterior for candidate in candidates}
    return DefectType(name=named, posterior=shares.get(named), candidates=candidates)


def named_type(said: str, evidence: EvidenceBundle) -> str | None:
    """Which type an answer names, however it writes case, blanks and hyphens; None for one that may not be named."""
    from .composing import said_type

    known = {_folded(name): name for name in (NO_TYPE, UNKNOWN, *evidence.shortlist)}
    shown = {_folded(said_type(name)): name for name in evidence.shortlist}
    return {**shown, **known}.get(_folded(said))


def _folded(name: str) -> str:
    return "_".join(name.lower().replace("-", " ").replace("_", " ").split())
