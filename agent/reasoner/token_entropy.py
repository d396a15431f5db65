"""How sure a model was of a value that it wrote: the probabilities of the alternatives at the tokens that decide it.

All probabilities are those before any grammar: a mask that leaves one token makes nobody certain. What fell on none of
the alternatives counts as doubt, and an alternative that was not reported gets as much as it could at most have had.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..vision_language import TokenScore, normalised_entropy


@dataclass(frozen=True)
class OptionScores:
    """Probabilities of what a value could have been.

    Attributes:
        probabilities: of each option, adding up to 1.
        mass: share of the whole probability that fell on the options, in [0, 1].
    """

    probabilities: dict[str, float]
    mass: float

    @property
    def entropy(self) -> float:
        """In [0, 1]: the options' normalised entropy, and full doubt for what fell on none of them."""
        return min(1.0, self.mass * normalised_entropy(self.probabilities.values()) + (1.0 - self.mass))


def value_start(text: str, field: str) -> int | None:
    """Where the text of a string field begins, behind its quotation mark, in the first JSON object of an answer."""
    found = re.compile(rf'"{re.escape(field)}"\s*:\s*"').search(text, max(text.find("{"), 0))
    return None if found is None else found.end()


def value_logprobs(tokens: Sequence[TokenScore] | None, text: str, field: str) -> tuple[float, ...] | None:
    """Log-probabilities of the tokens that a string field's value is written in; None when they cannot be told."""
    start = value_start(text, field)
    shift = "".join(token.text for token in tokens or ()).find(text)
    if not tokens or start is None or shift < 0:
        return None
    stop, end, found = text.find('"', start), -shift, []
    for token in tokens:
        begin, end = end, end + len(token.text)
        if end > start and begin < stop:
            found.append(token.logprob)
    return tuple(found) or None


def option_scores(
    tokens: Sequence[TokenScore] | None, text: str, field: str, options: Sequence[str]
) -> OptionScores | None:
    """What a string field of a JSON answer could have been.

    The answer's own path is followed token by token until it can be only one option. The probability of a token that
    was not taken goes to the options that it could have begun, evenly, since it was not followed further; an option
    that no reported token begins gets as much as it could have had: what the least reported one has, or the tail.

    Args:
        tokens: of the whole answer.
        text: of the whole answer.
        field: name of the field.
        options: values it could have, the one that was written among them.

    Returns:
        None without tokens, with tokens that do not spell the text, with fewer than two options, or when the written
        value is none of them.
    """
    start = value_start(text, field)
    spelt = "".join(token.text for token in tokens or ())
    shift = spelt.find(text)
    if not tokens or start is None or shift < 0 or len(options) < 2:
        return None
    try:
        written = json.JSONDecoder().raw_decode(text, start - 1)[0]
    except ValueError:
        return None
    spellings = {option: f'{option}"'.casefold() for option in options}
    if written not in spellings:
        return None
    shares = dict.fromkeys(options, 0.0)
    alive, path, end = set(options), 1.0, -shift
    for token in tokens:
        begin, end = end, end + len(token.text)
        if end <= start:
            continue
        ahead, said = text[begin:start] if begin < start else "", max(0, begin - start)
        rests = {option: spellings[option][said:] for option in alive}
        seen = _alternatives(token)
        unseen = set(alive)
        for alternative, probability in seen:
            agreeing = _agreeing(alternative, ahead, rests)
            unseen -= agreeing
            if alternative != token.text:
                for option in agreeing:
                    shares[option] += path * probability / len(agreeing)
        tail = max(0.0, 1.0 - sum(probability for _, probability in seen))
        least = min(probability for _, probability in seen) if token.top else tail
        for option in unseen:
            shares[option] += path * min(least, tail / len(unseen))
        path *= math.exp(token.logprob)
        alive &= _agreeing(token.text, ahead, rests)
        if len(alive) <= 1:
            break
    for option in alive:
        shares[option] += path / len(alive)
    mass = sum(shares.values())
    return OptionScores({option: share / mass for option, share in shares.items()}, min(1.0, mass)) if mass else None


def _alternatives(token: TokenScore) -> list[tuple[str, float]]:
    """What could have stood there, the chosen token included, with probabilities."""
    seen: dict[str, float] = {}
    for text, logprob in token.top:
        seen[text] = seen.get(text, 0.0) + math.exp(logprob)
    return list({**seen, token.text: max(seen.get(token.text, 0.0), math.exp(token.logprob))}.items())


def _agreeing(token: str, ahead: str, rests: dict[str, str]) -> set[str]:
    """The options that a token can begin or continue.

    Args:
        token: its text.
        ahead: what the chosen token holds before the value.
        rests: what is left of each option's spelling.
    """
    if not token.startswith(ahead):
        return set()
    piece = token[len(ahead) :].casefold()
    return {option for option, rest in rests.items() if rest.startswith(piece) or piece.startswith(rest)}
