"""Confidence of generated tokens and of groups of them (DeepConf: Fu et al. 2025, section 3).

A token's confidence is the mean negative log-probability of its k likeliest alternatives: where the model is sure, all
but one of them are very unlikely, so that larger is surer. It needs no more than the top-k that servers give. DeepConf
averages over windows of 2,048 tokens of long chains of thought; answers here are short, so a window is 16 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..vision_language.base import TokenScore

WINDOW_TOKENS = 16
LEAST_LOGPROB = -30.0
"""Servers write minus infinity in several ways; no token counts as less likely than this."""


@dataclass(frozen=True)
class AnswerConfidence:
    """How sure the tokens of an answer are, larger is surer; in nats.

    Attributes:
        mean: over all tokens.
        tail: over the last window, where conclusions stand.
        lowest_tenth: mean of the least sure tenth of the windows, one at least.
        least: of the least sure window.
        top: alternatives that each token was scored by.
    """

    mean: float
    tail: float
    lowest_tenth: float
    least: float
    top: int


def token_confidence(logprobs: Sequence[float]) -> float:
    """Mean negative log-probability of the likeliest tokens at one place, in nats.

    Args:
        logprobs: (k,) natural logarithms, k at least 1.

    Raises:
        ValueError: there are none, or one is above 0 or no number.
    """
    values = np.asarray(logprobs, dtype=np.float64)
    if values.size == 0 or np.isnan(values).any() or values.max() > 1e-6:
        raise ValueError("logarithms of probabilities are needed, one at least")
    return float(-np.clip(values, LEAST_LOGPROB, 0.0).mean())


def answer_confidence(
    tokens: Sequence[TokenScore] | None, *, window: int = WINDOW_TOKENS, top: int | None = None
) -> AnswerConfidence | None:
    """Summaries over sliding windows; None without tokens, or where one came without alternatives.

    Args:
        tokens: of the answer, in order.
        window: tokens in a window; a shorter answer is one window.
        top: alternatives to use at each place; the number that every place has by default. Answers are comparable only
            under the same number.
    """
    if not tokens or any(not token.top for token in tokens):
        return None
    k = min(len(token.top) for token in tokens) if top is None else top
    if k < 1 or any(len(token.top) < k for token in tokens):
        return None
    each = np.array([token_confidence([logprob for _, logprob in token.top[:k]]) for token in tokens])
    size = min(max(1, window), each.size)
    windows = np.sort(np.convolve(each, np.full(size, 1.0 / size), mode="valid"))
    lowest = windows[: max(1, round(0.1 * windows.size))]
    return AnswerConfidence(
        mean=float(each.mean()),
        tail=float(each[-size:].mean()),
        lowest_tenth=float(lowest.mean()),
        least=float(windows[0]),
        top=k,
    )
