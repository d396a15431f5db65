from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawscope.tools.knowledge.terms import MAX_BYTES, MAX_TERM, stem, terms

FAMILIES = [
    ("scratch", "scratches", "scratched", "scratching"),
    ("chip", "chips", "chipped", "chipping"),
    ("score", "scores", "scored", "scoring"),
    ("scrape", "scrapes", "scraped", "scraping"),
    ("damage", "damages", "damaged", "damaging"),
    ("cavity", "cavities"),
    ("stain", "stains", "stained", "staining"),
    ("surface", "surfaces"),
    ("box", "boxes"),
    ("press", "presses", "pressed", "pressing"),
    ("roll", "rolls", "rolled", "rolling"),
    ("coat", "coats", "coated", "coating"),
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_forms_of_a_word_are_one_term(family: tuple[str, ...]) -> None:
    assert len({stem(word) for word in family}) == 1


def test_words_that_differ_on_a_shop_floor_stay_apart() -> None:
    assert len({stem(word) for word in ("scrap", "scrape", "bent", "bead", "burn", "burr", "ring", "red", "bus")}) == 9


def test_terms_are_in_order_without_the_commonest_words() -> None:
    assert terms("The BURRS on an edge_of the part's ﬁn, 3.5 mm") == ["burr", "edge", "part", "fin", "3", "5", "mm"]
    assert terms("") == terms("the of and") == []
    assert terms("Grat an der Größe") == ["grat", "der", "größe"]


@given(st.text(max_size=200))
def test_terms_survive_being_joined_and_cut_again(text: str) -> None:
    """A server cuts the stored terms at blanks; it must find what is stored."""
    found = terms(text)
    assert all(term and len(term) <= MAX_TERM and not any(c.isspace() for c in term) for term in found)
    assert " ".join(found).split() == found
    assert terms(text) == found


def test_a_text_of_any_length_fits_into_a_column() -> None:
    found = terms("größere " * 50_000)
    assert 1000 < len(found) < 50_000
    assert len(" ".join(found).encode()) <= MAX_BYTES
