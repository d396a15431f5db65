"""Scores from the few likeliest tokens that a server reports: what they say, and how much they leave open.

All that is not reported is one more outcome, the tail. An entropy over the reported tokens and the tail is a lower
bound of that over the whole vocabulary, since splitting the tail up could only add to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..language_model.messages import TokenLogprob
from .base import LetterAnswer, TokenScore

BLANKS = "▁ĠĊ \t\r\n"
"""Blanks, and how some servers that give tokens as they stand in the vocabulary write them."""
AROUND = "()[]*.:\"'`"
"""What may stand around a letter in one token with it."""
SURE = 0.5
"""Share of the whole probability from which the letters themselves, and no words about them, are the answer."""


def entropy_with_tail(logprobs: Iterable[float]) -> float:
    """Entropy in nats of reported tokens and one bucket for all others.

    Args:
        logprobs: natural logarithms of their probabilities.
    """
    shares = [math.exp(logprob) for logprob in logprobs]
    tail = max(0.0, 1.0 - sum(shares))
    return max(0.0, -sum(p * math.log(p) for p in (*shares, tail) if p > 0.0))


def token_scores(logprobs: Sequence[TokenLogprob] | None) -> tuple[TokenScore, ...] | None:
    """Scores of an answer's tokens; None when there are none."""
    if not logprobs:
        return None
    return tuple(
        TokenScore(
            one.token, one.logprob, entropy_with_tail(_at(one.token, one.logprob, one.top).values()), one.top, False
        )
        for one in logprobs
    )


def reported_k(tokens: Sequence[TokenScore] | None) -> dict[str, int]:
    """For ``usage``: how many alternatives each token came with at least; nothing without tokens."""
    return {} if not tokens else {"top_logprobs": min(len(token.top) for token in tokens)}


def letter_answer(
    reply: str, tokens: Sequence[TokenScore] | None, letters: Sequence[str], usage: Mapping[str, Any]
) -> LetterAnswer:
    """Read the answer to a multiple-choice question.

    The place is where the reply names its letter, else its first word. A letter's probability there is that of all
    reported tokens that say it, such as ``A`` and `` A``. A letter that no reported token says gets the most that one
    token could have had: what the least reported one has, or its share of the tail if that is less; that counts as
    doubt among the options, and not towards the mass.

    Args:
        reply: what was said.
        tokens: its scores; None when there are none, then the reply alone counts.
        letters: the options'.
        usage: token counts.
    """
    named = named_letter(reply, letters)
    if not tokens:
        return LetterAnswer(named[0] if named else None, None, None, reply, usage)
    token = _place(tokens, reply, None if named is None else named[1])
    shares, mass = _letter_shares(_at(token.text, token.logprob, token.top), letters)
    letter = max(letters, key=lambda one: shares[one]) if mass >= SURE else (named[0] if named else None)
    return LetterAnswer(letter, shares, mass, reply, usage)


def named_letter(reply: str, letters: Sequence[str]) -> tuple[str, int] | None:
    """The option that a reply names, strictly: its beginning, or behind "the answer is".

    A letter that a small word follows is none ("A scratch"), nor is one of several ("A or B"); one said again and again
    by a model that does not stop is one ("AAAA").

    Returns:
        The letter and where it stands; None when the reply names none.
    """
    one = "(" + "|".join(re.escape(letter) for letter in letters) + r")\1*(?![\w'’])(?!\s+[a-z])"
    found = re.match(rf"[\W_]*{one}", reply)
    found = found or re.search(rf"(?i:\b(?:answer|option|choice)\b(?:\s+(?:is|would\s+be))?)\s*:?[\W_]*{one}", reply)
    if found is None or re.match(rf"\W*(?:,|/|&|\band\b|\bor\b)\W*{one}", reply[found.end() :]):
        return None
    return found.group(1), found.start(1)


def _at(text: str, logprob: float, top: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Log-probabilities at one place; the chosen token is among them even where it was not among the likeliest."""
    found: dict[str, float] = {}
    for token, one in top:
        found[token] = one if token not in found else _logsumexp((found[token], one))
    if not any(math.isclose(one, logprob, abs_tol=1e-6) for one in found.values()):
        found[text] = logprob
    return found


def _place(tokens: Sequence[TokenScore], reply: str, named_at: int | None) -> TokenScore:
    """The token in which the answer stands."""
    spelt = "".join(token.text for token in tokens)
    end = 0
    if named_at is not None and spelt == reply:
        for token in tokens:
            end += len(token.text)
            if end > named_at:
                return token
    return next((token for token in tokens if token.text.strip(BLANKS)), tokens[0])


def _letter_shares(found: Mapping[str, float], letters: Sequence[str]) -> tuple[dict[str, float], float]:
    """Probability of each letter among the letters, and of all that were seen among everything."""
    said: dict[str, list[float]] = {letter: [] for letter in letters}
    for token, logprob in found.items():
        bare = token.strip(BLANKS).strip(AROUND).strip(BLANKS)
        if bare in said:
            said[bare].append(logprob)
    seen = {letter: math.exp(_logsumexp(each)) for letter, each in said.items() if each}
    mass = min(1.0, sum(seen.values()))
    unseen = [letter for letter in letters if letter not in seen]
    tail = max(0.0, 1.0 - sum(math.exp(logprob) for logprob in found.values()))
    most = min(math.exp(min(found.values())), tail / len(unseen)) if unseen else 0.0
    weights = {letter: seen.get(letter, most) for letter in letters}
    whole = sum(weights.values())
    if whole <= 0.0:  # nothing is known about any of them
        return dict.fromkeys(letters, 1.0 / len(letters)), 0.0
    return {letter: weight / whole for letter, weight in weights.items()}, mass


def _logsumexp(values: Sequence[float]) -> float:
    peak = max(values)
    return peak + math.log(sum(math.exp(value - peak) for value in values))
