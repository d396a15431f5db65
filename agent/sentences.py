"""What free sentences say that can be checked: their numbers with units, what they deny or assert, whom they address.

Plain patterns over English, on purpose: a judge that is itself a model could be talked to by what it judges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from ..prompts import load_prompts

_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z])")
_ABBREVIATED = re.compile(r"\b(?:e\.g|i\.e|etc|approx|vs|cf|ca|no|fig|dept|mr|mrs|dr|st)\.$", re.I)
_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
"""With or without a unit behind it: ``12``, ``-0.5``, ``1.2e+03``, ``12px``; not the digit of ``R1``."""
_UNITS = {
    "px": r"px|pixels?",
    "%": r"%|percent(?!ile)|per cent\b|pct",
    "mm": r"mm|millimet(?:re|er)s?",
    "cm": r"cm|centimet(?:re|er)s?",
    "um": r"[uµμ]m|microns?|micromet(?:re|er)s?",
    "nm": r"nm|nanomet(?:re|er)s?",
    "m": r"m|met(?:re|er)s?",
    "in": r"inch(?:es)?|[\"″]",
    "deg": r"°\s?[CF]?|degrees?",
    "kg": r"kg|kilograms?",
    "s": r"s|seconds?|minutes?|hours?|days?",
    "v": r"k?V|volts?|m?A|amps?|amperes?|[kM]?Hz|[kM]?Pa|bar|N|newtons?|[kM]?Ω|ohms?",
}
_UNIT = re.compile(r"\s?(?:" + "|".join(f"(?P<u{n}>{p})" for n, p in enumerate(_UNITS.values())) + r")(?![A-Za-z])")
_COUNTS = {word: n for n, word in enumerate("two three four five six seven eight nine ten".split(), start=2)}
_COUNTED = re.compile(
    rf"\b({'|'.join(_COUNTS)})\s+(?:\w+\s+){{0,2}}?(areas|regions|deviations|defects|spots|places|marks|anomalies|flaws)\b",
    re.I,
)
_NEGATION = re.compile(
    r"\b(?:no|not|without|never|none|neither|nor|nothing|lacks?|absent|free of|free from|cannot|\w+n't)\b", re.I
)
_DEFECT = (
    r"(?:defects?|defective|faulty|anomal(?:y|ies|ous)|damaged?|flaws?|flawed|broken|cracks?|cracked|scratch(?:es|ed)?|"
    r"dents?|dented|stains?|stained|corro(?:ded|sion)|rust(?:y|ed)?|chips?|chipped|burrs?|contaminat(?:ed|ion))"
)
_PROBABILITY = re.compile(
    r"\b(?:probability|chance|likelihood|odds) of (?:a |any )?defects?\b|\bdefect probability\b", re.I
)
_DENIALS = re.compile(
    r"\b(no (?:visible |apparent )?(?:defect|anomaly|anomalies|damage|deviation)s?|defect[- ]free|flawless)\b", re.I
)
_ASSERTIONS = re.compile(
    r"\b(is defective|defect (?:is|was) (?:present|found|visible)|must be rejected|reject the part|scrap)\b", re.I
)
_PART = r"(?:part|component|piece|product|unit|item|sample|it|surface|picture)"
_CALLS_GOOD = re.compile(
    rf"\b(?:{_PART} (?:is|looks|appears|seems)(?: to be)?(?: \w+ly)? (?:ok|okay|good|fine|intact|normal|acceptable|"
    rf"undamaged|perfect|conforming|clean|sound)\b|{_PART} (?:passes|passed|conforms)\b|"
    r"(?:can|may|should|must) (?:be )?(?:pass|accepted|released|shipped)\b|nothing (?:is )?wrong\b|false alarm\b|"
    r"(?:without|free of|free from|any sign of no) (?:any )?(?:visible )?(?:defect|damage|flaw|anomal)\w*|"
    rf"(?:is|are|was) not (?:a |an )?{_DEFECT}|no {_DEFECT}|not {_DEFECT}|(?:is|only|merely|just) normal variation)",
    re.I,
)
_CALLS_BAD = re.compile(
    rf"\b(?:{_PART} (?:is|looks|appears|seems)(?: \w+ly)? (?:ng|bad|defective|faulty|broken|damaged|rejected|"
    r"nonconforming|unacceptable)\b|must be (?:rejected|scrapped|discarded)|"
    r"(?:reject|scrap|discard) (?:the|this) part)",
    re.I,
)
_BELOW = re.compile(
    r"\b(?:below|under|beneath|less than|lower than|short of|not (?:above|over|exceed\w*|reach\w*)|"
    r"(?:does|do|did) not (?:reach|exceed)|within)\b[^.;:]{0,40}?\b(?:threshold|alarm|limit|spread)\b",
    re.I,
)
_ABOVE = re.compile(
    r"\b(?:above|over|exceed(?:s|ed|ing)?|reach(?:es|ed)?|beyond|higher than|greater than|more than|"
    r"not (?:below|under))\b"
    r"[^.;:]{0,40}?\b(?:threshold|alarm|limit|spread)\b",
    re.I,
)
_COMPARED = re.compile(
    r"(?<![\w.])(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?: \w+)?(?:,| is| lies| was)*\s+(?:clearly |well |far |just )?"
    r"(below|under|less than|lower than|above|over|exceeds|more than|greater than|higher than)\s+"
    r"(?:the |an? )?(?:alarm |its )?(?:threshold |limit )?(?:of |at )?(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)",
    re.I,
)
_ADDRESSED = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.]{0,40}\b(?:instruction|rule|prompt|above|previous|prior|"
    r"earlier|score|evidence|measurement|everything|all)|"
    r"\bignore (?:it|this|that|them)\b|"
    r"\b(?:set|change|make|keep|turn) (?:the |your )?(?:verdict|answer|result|decision)\b|"
    r"\b(?:system|developer) (?:prompt|message|instruction)|\bas an? (?:ai|language model|assistant)\b|"
    r"\byou (?:are|must|should|will|shall|need to) (?:now |always |only )*(?:answer|respond|reply|output|say|act|an? |"
    r"the |report|classify|mark)|\b(?:answer|respond|reply|output|print|return) (?:only |with |in )+|"
    r"\b(?:mark|classify|report|label|treat|declare) (?:it|this|all|every|the)\b[^.]{0,30}\b(?:as )?(?:ok|ng|good|bad|"
    r"pass(?:ed)?|defect[- ]free)\b|"
    r"\b(?:this is an? )?(?:new|important|urgent) instructions?\b|<\|?[a-z_]+\|?>|```|\[/?inst\]|"
    r"^\s*(?:system|assistant|user|tool)\s*:|\b(?:jailbreak|developer mode)\b|https?://|www\.",
    re.I,
)
_OPPOSITES = (
    "bright dark|light dark|hard soft|thin thick|narrow wide|deep shallow|smooth rough|wet dry|hot cold|high low|"
    "large small|big small|long short|loose tight|inside outside|inner outer|before after|early late|raised sunken|"
    "convex concave|sharp blunt|straight curved|regular irregular|single multiple|along across|front back|new worn"
)
_OPPOSITE = {
    one: {b if one == a else a for a, b in (pair.split() for pair in _OPPOSITES.split("|")) if one in (a, b)}
    for pair in _OPPOSITES.split("|")
    for one in pair.split()
}
_DEFECT_NAMES = frozenset("crack scratch dent hole stain chip burr corrosion rust pore void pit bubble wrinkle".split())
STOP_WORDS = frozenset(
    "a an and are as at be been by can cannot for from has have in into is it its like likely may more most no not "
    "of on or other possible so such than that the their them then there they this to was were when where which while "
    "will with cause causes caused consequence consequences usually often due because part defect".split()
)
_PLAIN = frozenset(
    "good parts area areas region regions place spot located lies lie found shows show seen visible visibly clearly "
    "score scores threshold alarm reaches exceeds exceed deviation deviates deviate differs probability expert "
    "comparison compared suspicious strongest map picture image surface side corner edge middle top bottom verdict "
    "review needed decide decided decision evidence because therefore hence measured measurement reference references "
    "bounding box type named unknown likely likelier most more less".split()
)
_PLACE = re.compile(
    r"\b(upper left|upper right|lower left|lower right|upper|lower|left|right|centre|top|bottom|middle)\b"
)
_UPRIGHT = {"top": "upper", "bottom": "lower", "middle": "centre"}
_LETTERS, _WORDS, _MARKS = re.compile(r"[a-z]{3,}"), re.compile(r"[\w']+"), re.compile(r"[.;:!?,\n]+|\b(?:and|but)\b")
KEPT = 2048
"""Texts whose reading is kept: the pages of a product come back with every picture."""
_OF_TEMPLATES = (("report", None), ("inspect", ("score", "verdict_defect", "verdict_no_alarm", "verdict_none", "area")))


@dataclass(frozen=True)
class Quantity:
    """A number in a text.

    Attributes:
        text: as it stands there.
        value: of the number.
        unit: folded, such as ``px`` or ``%``; empty for none.
        half_step: half of the last digit that is stated, so that rounding can be told from inventing.
    """

    text: str
    value: float
    unit: str
    half_step: float


@lru_cache(maxsize=KEPT)
def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text, abbreviations and decimals left whole."""
    found: list[str] = []
    for piece in _END.split(text):
        if found and _ABBREVIATED.search(found[-1]):
            found[-1] = f"{found[-1]} {piece}"
        else:
            found.append(piece)
    return tuple(piece.strip() for piece in found if piece.strip())


