"""What can be wrong with one sentence of a draft: orders, polarity, place, numbers, words and types.

Each check yields what is wrong, the gravest first; the verifier cuts the sentence at the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from . import sentences as say
from .reasoner.base import DraftReport, EvidenceBundle, RetrievedDocument
from .reasoner.evidence import UNKNOWN, words
from .schemas import Claim, Evidence, Verdict
from .sentences import Quantity, content_words, normalised

SUPPORT = 0.6
"""Share of a sentence's content words that what it cites must contain."""
RELATIVE_TOLERANCE = 0.006
"""Three significant digits, as sentences round."""
ROUNDED_TOLERANCE = 0.05
"""A model may round to fewer digits than it was given, but not to another size."""
QUOTING_FIELDS = frozenset({"description", "root_cause", "consequence"})
DECIDING_FIELDS = frozenset({"verdict", "action"})
COMPARING = re.compile(r"\b(?:rather than|more than|less than|than|unlike|instead of|not|no|nor|or|if|without)\b", re.I)
QUOTED = 3
"""Words that a clause needs to count as quoted: fewer stand in a page by chance."""
PIXEL_VALUES = frozenset({"x0", "y0", "x1", "y1", "area_px"})


@dataclass(frozen=True)
class Problem:
    """One contradiction.

    Attributes:
        kind: ``verdict``, ``type``, ``place``, ``number``, ``citation``, ``support``, ``polarity`` or ``order``.
        text: what is wrong, in one line.
        fatal: True when the report as a whole cannot stand.
        of_sentence: True when it concerns one sentence, which is cut, and not the verdict or the type as such.
    """

    kind: str
    text: str
    fatal: bool = False
    of_sentence: bool = False


def problems_of(claim: Claim, draft: DraftReport, evidence: EvidenceBundle) -> Iterator[Problem]:
    """What is wrong with one sentence, the gravest first."""
    cited = [item for item in evidence.items if item.id in claim.evidence_ids]
    documents = [d for d in evidence.documents if d.evidence_id in claim.evidence_ids]
    yield from _check_orders(claim)
    yield from _check_polarity(claim, documents, draft, evidence)
    yield from _check_place(claim, cited, documents, evidence)
    yield from _check_numbers(claim, cited, documents, evidence)
    if claim.field in QUOTING_FIELDS:
        yield from _check_quotation(claim, cited, documents, draft)
    else:
        yield from _check_words(claim, cited, documents, draft, evidence)
    yield from _check_other_types(claim, cited, documents, draft, evidence)


def _check_orders(claim: Claim) -> Iterator[Problem]:
    """A sentence describes a part; one that gives orders to a reader of prompts came from somebody else."""
    if said := say.addresses_a_model(claim.text):
        yield Problem(
            "order", f"a sentence gives orders instead of describing the part: {said[:60]!r}", of_sentence=True
        )


def _check_polarity(
    claim: Claim, documents: list[RetrievedDocument], draft: DraftReport, evidence: EvidenceBundle
) -> Iterator[Problem]:
    """A sentence may not deny the verdict, nor decide what the verdict leaves open, nor turn a comparison round.

    A denial that stands in the cited document is cut, but does not unsettle an NG: notes may say what they like. An OK
    beside a sentence that asserts a defect is never left standing, whoever wrote the sentence.
    """
    text, verdict = claim.text, draft.verdict
    quoted = _is_quoted(text, documents)
    general = {Verdict.NG: say.denial, Verdict.OK: say.assertion}.get(verdict)
    if general and (found := general(text)):
        said = f"the verdict is {verdict.value}, but a sentence says {found!r}"
        fatal = verdict is Verdict.OK or not _says(documents, found)
        yield Problem("polarity", said, fatal=fatal, of_sentence=True)
    if quoted:
        return
    if verdict is Verdict.NG and (found := say.calls_good(text)):
        said, fatal = f"the verdict is NG, but a sentence says {found!r}", not _says(documents, found)
        yield Problem("polarity", said, fatal=fatal, of_sentence=True)
    if verdict is Verdict.OK and (found := say.calls_bad(text) or say.names_a_defect(text)):
        yield Problem("polarity", f"the verdict is OK, but a sentence says {found!r}", fatal=True, of_sentence=True)
    decides = say.calls_good(text) or say.calls_bad(text)
    if verdict is Verdict.REVIEW and claim.field in DECIDING_FIELDS and decides:
        yield Problem("polarity", f"the verdict is REVIEW, but a sentence decides: {decides!r}", of_sentence=True)
    alarming = None
    if evidence.image_score is not None and evidence.threshold is not None:
        alarming = evidence.image_score >= evidence.threshold
    if found := say.wrong_comparison(text, alarming):
        yield Problem("polarity", f"a sentence says {found!r}, which the measurement does not", of_sentence=True)


