"""What of a model's answer in a conversation may be shown: sentences that cite evidence which carries them.

The verdict and the named type are the inspection's; a sentence that says otherwise is cut, whoever asked for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import sentences as say
from .reasoner.base import DraftReport, EvidenceBundle, RetrievedDocument
from .reasoner.evidence import UNKNOWN, words
from .schemas import Claim, Evidence, InspectionReport, Verdict
from .verifier import verify

MAX_SENTENCES = 10
SENTENCE_LETTERS = 400
CITED = re.compile(r"\s*[\[(]\s*([A-Z]\d{1,4}(?:\s*(?:,|;|and)\s*[A-Z]\d{1,4})*)\s*[\])]")
IGNORANCE = re.compile(
    r"\b(?:do(?:es)? not|cannot|can't|don't|doesn't|is not|are not|isn't|nothing) "
    r"(?:\w+ )?(?:tell|tells|say|says|told|know|known|show|shows|judge|clear|mentioned|determine|answer)\b",
    re.I,
)
"""That the evidence does not tell needs no evidence."""


@dataclass(frozen=True)
class Checked:
    """An answer after the check.

    Attributes:
        text: the sentences that stand; empty when none does.
        cites: their evidence.
        problems: why others were cut, one line each.
        overturning: whether one of those spoke against the verdict.
    """

    text: str
    cites: tuple[str, ...]
    problems: tuple[str, ...]
    overturning: bool


def bundle_of(report: InspectionReport, further: Sequence[Evidence] = ()) -> EvidenceBundle:
    """A report's evidence, and what a conversation added, as a reasoner and the verifier see it.

    Args:
        report: any.
        further: evidence of the conversation, with ids of its own.
    """
    items = (*report.evidence, *further)
    size: Any = report.provenance.get("picture", {}).get("original_size_px")
    gate: dict[str, Any] = report.provenance.get("gate", {})
    return EvidenceBundle(
        product=report.product,
        image_score=report.image_score,
        threshold=report.threshold,
        probability=report.probability,
        calibrated=report.uncertainty.calibrated,
        regions=report.regions,
        defect_type=report.defect_type,
        type_entropy=report.uncertainty.type_entropy,
        documents=tuple(_document(item) for item in items if item.kind == "document"),
        items=items,
        seed=report.sha256 or "",
        size_px=None if size is None else (int(size[0]), int(size[1])),
        grid=gate.get("grid"),
    )


def _document(item: Evidence) -> RetrievedDocument:
    values = item.values
    similarity, resemblance = values.get("similarity"), values.get("resemblance")
    return RetrievedDocument(
        evidence_id=item.id,
        doc_id=item.source,
        defect_type=str(values.get("defect_type", UNKNOWN)),
        product=str(values.get("product", "")),
        similarity=similarity if isinstance(similarity, float) else 0.0,
        description="",
        causes=(),
        consequences=(),
        action="",
        text=item.text,
        resemblance=resemblance if isinstance(resemblance, float) else None,
    )


@dataclass(frozen=True)
class Sentence:
    """One sentence and the ids behind it."""

    text: str
    cites: tuple[str, ...]


def read_sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of an answer with the ids that stand in or behind them.

    Args:
        text: words with ids in brackets, or a JSON object with ``sentences`` of ``text`` and ``cites``.
    """
    from ..tools.knowledge.schema import plain_text

    formed = _formed(text)
    if formed is not None:
        return formed
    found: list[Sentence] = []
    for piece in say.sentences(" ".join(text.split())):
        leading = CITED.match(piece)
        while leading and found:  # "It is bent. [R1] It is long." puts R1 behind the first
            found[-1] = Sentence(found[-1].text, tuple(dict.fromkeys((*found[-1].cites, *_ids([leading[1]])))))
            piece = piece[leading.end() :].lstrip(" .,;")
            leading = CITED.match(piece)
        body = re.sub(r"\s+([.,;!?])", r"\1", plain_text(CITED.sub("", piece)))
        if re.search(r"\w", body):
            found.append(Sentence(body, _ids(match[1] for match in CITED.finditer(piece))))
    return tuple(found)


def _ids(groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for group in groups for item in re.findall(r"[A-Z]\d{1,4}", group)))


def _formed(text: str) -> tuple[Sentence, ...] | None:
    """An answer in the form of a report's sentences, which a model trained on reports may give."""
    from ..tools.knowledge.schema import plain_text

    try:
        value, _ = json.JSONDecoder().raw_decode(text, max(text.find("{"), 0))
    except (ValueError, RecursionError):
        return None
    rows = value.get("sentences") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        return None
    found = []
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("text"), str) and isinstance(row.get("cites"), list):
            cites = _ids(cite for cite in row["cites"] if isinstance(cite, str))
            found += [Sentence(plain_text(piece), cites) for piece in say.sentences(row["text"])]
    return tuple(found)