@lru_cache(maxsize=KEPT)
def quantities(text: str) -> tuple[Quantity, ...]:
    """The numbers of a text with their units, counted things in words among them."""
    found = []
    for match in _NUMBER.finditer(text):
        said = match[0].replace("−", "-")
        unit = _UNIT.match(text, match.end())
        name = "" if unit is None else list(_UNITS)[int(str(unit.lastgroup)[1:])]
        mantissa, _, exponent = said.lower().partition("e")
        half_step = float(
            f"0.5e{int(exponent or 0) - len(mantissa.partition('.')[2])}"
        )  # 0 or inf where ** would raise
        found.append(Quantity(match[0], float(said), name, half_step))
    for match in _COUNTED.finditer(text):
        found.append(Quantity(match[0], float(_COUNTS[match[1].lower()]), "count", 0.0))
    return tuple(found)


@lru_cache(maxsize=KEPT)
def denial(text: str) -> str | None:
    """Words that deny a defect in general, whoever says them."""
    match = _DENIALS.search(text)
    return match[0] if match else None


@lru_cache(maxsize=KEPT)
def assertion(text: str) -> str | None:
    """Words that assert a defect in general, whoever says them."""
    for match in _ASSERTIONS.finditer(text):
        if not _NEGATION.search(" ".join(text[: match.start()].split()[-2:])):
            return match[0]
    return None


