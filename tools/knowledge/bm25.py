"""BM25 over the words of pages, exact and in memory: what Milvus computes for one segment, for stores without Milvus.

Source: Robertson & Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), section 3; the inverse
document frequency is log(1 + (N - n + 0.5) / (n + 0.5)), which is never negative. The tests hold it to Milvus Lite.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .terms import terms

BM25_K1 = 1.5
"""How fast further occurrences of a term stop counting. Milvus Lite knows this value alone."""
BM25_B = 0.75
"""How much longer texts are discounted."""


class WordIndex:
    """Postings of a fixed set of texts.

    Args:
        texts: of the documents, in the caller's order; an empty one is never found.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(terms(text)) for text in texts]
        lengths = np.array([sum(count.values()) for count in counts], np.float64)
        mean = float(lengths.mean()) if lengths.any() else 1.0
        self._norm = BM25_K1 * (1.0 - BM25_B + BM25_B * lengths / mean)
        found: dict[str, list[tuple[int, int]]] = {}
        for document, count in enumerate(counts):
            for term, frequency in count.items():
                found.setdefault(term, []).append((document, frequency))
        self._postings = {term: np.array(entries, np.intp).T for term, entries in found.items()}

    def scores(self, words: str) -> NDArray[np.float64]:
        """Relevance (n,) of each document to the words, 0 where none of them occurs; a repeated word counts once."""
        total = np.zeros(len(self._norm))
        for term in dict.fromkeys(terms(words)):
            if term not in self._postings:
                continue
            documents, frequency = self._postings[term]
            rarity = np.log1p((len(total) - documents.size + 0.5) / (documents.size + 0.5))
            total[documents] += rarity * frequency * (BM25_K1 + 1.0) / (frequency + self._norm[documents])
        return total
