"""The signs of doubt that a calibrator weighs: each in [0, 1], larger is more doubtful, None where it is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..vision_language.base import normalised_entropy
from .agreement import consistency, semantic_entropy
from .records import Answered

FEATURES = ("entropy", "semantic_entropy", "disagreement", "permutation", "retrieval")
"""Entropy of the options; of the meanings of draws; |p_defect - s_cal|; answers that change with the options' order;
how far down the nearest document's similarity lies among those of the calibration."""

Signs = dict[str, float | None]


def tempered(probabilities: Mapping[str, float], temperature: float) -> dict[str, float]:
    """A distribution at another temperature: p^(1/T), brought back to a sum of 1 (Guo et al. 2017)."""
    shares = np.array(list(probabilities.values()), dtype=np.float64)
    with np.errstate(divide="ignore"):
        logits = np.log(shares) / temperature
    weights = np.exp(logits - logits.max())
    return {key: float(value) for key, value in zip(probabilities, weights / weights.sum(), strict=True)}


def doubt_of_retrieval(similarity: float | None, known: Sequence[float]) -> float | None:
    """One less the percentile of a similarity among known ones, in [0, 1].

    Args:
        similarity: cosine of the nearest document; None when there is none.
        known: similarities of the calibration, sorted; without any the percentile is not known.
    """
    if similarity is None or not known:
        return None
    below, upto = np.searchsorted(known, similarity, "left"), np.searchsorted(known, similarity, "right")
    return float(1.0 - 0.5 * (below + upto) / len(known))


def signs_of_doubt(answered: Answered, temperature: float | None, similarities: Sequence[float]) -> Signs:
    """All signs of one answer.

    Args:
        answered: what is known of it.
        temperature: of the options' probabilities; None leaves them as they are. Under a temperature an entropy alone,
            without its probabilities, says nothing.
        similarities: of the calibration's nearest documents, sorted.
    """
    if answered.probabilities is not None:
        shares = answered.probabilities
        total = sum(shares.values())
        shares = tempered({key: value / total for key, value in shares.items()}, temperature or 1.0)
        entropy: float | None = normalised_entropy(shares.values())
    else:
        entropy = answered.entropy if temperature is None else None
    agreed = consistency(answered.answer, answered.permuted)
    apart = None if answered.p_defect is None or answered.s_cal is None else abs(answered.p_defect - answered.s_cal)
    return {
        "entropy": entropy,
        "semantic_entropy": semantic_entropy(answered.samples),
        "disagreement": apart,
        "permutation": None if agreed is None else 1.0 - agreed,
        "retrieval": doubt_of_retrieval(answered.retrieval_similarity, similarities),
    }