def check_answer(text: str, report: InspectionReport, further: Sequence[Evidence] = ()) -> Checked:
    """Cut from a model's answer what the evidence does not carry.

    Args:
        text: as the model said it.
        report: what is talked about.
        further: evidence that tools added.
    """
    bundle = bundle_of(report, further)
    kept: list[Sentence] = []
    problems: list[str] = []
    overturning = False
    spoken = read_sentences(text)
    for sentence in spoken[:MAX_SENTENCES]:
        against = overturns(sentence.text, report)
        wrong = against or _problem(sentence, report, bundle)
        if wrong is None:
            kept.append(sentence)
        else:
            problems.append(wrong)
            overturning = overturning or against is not None
    if len(spoken) > MAX_SENTENCES:
        problems.append(f"only the first {MAX_SENTENCES} sentences are shown")
    said = " ".join(sentence.text for sentence in kept)
    cites = tuple(dict.fromkeys(cite for sentence in kept for cite in sentence.cites))
    return Checked(said, cites, tuple(problems), overturning)


def overturns(text: str, report: InspectionReport) -> str | None:
    """What of a sentence speaks against the verdict or the type that the inspection named; None for nothing."""
    if found := say.addresses_a_model(text):
        return f"a sentence gives orders instead of describing the part: {found[:60]!r}"
    verdict = report.verdict
    good, bad = say.calls_good(text), say.calls_bad(text)
    if verdict is not Verdict.OK and good:
        return f"the verdict is {verdict.value}, but a sentence says {good!r}"
    if verdict is not Verdict.NG and bad:
        return f"the verdict is {verdict.value}, but a sentence says {bad!r}"
    if named := _other_verdict(text, verdict):
        return f"the verdict is {verdict.value}, but a sentence says {named!r}"
    return _other_type(text, report)


_SAID_VERDICT = re.compile(r"\b(?:verdict|result|decision|answer|it|part)\b[^.;]{0,30}?\b(OK|NG|REVIEW)\b")


def _other_verdict(text: str, verdict: Verdict) -> str | None:
    for match in _SAID_VERDICT.finditer(text):
        if match[1] != verdict.value and not say.negated(match[0]):
            return match[0]
    return None


def _other_type(text: str, report: InspectionReport) -> str | None:
    """A type that a sentence gives the part instead of the named one."""
    kind = report.defect_type
    if kind is None or kind.name == UNKNOWN or say.negated(text):
        return None
    pages = [str(item.values["defect_type"]) for item in report.evidence if "defect_type" in item.values]
    names = {candidate.name for candidate in kind.candidates} | set(pages)
    for other in sorted(names - {kind.name, UNKNOWN, "good", "none"}):
        subject = r"(?:it|this|that|the (?:part|defect|area|mark|spot|type)|R\d+)"
        is_one = (
            rf"\b{subject} (?:really |actually |clearly )?(?:is|has|shows) (?:an? |the )?{re.escape(words(other))}\b"
        )
        if match := re.search(is_one, text, re.I):
            return f"the type is {words(kind.name)}, but a sentence says {match[0]!r}"
    return None


def _problem(sentence: Sentence, report: InspectionReport, bundle: EvidenceBundle) -> str | None:
    """What is wrong with a sentence that does not touch the verdict."""
    if len(sentence.text) > SENTENCE_LETTERS:
        return f"a sentence of more than {SENTENCE_LETTERS} letters"
    if not sentence.cites:
        ignorant = IGNORANCE.search(sentence.text) and not say.quantities(sentence.text)
        return None if ignorant else f"a sentence cites nothing: {sentence.text[:60]!r}"
    known = {item.id: item for item in bundle.items}
    missing = [cite for cite in sentence.cites if cite not in known]
    if missing:
        return f"a sentence cites {', '.join(missing)}, which does not exist"
    quotes = any(known[cite].kind == "document" for cite in sentence.cites)
    field: Any = "description" if quotes else "verdict"
    claim = Claim(field=field, text=sentence.text, evidence_ids=sentence.cites)
    # Pages may be about another type than the named one: an operator may ask how to tell the two apart.
    draft = DraftReport(verdict=report.verdict, defect_type=None if quotes else report.defect_type)
    before = {problem.text for problem in verify(draft, bundle).problems}
    after = verify(draft.model_copy(update={"claims": (claim,)}), bundle).problems
    return next((problem.text for problem in after if problem.text not in before), None)
