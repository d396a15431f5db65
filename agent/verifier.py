"""The verifier: no report leaves whose words contradict the map, the score or the cited document.

It checks any reasoner's draft against the evidence, sentence by sentence. A sentence that is wrong or that nothing
carries is cut and the cut is listed; a contradicted verdict or type is fatal: the report becomes REVIEW, never OK.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .reasoner.base import DraftReport, EvidenceBundle, RetrievedDocument
from .reasoner.evidence import UNKNOWN, words
from .schemas import Claim, Evidence, Verdict

PLACE_PATTERN = re.compile(
    r"\b(upper left|upper right|lower left|lower right|upper|lower|left|right|cent(?:re|er)|top|bottom|middle)\b"
)
NUMBER_PATTERN = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
"""With or without a unit behind it: ``12``, ``-0.5``, ``1.2e+03``, ``12px``; not the digit of ``R1``."""
SUPPORT = 0.6
"""Share of a quoted sentence's content words that its cited documents must contain."""
RELATIVE_TOLERANCE = 0.006
"""Three significant digits, as sentences round."""
STOP_WORDS = frozenset(
    "a an and are as at be been by can cannot for from has have in into is it its like likely may more most no not "
    "of on or other possible so such than that the their them then there they this to was were when where which while "
    "will with cause causes caused consequence consequences usually often due because part defect".split()
)
QUOTING_FIELDS = frozenset({"description", "root_cause", "consequence"})
DENIALS = re.compile(
    r"\b(no (?:visible |apparent )?(?:defect|anomaly|anomalies|damage|deviation)s?|defect[- ]free|flawless)\b",
    re.I,
)
ASSERTIONS = re.compile(
    r"\b(is defective|defect (?:is|was) (?:present|found|visible)|must be rejected|reject the part|scrap)\b", re.I
)


@dataclass(frozen=True)
class Problem:
    """One contradiction.

    Attributes:
        kind: ``verdict``, ``type``, ``place``, ``number``, ``citation``, ``support`` or ``polarity``.
        text: what is wrong, in one line.
        fatal: True when the report as a whole cannot stand.
    """

    kind: str
    text: str
    fatal: bool = False


@dataclass(frozen=True)
class Verification:
    """The outcome.

    Attributes:
        draft: the draft with the refuted sentences cut, REVIEW when something fatal was found.
        problems: everything found, in order.
    """

    draft: DraftReport
    problems: tuple[Problem, ...]

    @property
    def fatal(self) -> bool:
        """Whether the draft's verdict or type was contradicted."""
        return any(problem.fatal for problem in self.problems)


def verify(draft: DraftReport, evidence: EvidenceBundle) -> Verification:
    """Check a draft against its evidence.

    Args:
        draft: any reasoner's answer.
        evidence: the bundle it was given.

    Returns:
        The draft without its refuted sentences. Free text that no kept claim carries is cut with them.
    """
    problems = [*_check_verdict(draft, evidence), *_check_type(draft, evidence)]
    kept: list[Claim] = []
    for claim in draft.claims:
        found = list(_check_claim(claim, draft, evidence))
        problems += found
        if not found:
            kept.append(claim)
    fatal = any(problem.fatal for problem in problems)
    refuted_type = any(problem.kind == "type" for problem in problems)
    if refuted_type:
        kept = [claim for claim in kept if claim.field not in QUOTING_FIELDS and claim.field != "defect_type"]
    if fatal:  # what to do with the part follows from a verdict that no longer stands
        kept = [claim for claim in kept if claim.field not in ("verdict", "action")]

    def said(*fields: str) -> str:
        return " ".join(claim.text for claim in kept if claim.field in fields)

    checked = draft.model_copy(
        update={
            "verdict": Verdict.REVIEW if fatal else draft.verdict,
            "defect_type": None if refuted_type else draft.defect_type,
            "verdict_reason": said("verdict"),
            "description": said("location", "description"),
            "root_cause": said("root_cause"),
            "consequence": said("consequence"),
            "action": said("action"),
            "claims": tuple(kept),
        }
    )
    return Verification(checked, tuple(problems))


