"""The shipped pages are each written for their own case: enough words, no sentence twice, no template filled in."""

from __future__ import annotations

import itertools
import re

import pytest

from flawscope.tools.knowledge.schema import KnowledgeDocument, load_documents

DOCUMENTS = load_documents()
LEAST_WORDS = 60
RUN_WORDS = 5
LARGEST_SHARE = 0.03
"""Of the shorter page's runs of five words. The largest among honest pages was 0.023: three runs in some 130."""


def prose(document: KnowledgeDocument) -> list[str]:
    """Every written field of a page, without its names and provenance."""
    look_alikes = [look_alike.how_to_tell for look_alike in document.look_alikes]
    single = [document.normal_traits, document.appearance, document.description, document.confirm, document.action]
    return [*single, document.scenario, *document.likely_causes, *document.consequences, *look_alikes]


def words(text: str) -> list[str]:
    """Lower-case words: case, punctuation and digits make no difference."""
    return re.findall(r"[^\W\d_]+", text.lower())


def sentences(document: KnowledgeDocument) -> set[str]:
    """Sentences of a page with the product's name blotted out, so that exchanging the name makes no new sentence."""
    name = {*words(document.product.replace("_", " ")), *words(document.title.split(",")[0])}
    own = name | {word + "s" for word in name} if document.scope == "product" else set()
    parts = [part for field in prose(document) for part in re.split(r"(?<=[.;:!?])\s+", field)]
    return {" ".join("_" if word in own else word for word in words(part)) for part in parts} - {""}


def runs(document: KnowledgeDocument) -> set[tuple[str, ...]]:
    """Runs of five consecutive words."""
    text = words(" ".join(prose(document)))
    return {tuple(text[k : k + RUN_WORDS]) for k in range(len(text) - RUN_WORDS + 1)}


def share(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    """Runs in common over those of the shorter page."""
    return len(first & second) / min(len(first), len(second))


def page(product: str, appearance: str) -> KnowledgeDocument:
    return KnowledgeDocument(
        doc_id=f"{product}.good",
        scope="product",
        product=product,
        defect_type="good",
        title=f"{product.capitalize()}, sound",
        appearance=appearance,
    )


def test_another_name_punctuation_or_number_makes_no_new_sentence() -> None:
    cup = page("cup", "The cup is 3 mm thick; it shines.")
    assert sentences(cup) == {"the _ is mm thick", "it shines"}
    assert sentences(page("mug", "It shines! The mug is 40 mm, thick.")) == sentences(cup)


def test_the_share_of_runs_by_hand() -> None:
    first = runs(page("cup", "one two three four five six"))  # two runs
    second = runs(page("mug", "zero one two three four five seven"))  # three, of which one in common
    assert share(first, second) == 1 / 2


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.doc_id)
def test_a_page_has_something_to_say(document: KnowledgeDocument) -> None:
    assert len(words(" ".join(prose(document)))) >= LEAST_WORDS


def test_no_sentence_is_on_two_pages() -> None:
    owners: dict[str, list[str]] = {}
    for document in DOCUMENTS:
        for sentence in sentences(document):
            owners.setdefault(sentence, []).append(document.doc_id)
    assert {sentence: ids for sentence, ids in owners.items() if len(ids) > 1} == {}


def test_pages_do_not_paraphrase_each_other() -> None:
    of_page = {document.doc_id: runs(document) for document in DOCUMENTS}
    pairs = itertools.combinations(of_page, 2)
    assert [(a, b) for a, b in pairs if share(of_page[a], of_page[b]) > LARGEST_SHARE] == []