@lru_cache(maxsize=KEPT)
def calls_good(text: str) -> str | None:
    """Words of a sentence of one's own that judge the part to be good."""
    match = _DENIALS.search(text) or _CALLS_GOOD.search(_PROBABILITY.sub("", text))
    return match[0] if match else None


@lru_cache(maxsize=KEPT)
def calls_bad(text: str) -> str | None:
    """Words of a sentence of one's own that judge the part to be bad."""
    match = _CALLS_BAD.search(text)
    return match[0] if match else assertion(text)


@lru_cache(maxsize=KEPT)
def names_a_defect(text: str) -> str | None:
    """A defect that a sentence speaks of as present: not denied, not under a condition, not a probability."""
    text = _PROBABILITY.sub("", text)
    if re.search(r"\b(?:if|would|could|might|unless|whether)\b", text, re.I):
        return None
    for match in re.finditer(rf"\b{_DEFECT}\b", text, re.I):
        if not _NEGATION.search(" ".join(text[: match.start()].split()[-5:])):
            return match[0]
    return None


@lru_cache(maxsize=KEPT)
def wrong_comparison(text: str, alarming: bool | None) -> str | None:
    """What a sentence says of the threshold, or of two numbers, that is not so.

    Args:
        text: the sentence.
        alarming: whether the score reaches the threshold; None when there is none.
    """
    for match in _COMPARED.finditer(text):
        left, relation, right = float(match[1]), match[2].lower(), float(match[3])
        below = relation.startswith(("below", "under", "less", "lower"))
        if (left > right) if below else (left < right):
            return match[0]
    if alarming is None:
        return None
    low, high = _BELOW.search(text), _ABOVE.search(_BELOW.sub("", text))
    if alarming and low and not high:
        return low[0]
    if not alarming and high and not low:
        return high[0]
    return None