def _check_verdict(draft: DraftReport, evidence: EvidenceBundle) -> Iterator[Problem]:
    if draft.verdict is Verdict.REVIEW:
        return
    name = draft.verdict.value
    if evidence.image_score is None or evidence.threshold is None:
        yield Problem("verdict", f"{name} was answered without a calibrated score", fatal=True)
        return
    alarming = evidence.image_score >= evidence.threshold
    if alarming and draft.verdict is Verdict.OK:
        yield Problem(
            "verdict", f"OK was answered, but the score {evidence.image_score:.3g} reaches the threshold", fatal=True
        )
    if not alarming and draft.verdict is Verdict.NG:
        yield Problem(
            "verdict", f"NG was answered, but the score {evidence.image_score:.3g} is below the threshold", fatal=True
        )


def _check_type(draft: DraftReport, evidence: EvidenceBundle) -> Iterator[Problem]:
    if draft.defect_type is None:
        return
    if draft.verdict is Verdict.OK:
        yield Problem("type", f"OK was answered together with the defect type {draft.defect_type.name}", fatal=True)
        return
    if draft.defect_type.name == UNKNOWN:
        return
    known = {candidate.name for candidate in evidence.defect_type.candidates} if evidence.defect_type else set()
    if draft.defect_type.name not in known:
        yield Problem("type", f"the type {draft.defect_type.name} is not among the candidates of the comparison")


def _check_claim(claim: Claim, draft: DraftReport, evidence: EvidenceBundle) -> Iterator[Problem]:
    items = {item.id: item for item in evidence.items}
    missing = [cite for cite in claim.evidence_ids if cite not in items]
    if missing:
        yield Problem("citation", f"a sentence cites {', '.join(missing)}, which does not exist")
        return
    cited = [items[cite] for cite in claim.evidence_ids]
    yield from _check_place(claim, evidence)
    yield from _check_numbers(claim, cited, [d for d in evidence.documents if d.evidence_id in claim.evidence_ids])
    yield from _check_polarity(claim, draft, evidence)
    if claim.field in QUOTING_FIELDS:
        yield from _check_support(claim, cited, draft, evidence)
    if claim.field == "defect_type":
        yield from _check_named_type(claim, draft)


def _check_place(claim: Claim, evidence: EvidenceBundle) -> Iterator[Problem]:
    """A location may only name places of its cited regions; other sentences those of any region or of their source."""
    places = PLACE_PATTERN.findall(_normalised(claim.text))
    if claim.field == "location":
        regions = [region for region in evidence.regions if region.id in claim.evidence_ids]
        if not regions:
            yield Problem("place", "a location is stated without a region of the map")
            return
        sources = [region.place for region in regions]
    else:
        documents = [d for d in evidence.documents if d.evidence_id in claim.evidence_ids]
        cited = [item.text for item in evidence.items if item.id in claim.evidence_ids]
        sources = [*(region.place for region in evidence.regions), *cited, *map(_whole_text, documents)]
    seen = {_upright(place) for text in sources for place in PLACE_PATTERN.findall(_normalised(text))}
    for place in places:
        if not any(_upright(place) in other for other in seen):
            yield Problem("place", f"a sentence says {place!r}, but the map shows {_places(evidence)}")
            return


def _check_numbers(claim: Claim, cited: list[Evidence], documents: list[RetrievedDocument]) -> Iterator[Problem]:
    """Every number in a sentence must stand in the evidence that it cites."""
    stated = NUMBER_PATTERN.findall(claim.text)
    if not stated:
        return
    known = [
        float(v)
        for item in cited
        for v in item.values.values()
        if isinstance(v, int | float) and not isinstance(v, bool)
    ]
    sources = [*(item.text for item in cited), *map(_whole_text, documents)]
    known += [float(text) for source in sources for text in NUMBER_PATTERN.findall(source)]
    for text in stated:
        value = float(text)
        if not any(abs(value - other) <= RELATIVE_TOLERANCE * max(abs(value), abs(other)) for other in known):
            yield Problem("number", f"a sentence states {text}, which its evidence does not contain")
            return


