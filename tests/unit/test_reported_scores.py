"""What the few tokens that a server reports say of an answer, on numbers worked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawscope.agent.language_model import TokenLogprob
from flawscope.agent.vision_language import TokenScore
from flawscope.agent.vision_language.reported import entropy_with_tail, letter_answer, named_letter, token_scores

ABCD = ("A", "B", "C", "D")


def logs(**shares: float) -> tuple[tuple[str, float], ...]:
    """Tokens with the logarithms of their probabilities; ``_`` at the front stands for a blank."""
    return tuple((token.replace("_", " "), math.log(p)) for token, p in shares.items())


def token(top: tuple[tuple[str, float], ...]) -> TokenScore:
    return TokenScore(top[0][0], top[0][1], 0.0, top, whole=False)


def test_the_tail_is_one_outcome() -> None:
    assert entropy_with_tail([math.log(0.5), math.log(0.25)]) == pytest.approx(1.5 * math.log(2))
    assert entropy_with_tail([0.0]) == 0.0
    assert entropy_with_tail([math.log(0.5)] * 2) == pytest.approx(math.log(2))
    assert entropy_with_tail([-0.0001, -9999.0, -3.4e38]) < 0.002


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=12), st.integers(1, 12))
def test_entropy_of_what_is_reported_is_a_lower_bound_that_more_tokens_raise(weights: list[float], k: int) -> None:
    shares = sorted((w / sum(weights) for w in weights), reverse=True)
    whole = -sum(p * math.log(p) for p in shares)
    few = entropy_with_tail(math.log(p) for p in shares[:k])
    assert few <= whole + 1e-9
    assert few <= entropy_with_tail(math.log(p) for p in shares[: k + 1]) + 1e-9


def test_a_sampled_token_outside_the_likeliest_is_no_part_of_the_tail() -> None:
    (score,) = token_scores([TokenLogprob("odd", math.log(0.25), logs(usual=0.5))]) or ()
    assert (score.entropy, score.whole) == (pytest.approx(1.5 * math.log(2)), False)
    (score,) = token_scores([TokenLogprob(" usual", math.log(0.5), logs(usual=0.5, odd=0.25))]) or ()
    assert score.entropy == pytest.approx(1.5 * math.log(2))
    assert token_scores(None) is None
    assert token_scores([]) is None


def test_tokenisations_of_a_letter_are_added_up() -> None:
    found = letter_answer("A", [token(logs(A=0.3, B=0.2, _B=0.3, Yes=0.1))], ("A", "B"), {})
    assert found.letter == "B"
    assert found.probabilities == pytest.approx({"A": 0.3 / 0.8, "B": 0.5 / 0.8})
    assert found.mass == pytest.approx(0.8)


@pytest.mark.parametrize("written", ["B", " B", "▁B", "ĠB", "B.", "(B", "\nB", "**B"])
def test_a_letter_is_known_in_what_stands_around_it(written: str) -> None:
    top = ((written, math.log(0.9)), ("A", math.log(0.05)))
    found = letter_answer(written, [token(top)], ("A", "B"), {})
    assert (found.letter, found.mass) == ("B", pytest.approx(0.95))


def test_a_letter_that_is_not_reported_gets_at_most_the_tail_and_the_least_reported() -> None:
    wide = letter_answer("A", [token(logs(A=0.5, B=0.1))], ABCD, {})  # tail 0.4, two letters: 0.1 each at most
    assert wide.probabilities == pytest.approx({"A": 0.5 / 0.8, "B": 0.1 / 0.8, "C": 0.1 / 0.8, "D": 0.1 / 0.8})
    assert wide.mass == pytest.approx(0.6)
    narrow = letter_answer("A", [token(logs(A=0.9, B=0.08))], ABCD, {})  # tail 0.02: 0.01 each
    assert narrow.probabilities == pytest.approx({"A": 0.9, "B": 0.08, "C": 0.01, "D": 0.01})


def test_where_no_letter_is_reported_nothing_is_known() -> None:
    found = letter_answer("Yes", [token(logs(Yes=0.9, No=0.1))], ("A", "B"), {})
    assert (found.letter, found.mass, found.entropy) == (None, 0.0, 1.0)
    few = letter_answer("Yes", [token(logs(Yes=0.9, A=0.05, B=0.01))], ("A", "B"), {})
    assert (few.letter, few.mass) == (None, pytest.approx(0.06))


def test_the_place_is_where_the_reply_names_its_letter() -> None:
    spelt = [token(logs(The=0.9, A=0.1)), token(logs(_answer=1.0)), token(logs(_is=1.0)), token(logs(_B=0.7, _A=0.2))]
    found = letter_answer("The answer is B", spelt, ("A", "B"), {})
    spelt[0] = TokenScore("The", spelt[0].logprob, 0.0, spelt[0].top, whole=False)
    assert (found.letter, found.mass) == ("B", pytest.approx(0.9))
    late = [token((("▁", -0.1), ("x", -3.0))), token(logs(A=0.9, B=0.1))]
    assert letter_answer("A", late, ("A", "B"), {}).letter == "A"


def test_without_scores_the_reply_alone_counts() -> None:
    found = letter_answer("B. Scratch", None, ("A", "B"), {"total": 3})
    assert (found.letter, found.probabilities, found.mass, found.entropy) == ("B", None, None, None)
    assert found.usage == {"total": 3}
    assert letter_answer("I see nothing", None, ("A", "B"), {}).letter is None


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" (C) a dent", "C"),
        ("**B**", "B"),
        ("B. A scratch on the left", "B"),
        ("D: none", "D"),
        ("The answer is B.", "B"),
        ("Answer: (C)", "C"),
        ("CCCCCCCC", "C"),
        ("AAAB", None),
        ("AA, BB", None),
        ("The correct option would be **D**", "D"),
        ("A scratch is visible", None),
        ("An answer", None),
        ("A or B", None),
        ("B, C", None),
        ("E", None),
        ("b", None),
        ("ABCD", None),
        ("A's", None),
        ("No defect", None),
        ("", None),
    ],
)
def test_letters_are_named_strictly(reply: str, letter: str | None) -> None:
    found = named_letter(reply, ABCD)
    assert (found and found[0]) == letter
    if found:
        assert reply[found[1]] == letter


@given(st.lists(st.tuples(st.sampled_from(["A", " A", "B", "C", "x", "y", "."]), st.floats(-20, 0)), min_size=1))
def test_probabilities_add_up_and_the_mass_is_a_share(pairs: list[tuple[str, float]]) -> None:
    whole = math.log(sum(math.exp(p) for _, p in pairs) + 1e-12)
    top = tuple(sorted(((t, p - max(whole, 0.0)) for t, p in pairs), key=lambda pair: -pair[1]))
    found = letter_answer(top[0][0].strip(), [token(top)], ABCD, {})
    assert found.probabilities is not None
    assert found.mass is not None
    assert found.entropy is not None
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert 0.0 <= found.mass <= 1.0
    assert 0.0 <= found.entropy <= 1.0
