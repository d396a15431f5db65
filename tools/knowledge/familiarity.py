"""Whether the knowledge base knows what it is asked about: retrieval always finds something, near or not.

What is near is read off the base itself. A photograph in it has a nearest one of the same product; of those
similarities the lowest ``FALSE_REFUSALS`` are given up, and a picture whose nearest page is no nearer than that is
called unknown. Drawings may be near too, but tell nothing about how alike photographs of one product are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FALSE_REFUSALS = 0.05
"""Share of pictures of known products that may be called unknown."""
MIN_PHOTOGRAPHS = 8
"""With fewer that have another one of their product, the lowest of them says nothing."""
MAX_PHOTOGRAPHS = 2000
"""Compared with all others to find the threshold; of more, so many evenly spread."""

Basis = Literal["empty", "name", "picture", "nothing to compare"]


@dataclass(frozen=True)
class Familiarity:
    """What a base knows of a query.

    Attributes:
        known: whether its pages may be leaned on; None when that cannot be told.
        basis: what tells: an empty base, the product's name, the picture, or nothing.
        similarity: cosine of the picture's image part with that of the nearest page, None where it was not needed.
        threshold: the least similarity of a known picture, None when the base has too few photographs.
        nearest: that page's doc_id.
    """

    known: bool | None
    basis: Basis
    similarity: float | None = None
    threshold: float | None = None
    nearest: str | None = None

    @property
    def sentence(self) -> str:
        """What a report says of it; empty when the base knows the product or nothing can be said."""
        if self.known is not False:
            return ""
        if self.basis == "empty":
            return "The knowledge base is empty."
        if self.basis == "name":
            return "The knowledge base has no page about this product and too few photographs to find a like one by."
        return (
            f"The knowledge base has nothing near this picture: the nearest page, {self.nearest}, is similar by "
            f"{self.similarity:.2f}, and photographs of one product by {self.threshold:.2f} or more."
        )


def least_familiar(images: NDArray[np.float32], products: Sequence[str]) -> float | None:
    """The similarity below which a picture is called unknown, from photographs with known products alone.

    Args:
        images: (n, D) image parts of the base's photographs, each of unit length.
        products: of each.

    Returns:
        The ``FALSE_REFUSALS`` quantile of each photograph's largest cosine with another one of its product; None when
        fewer than ``MIN_PHOTOGRAPHS`` have another one.
    """
    names = np.asarray(products)
    nearest: list[float] = []
    for index in np.unique(np.linspace(0, max(0, len(names) - 1), MAX_PHOTOGRAPHS).astype(np.intp))[: len(names)]:
        others = names == names[index]
        others[index] = False
        if others.any():
            nearest.append(float((images[others] @ images[index]).max()))
    return float(np.quantile(nearest, FALSE_REFUSALS)) if len(nearest) >= MIN_PHOTOGRAPHS else None


def judge(similarity: float | None, threshold: float | None, nearest: str | None, product: str | None) -> Familiarity:
    """What a base knows of a query whose product it has no page about.

    Args:
        similarity: cosine of its picture with that of the nearest page; None without a picture, or when no page has
            one.
        threshold: see ``least_familiar``.
        nearest: doc_id of the nearest page.
        product: that the query names, if any.
    """
    if similarity is not None and threshold is not None:
        return Familiarity(similarity >= threshold, "picture", similarity, threshold, nearest)
    if product is not None:
        return Familiarity(False, "name", similarity, threshold, nearest)
    return Familiarity(None, "nothing to compare", similarity, threshold, nearest)
