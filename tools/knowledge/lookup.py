"""Find pages by type: no vectors, no store, no lock."""

from __future__ import annotations

from collections.abc import Iterable

from .schema import KnowledgeDocument


def documents_about(
    documents: Iterable[KnowledgeDocument], defect_type: str, product: str | None
) -> tuple[KnowledgeDocument, ...]:
    """Pages of one type: the product's own first, then the general page it stands for.

    Args:
        documents: all pages.
        defect_type: a product's own label or a general type.
        product: whose labels to look at; None for general pages only.
    """
    pages = tuple(documents)
    own = [page for page in pages if page.product == product and page.defect_type == defect_type]
    names = {defect_type, *(page.canonical_type for page in own)}
    general = [page for page in pages if page.scope == "general" and page.defect_type in names]
    return (*own, *general)