def _says(documents: list[RetrievedDocument], words: str) -> bool:
    """Whether a cited page holds these words."""
    return any(words.lower() in _whole_text(document).lower() for document in documents)


def _check_place(
    claim: Claim, cited: list[Evidence], documents: list[RetrievedDocument], evidence: EvidenceBundle
) -> Iterator[Problem]:
    """A location may only name places of its cited regions; other sentences those of any region or of their source."""
    sources = [region.place for region in evidence.regions]
    if claim.field == "location":
        sources = [region.place for region in evidence.regions if region.id in claim.evidence_ids]
        if not sources:
            yield Problem("place", "a location is stated without a region of the map", of_sentence=True)
            return
    else:
        sources += [*(item.text for item in cited), *map(_whole_text, documents)]
    places = say.places(claim.text)
    seen = {place for text in sources for place in say.places(text)} if places else set()
    for place in places:
        if not any(place in other for other in seen):
            yield Problem(
                "place", f"a sentence says {place!r}, but the map shows {_places(evidence)}", of_sentence=True
            )
            return


def _check_numbers(
    claim: Claim, cited: list[Evidence], documents: list[RetrievedDocument], evidence: EvidenceBundle
) -> Iterator[Problem]:
    """Every number in a sentence must stand in the evidence that it cites, with its unit."""
    stated = say.quantities(claim.text)
    if not stated:
        return
    known = [
        (float(value), "px" if key in PIXEL_VALUES else "%" if key.startswith("percent") else "")
        for item in cited
        for key, value in _values_meant(claim, item).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    sources = [*(i.text for i in cited if _values_meant(claim, i) == i.values), *map(_whole_text, documents)]
    # A digit in a plant's name for a type ("batch_2") is no measurement.
    sources += [words(name) for item in cited if item.kind == "type" for name in _values_meant(claim, item)]
    known += [(found.value, found.unit) for text in sources for found in say.quantities(text)]
    known += [(float(len(evidence.regions)), "count")]
    for quantity in stated:
        if not any(_is_stated(quantity, value, unit) for value, unit in known):
            yield Problem(
                "number", f"a sentence states {quantity.text}, which its evidence does not contain", of_sentence=True
            )
            return


def _values_meant(claim: Claim, item: Evidence) -> dict[str, Any]:
    """The values of an item that a sentence can mean: of a comparison of types those of the types it names."""
    if item.kind != "type":
        return item.values
    said = say.plain_line(claim.text)
    named = {key: value for key, value in item.values.items() if say.plain_line(key) in said}
    return named or item.values


def _is_stated(quantity: Quantity, value: float, unit: str) -> bool:
    """Whether a stated number is a known one, perhaps rounded; shares may be said in percent, pixels without unit."""
    if quantity.unit == "%" and unit == "" and 0.0 <= value <= 1.0:
        value, unit = 100.0 * value, "%"
    if quantity.unit not in ("", unit):
        return False
    distance, size = abs(quantity.value - value), max(abs(quantity.value), abs(value))
    exact = distance <= RELATIVE_TOLERANCE * size
    return exact or (distance <= quantity.half_step and distance <= ROUNDED_TOLERANCE * size)


def _check_quotation(
    claim: Claim, cited: list[Evidence], documents: list[RetrievedDocument], draft: DraftReport
) -> Iterator[Problem]:
    """A description, cause or consequence must be in a cited document of the named type."""
    named = draft.defect_type.name if draft.defect_type else UNKNOWN
    field = claim.field.replace("_", " ")
    names = {named}
    if named == UNKNOWN and claim.field != "description":
        if "unknown" in claim.text.lower() and not _unsupported(claim.text, [], set()):
            return
        if not documents or any(d.resemblance is None for d in documents):
            yield Problem("support", f"a {field} is stated although the type is unknown", of_sentence=True)
            return
        names = {d.defect_type for d in documents}
    elif wrong := [d for d in documents if named not in (UNKNOWN, d.defect_type)]:
        said = f"a sentence about {words(named)} cites a document about {words(wrong[0].defect_type)}"
        yield Problem("support", said, of_sentence=True)
        return
    sources = [*map(_whole_text, documents), *(item.text for item in cited)]
    if _unsupported(claim.text, sources, names, sayable=frozenset()):
        yield Problem("support", f"a {field} is not supported by what it cites", of_sentence=True)
    elif not _is_quoted(claim.text, documents) and (
        _turned_round(claim.text, sources) or say.swapped(claim.text, sources)
    ):
        yield Problem("support", f"a {field} says the opposite of what it cites", of_sentence=True)


def _check_words(
    claim: Claim,
    cited: list[Evidence],
    documents: list[RetrievedDocument],
    draft: DraftReport,
    evidence: EvidenceBundle,
) -> Iterator[Problem]:
    """The other sentences may use plain words of inspecting, and beyond them what they cite."""
    sources = [*map(_whole_text, documents), *(item.text for item in cited), *(r.place for r in evidence.regions)]
    names = {draft.defect_type.name} if draft.defect_type else set()
    if _unsupported(claim.text, sources, names):
        field = claim.field.replace("_", " ")
        yield Problem("support", f"a sentence about the {field} says what it does not cite", of_sentence=True)


def _unsupported(text: str, sources: list[str], names: set[str], *, sayable: frozenset[str] | None = None) -> bool:
    """Whether too few content words, the types' names apart, are in the sources or need none."""
    content = content_words(text) - content_words(" ".join(words(name) for name in names))
    unknown = set(content)
    for source in [say.sayable() if sayable is None else sayable, *map(content_words, sources)]:
        unknown -= source
    return bool(content) and len(content) - len(unknown) < SUPPORT * len(content)


def _turned_round(text: str, sources: list[str]) -> bool:
    """Whether a clause denies what the nearest clause of its sources states, or states what that one denies."""
    pieces = [reading for source in sources for reading in say.readings(source)]
    lines = [say.plain_line(source) for source in sources]
    for clause in say.clauses(text):
        if any(say.plain_line(clause) in line for line in lines):
            continue
        wanted = content_words(clause)
        shares = [(len(wanted & content) / len(wanted), denies) for content, denies in pieces] if wanted else []
        best = max((share for share, _ in shares), default=0.0)
        if best >= SUPPORT and all(denies != say.negated(clause) for share, denies in shares if share == best):
            return True
    return False


def _check_other_types(
    claim: Claim,
    cited: list[Evidence],
    documents: list[RetrievedDocument],
    draft: DraftReport,
    evidence: EvidenceBundle,
) -> Iterator[Problem]:
    """A sentence of a part with one type may not call it another, unless it compares the two or quotes."""
    if draft.defect_type is None or claim.field not in (*QUOTING_FIELDS, "defect_type"):
        return
    named = draft.defect_type.name
    own = [
        clause
        for clause in say.clauses(claim.text)
        if len(clause.split()) < QUOTED or not _is_quoted(clause, documents)
    ]
    text = re.sub(rf"\b{re.escape(normalised(named))}\b", " ", normalised(", ".join(own)))
    others = {*evidence.shortlist, *(d.defect_type for d in evidence.documents)} - {named, UNKNOWN, "good"}
    if claim.field == "description" and named != UNKNOWN:
        others |= say.defect_names(text)
    alike = {d.defect_type for d in documents if d.resemblance is not None}
    for other in sorted(others - alike):
        match = re.search(rf"\b{re.escape(normalised(other))}(?:e?s)?\b", text)
        if match and not COMPARING.search(claim.text) and not _is_quoted(_around(text, match), documents):
            said = f"the type is {words(named)}, but a sentence speaks of {words(other)}"
            yield Problem("type", said, of_sentence=True)
            return


def _around(text: str, match: re.Match[str]) -> str:
    """A word with its neighbours."""
    before, after = text[: match.start()].split()[-1:], text[match.end() :].split()[:1]
    return " ".join([*before, match[0], *after])


def check_named_type(claim: Claim, draft: DraftReport) -> Iterator[Problem]:
    """Somewhere the sentences about the type must name it."""
    named = draft.defect_type.name if draft.defect_type else UNKNOWN
    if named != UNKNOWN and normalised(named) not in normalised(claim.text):
        yield Problem("type", f"the type sentence does not name {words(named)}", of_sentence=True)


def _is_quoted(text: str, documents: list[RetrievedDocument]) -> bool:
    """Whether a text stands in a cited document, marks and case apart."""
    said = say.plain_line(text)
    return bool(said.strip()) and any(said in say.plain_line(_whole_text(d)) for d in documents)


@lru_cache(maxsize=say.KEPT)
def _whole_text(document: RetrievedDocument) -> str:
    """A document with the fields that a report may quote: the quoted text alone is cut to its budget."""
    return "\n".join([document.text, document.description, *document.causes, *document.consequences, document.action])


def _places(evidence: EvidenceBundle) -> str:
    return repr(evidence.regions[0].place) if evidence.regions else "no suspicious area"