def _check_polarity(claim: Claim, draft: DraftReport, evidence: EvidenceBundle) -> Iterator[Problem]:
    """A sentence may not deny the verdict.

    A denial that stands in the cited document is cut, but does not unsettle an NG: notes may say what they like. An OK
    beside a sentence that asserts a defect is never left standing, whoever wrote the sentence.
    """
    opposite = {Verdict.NG: DENIALS, Verdict.OK: ASSERTIONS}.get(draft.verdict)
    if opposite and (match := opposite.search(claim.text)):
        cited = [_whole_text(d) for d in evidence.documents if d.evidence_id in claim.evidence_ids]
        quoted = any(match[0].lower() in text.lower() for text in cited)
        fatal = draft.verdict is Verdict.OK or not quoted
        said = f"the verdict is {draft.verdict.value}, but a sentence says {match[0]!r}"
        yield Problem("polarity", said, fatal=fatal)


def _check_support(
    claim: Claim, cited: list[Evidence], draft: DraftReport, evidence: EvidenceBundle
) -> Iterator[Problem]:
    """A quoted description, cause or consequence must be in a cited document of the named type."""
    documents = [d for d in evidence.documents if d.evidence_id in claim.evidence_ids]
    named = draft.defect_type.name if draft.defect_type else UNKNOWN
    if named == UNKNOWN and claim.field != "description":
        if any(word in claim.text.lower() for word in ("unknown", "no cause")):
            return
        if documents and all(d.resemblance is not None for d in documents):
            yield from _check_overlap(claim, documents, cited, {d.defect_type for d in documents})
            return
        yield Problem("support", f"a {claim.field.replace('_', ' ')} is stated although the type is unknown")
        return
    wrong = [d for d in documents if named not in (UNKNOWN, d.defect_type)]
    if wrong:
        yield Problem(
            "support", f"a sentence about {words(named)} cites a document about {words(wrong[0].defect_type)}"
        )
        return
    yield from _check_overlap(claim, documents, cited, {named})


def _check_overlap(
    claim: Claim, documents: list[RetrievedDocument], cited: list[Evidence], names: set[str]
) -> Iterator[Problem]:
    """Most content words of a sentence, the types' names apart, must be in what it cites."""
    source = _content_words(" ".join([*map(_whole_text, documents), *(item.text for item in cited)]))
    content = _content_words(claim.text) - _content_words(" ".join(words(name) for name in names))
    if content and len(content & source) < SUPPORT * len(content):
        yield Problem("support", f"a {claim.field.replace('_', ' ')} is not supported by the document it cites")


def _check_named_type(claim: Claim, draft: DraftReport) -> Iterator[Problem]:
    named = draft.defect_type.name if draft.defect_type else UNKNOWN
    if named != UNKNOWN and _normalised(named) not in _normalised(claim.text):
        yield Problem("type", f"the type sentence does not name {words(named)}")


def _whole_text(document: RetrievedDocument) -> str:
    """A document with the fields that a report may quote: the quoted text alone is cut to its budget."""
    return " ".join([document.text, document.description, *document.causes, *document.consequences, document.action])


def _upright(place: str) -> str:
    """The map's word for a place."""
    return {"top": "upper", "bottom": "lower", "middle": "centre"}.get(place, place)


def _places(evidence: EvidenceBundle) -> str:
    return repr(evidence.regions[0].place) if evidence.regions else "no suspicious area"


def _normalised(text: str) -> str:
    return words(text.lower()).replace("center", "centre")


def _content_words(text: str) -> set[str]:
    """Lower-case words without the function words, cut to a common stem of six letters."""
    return {word[:6] for word in re.findall(r"[a-z]{3,}", _normalised(text)) if word not in STOP_WORDS}
