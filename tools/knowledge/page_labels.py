"""Which page describes what a data set calls a defect."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .schema import GOOD, KnowledgeDocument
from .vocabulary import fold


def find_page(
    product: str, label: str, names: Sequence[str], pages: Sequence[KnowledgeDocument]
) -> KnowledgeDocument | int | None:
    """The page of a product's label.

    A label is a page's ``defect_type`` or one of its aliases, whatever capitals, separators, plurals and spelling. Of
    pages that share a label, the one is meant that has all finer names among its aliases.

    Args:
        product: as the data set writes it.
        label: what the data set files a picture under.
        names: finer names of what a picture shows.
        pages: all pages.

    Returns:
        The page; None when there is none; a number when so many fit.
    """
    own = [page for page in pages if same_product(page.product, product)]
    if label == GOOD:
        return next((page for page in own if page.defect_type == GOOD), None)
    defects = [page for page in own if page.defect_type != GOOD]
    folded = fold(label)
    fitting = [page for page in defects if page.defect_type == label]
    fitting = fitting or [page for page in defects if fold(page.defect_type) == folded]
    if names and len(fitting) != 1:  # a label that says no more than "defective": the finer names decide
        wanted = {fold(name) for name in names}
        named = [page for page in fitting or defects if wanted <= {fold(n) for n in (page.defect_type, *page.aliases)}]
        fitting = named or fitting
    fitting = fitting or [page for page in defects if folded in {fold(alias) for alias in page.aliases}]
    return fitting[0] if len(fitting) == 1 else len(fitting) or None


def same_product(one: str, other: str) -> bool:
    """Whether two names are of one product; plurals are not folded, since capsule and capsules are two."""
    return re.sub(r"[^a-z0-9]+", "_", one.lower()) == re.sub(r"[^a-z0-9]+", "_", other.lower())
