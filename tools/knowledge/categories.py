"""What kind of part a picture shows, and what the knowledge base says of it, for a reasoner's prompt.

It is the knowledge module of Reason-IAD (arXiv 2602.09850): category-specific descriptions enter the prompt. Which
category is not told there but predicted, by the nearest mean of the base's photographs, and where that is unsure the
prompt says so: two categories, each called possible, or none. The true category is for benchmarks, which label it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...prompts import render
from .schema import GOOD, KnowledgeDocument, cut_to_budget, plain_text

TEMPERATURE = 0.02
SURE = 0.6
"""Posterior from which on one category, or two together, are named."""
DEFECTS = 3
NORMAL_TOKENS, DEFECT_TOKENS = 160, 60

Source = Literal["given", "predicted", "possible", "generic", "oracle"]


@dataclass(frozen=True)
class CategoryChoice:
    """The category or categories that a prompt speaks of.

    Attributes:
        source: ``given`` by the operator, ``predicted``, one of two ``possible`` ones, ``generic`` when none is named,
            or the ``oracle`` of a benchmark.
        candidates: names with their posteriors, likeliest first; None where nothing was predicted.
    """

    source: Source
    candidates: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True)
class CategoryKnowledge:
    """The prompt's section about the kind of part.

    Attributes:
        choice: whom it speaks of.
        text: prose of ours, and pages as quoted data.
        doc_ids: the pages in it.
    """

    choice: CategoryChoice
    text: str
    doc_ids: tuple[str, ...]


def prototypes(parts: NDArray[np.float32], products: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Mean direction of each product's photographs.

    Args:
        parts: (n, D) image parts of unit length.
        products: of each.

    Returns:
        float32 (D,) of unit length by product, sorted by name; a product whose photographs cancel out has none.
    """
    names, found = np.asarray(products), {}
    for name in sorted(set(products)):
        mean = parts[names == name].mean(axis=0)
        length = float(np.linalg.norm(mean))
        if length > 1e-6:
            found[name] = np.asarray(mean / length, np.float32)
    return found


def category_posterior(
    key: NDArray[np.float32], known: Mapping[str, NDArray[np.float32]], temperature: float = TEMPERATURE
) -> tuple[tuple[str, float], ...]:
    """Softmax of the cosines between a picture and the prototypes, likeliest first, ties by name.

    Args:
        key: (D,) image part of unit length.
        known: see `prototypes`.
        temperature: of the softmax.
    """
    if not known:
        return ()
    names = sorted(known)
    logits = np.array([float(known[name] @ key) for name in names], np.float64) / temperature
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return tuple(sorted(zip(names, shares.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0])))


def choose(posterior: Sequence[tuple[str, float]], familiar: bool | None) -> CategoryChoice:
    """One category when it is sure, two when they are together, else none.

    Args:
        posterior: see `category_posterior`.
        familiar: whether the picture is like those of the base; a posterior only says which is nearest, so that an
            unfamiliar picture gets no category, and one of which that cannot be told only a possible one.
    """
    if familiar is False or not posterior:
        return CategoryChoice("generic")
    if posterior[0][1] >= SURE:
        return CategoryChoice("predicted" if familiar else "possible", tuple(posterior[:1]))
    if posterior[0][1] + posterior[1][1] >= SURE:
        return CategoryChoice("possible", tuple(posterior[:2]))
    return CategoryChoice("generic")


def category_knowledge(
    choice: CategoryChoice,
    documents: Iterable[KnowledgeDocument],
    types: Mapping[str, float],
    seed: str,
) -> CategoryKnowledge:
    """The section: what is normal for the category, and its defects.

    Args:
        choice: whom it speaks of.
        documents: all pages; only those of the candidates are used, and of drafts only what is established.
        types: posteriors of defect types by name, to choose the defects; empty when nothing was compared.
        seed: any text; it shuffles the defects that have no posterior, since models favour what comes first.
    """
    named = {name for name, _ in choice.candidates}
    pages = [page.established for page in documents if page.product in named]
    parts, used = [], []
    for name, share in choice.candidates:
        own = [page for page in pages if page.product == name]
        chosen = [page for page in own if page.defect_type == GOOD][:1] + _defects(own, types, seed)
        lines = [line for page in chosen if (line := _line(page))]
        given = {"name": plain_text(name.replace("_", " "))}
        if choice.source in ("predicted", "possible"):
            given["posterior"] = f"{share:.2f}"
        parts.append("\n".join([render("category", choice.source, **given), *lines]))
        used += [page.doc_id for page in chosen if _line(page)]
    if not used:
        return CategoryKnowledge(CategoryChoice("generic"), render("category", "generic"), ())
    return CategoryKnowledge(choice, "\n".join([*parts, render("category", "context")]), tuple(used))


def _defects(own: Sequence[KnowledgeDocument], types: Mapping[str, float], seed: str) -> list[KnowledgeDocument]:
    """A page for each of a category's likeliest defects."""
    by_type: dict[str, KnowledgeDocument] = {}
    for page in own:
        if page.defect_type != GOOD and _line(page):
            by_type.setdefault(page.defect_type, page)
    shuffled = sorted(by_type)
    random.Random(seed).shuffle(shuffled)  # noqa: S311  # an order without favour, not a secret
    ranked = sorted(shuffled, key=lambda name: -types.get(name, types.get(by_type[name].canonical_type, 0.0)))
    return [by_type[name] for name in ranked[:DEFECTS]]


def _line(page: KnowledgeDocument) -> str:
    """A page's one quoted line; empty for a page without words."""
    if page.defect_type == GOOD:
        words = plain_text(page.normal_traits or page.appearance or page.description)
        return cut_to_budget(f"> Normal: {words}", NORMAL_TOKENS) if words else ""
    words = plain_text(page.description or page.appearance)
    name = plain_text(page.defect_type.replace("_", " "))
    return cut_to_budget(f"> Defect {name}: {words}", DEFECT_TOKENS) if words else ""