@lru_cache(maxsize=KEPT)
def addresses_a_model(text: str) -> str | None:
    """Words that give orders to a reader of prompts instead of describing a part."""
    match = _ADDRESSED.search(text)
    return match[0] if match else None


@lru_cache(maxsize=KEPT)
def negated(text: str) -> bool:
    """Whether a clause denies something."""
    return bool(_NEGATION.search(text))


@lru_cache(maxsize=KEPT)
def content_words(text: str) -> frozenset[str]:
    """Lower-case words without the function words, cut to a common stem of six letters."""
    return frozenset(word[:6] for word in _LETTERS.findall(normalised(text)) if word not in STOP_WORDS)


@lru_cache(maxsize=KEPT)
def plain_line(text: str) -> str:
    """All words in their order, lower-case, one blank between and around them."""
    return f" {' '.join(_WORDS.findall(normalised(text)))} "


def normalised(text: str) -> str:
    """Lower-case, names of types as they are read, British."""
    return text.lower().replace("_", " ").replace("center", "centre")


@lru_cache(maxsize=KEPT)
def clauses(text: str) -> tuple[str, ...]:
    """The pieces of a text between marks, for comparing what each says."""
    return tuple(piece for piece in _MARKS.split(text) if piece.strip())


def swapped(text: str, sources: Iterable[str]) -> str | None:
    """A word of a text whose opposite stands in its sources, and which does not stand there itself."""
    said = " ".join(map(plain_line, sources))
    for word in plain_line(text).split():
        if f" {word} " not in said and any(f" {other} " in said for other in _OPPOSITE.get(word, ())):
            return word
    return None


@lru_cache(maxsize=KEPT)
def defect_names(text: str) -> frozenset[str]:
    """Common names of defects that a text uses."""
    return frozenset(name for name in _DEFECT_NAMES if re.search(rf"\b{name}(?:e?s)?\b", normalised(text)))


@lru_cache(maxsize=KEPT)
def readings(text: str) -> tuple[tuple[frozenset[str], bool], ...]:
    """Of each clause its content words, and whether it denies something."""
    return tuple((content_words(clause), negated(clause)) for clause in clauses(text))


@lru_cache(maxsize=KEPT)
def places(text: str) -> tuple[str, ...]:
    """The places that a text names, in the map's words."""
    return tuple(_UPRIGHT.get(place, place) for place in _PLACE.findall(normalised(text)))


@cache
def sayable() -> frozenset[str]:
    """Words that need no source: those of the project's own sentences, and plain words of inspecting."""
    found = set(content_words(" ".join(_PLAIN)))
    for name, sections in _OF_TEMPLATES:
        file = load_prompts(name)
        for section in sections or file.sections:
            found |= content_words(re.sub(r"\{\w+\}", " ", file.sections[section]))
    return frozenset(found)
