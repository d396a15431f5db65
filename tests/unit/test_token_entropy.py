"""How sure a model was of a value, by hand: alternatives at the deciding tokens, what a grammar hides or forces."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawscope.agent.reasoner.token_entropy import option_scores, value_logprobs, value_start
from flawscope.agent.vision_language import TokenScore, normalised_entropy

VERDICTS = ("OK", "NG", "REVIEW")


def token(text: str, probability: float, **others: float) -> TokenScore:
    """A token with the probabilities of what could have stood there instead."""
    top = tuple((other, math.log(p)) for other, p in {text: probability, **others}.items())
    return TokenScore(text, math.log(probability), 0.0, tuple(sorted(top, key=lambda pair: -pair[1])))


def sure(*texts: str) -> list[TokenScore]:
    return [token(text, 1.0) for text in texts]


def scored(tokens: list[TokenScore], field: str = "verdict", options: tuple[str, ...] = VERDICTS):  # type: ignore[no-untyped-def]
    return option_scores(tokens, "".join(each.text for each in tokens), field, options)


def test_probabilities_are_those_of_the_first_token_that_tells_the_options_apart() -> None:
    found = scored([*sure('{"', "verdict", '":"'), token("NG", 0.6, OK=0.3, REV=0.1), *sure('"', "}")])
    assert found is not None
    assert found.probabilities == pytest.approx({"OK": 0.3, "NG": 0.6, "REVIEW": 0.1})
    assert found.mass == pytest.approx(1.0)
    assert found.entropy == pytest.approx(normalised_entropy((0.3, 0.6, 0.1)))


def test_a_token_may_hold_the_quotation_mark_and_its_alternatives_must() -> None:
    tokens = [*sure('{"verdict":'), token('"NG', 0.5, **{'"OK"': 0.3, "OK": 0.1, '"RE': 0.1}), *sure('"}')]
    found = scored(tokens)
    assert found is not None
    assert found.probabilities == pytest.approx({"OK": 0.3 / 0.9, "NG": 0.5 / 0.9, "REVIEW": 0.1 / 0.9})
    assert found.mass == pytest.approx(0.9)  # OK without the mark would not have been this value


def test_a_grammar_that_forces_a_token_does_not_make_it_certain() -> None:
    forced = scored([*sure('{"verdict":"'), token("OK", 0.001, The=0.9, I=0.09), *sure('"}')])
    assert forced is not None
    assert forced.mass < 0.02
    assert forced.entropy > 0.98


def test_an_option_that_was_not_reported_gets_what_it_could_have_had() -> None:
    alone = scored([*sure('{"verdict":"'), TokenScore("OK", math.log(0.9), 0.3), *sure('"}')])
    assert alone is not None
    assert alone.probabilities == pytest.approx({"OK": 0.9, "NG": 0.05, "REVIEW": 0.05})
    capped = scored(
        [*sure('{"verdict":"'), token("OK", 0.9, NG=0.02), *sure('"}')]
    )  # a tail of 0.08, but least is 0.02
    assert capped is not None
    assert capped.probabilities["REVIEW"] == pytest.approx(0.02 / 0.94)


def test_a_value_of_several_tokens_is_followed_until_it_is_the_only_one_left() -> None:
    tokens = [
        *sure('{"defect_type":"'),
        token("sc", 0.8, ho=0.2),
        token("ra", 0.5, uf=0.5),
        token("tch", 0.01, tchy=0.99),  # decided before
        *sure('"}'),
    ]
    found = scored(tokens, "defect_type", ("scratch", "scuff", "hole"))
    assert found is not None
    assert found.probabilities == pytest.approx({"scratch": 0.4, "scuff": 0.4, "hole": 0.2})


def test_an_option_that_begins_another_is_told_from_it_by_its_end() -> None:
    tokens = [*sure('{"region":"R1'), token('"', 0.7, **{"0": 0.3}), *sure("}")]
    found = scored(tokens, "region", ("R1", "R10", "none"))
    assert found is not None
    assert found.probabilities == pytest.approx({"R1": 0.7, "R10": 0.3, "none": 0.0}, abs=1e-9)


def test_an_alternative_that_fits_several_options_is_divided_among_them() -> None:
    found = scored([*sure('{"region":"'), token("none", 0.5, R=0.5), *sure('"}')], "region", ("R1", "R2", "none"))
    assert found is not None
    assert found.probabilities == pytest.approx({"R1": 0.25, "R2": 0.25, "none": 0.5})


@pytest.mark.parametrize(
    ("tokens", "text", "options"),
    [
        (None, '{"verdict":"OK"}', VERDICTS),
        ((), '{"verdict":"OK"}', VERDICTS),
        (tuple(sure('{"verdict":"NG"}')), '{"verdict":"OK"}', VERDICTS),  # other words than the text
        (tuple(sure('{"a":"OK"}')), '{"a":"OK"}', VERDICTS),
        (tuple(sure('{"verdict":"OK')), '{"verdict":"OK', VERDICTS),
        (tuple(sure('{"verdict":"MAYBE"}')), '{"verdict":"MAYBE"}', VERDICTS),
        (tuple(sure('{"verdict":"OK"}')), '{"verdict":"OK"}', ("OK",)),
    ],
)
def test_what_cannot_be_told_is_none(
    tokens: tuple[TokenScore, ...] | None, text: str, options: tuple[str, ...]
) -> None:
    assert option_scores(tokens, text, "verdict", options) is None


def test_special_tokens_around_the_text_do_not_move_it() -> None:
    tokens = (*sure("<s>", '{"verdict":"'), token("NG", 0.6, OK=0.4), *sure('"}', "<end>"))
    found = option_scores(tokens, '{"verdict":"NG"}', "verdict", VERDICTS)
    assert found is not None
    assert found.probabilities["NG"] == pytest.approx(0.6)
    assert value_logprobs(tokens, '{"verdict":"NG"}', "verdict") == pytest.approx((math.log(0.6),))


def test_where_a_value_begins() -> None:
    assert value_start('{"verdict" : "OK"}', "verdict") == 14
    assert value_start('{"verdict": 3}', "verdict") is None
    assert value_start('A "verdict": "OK" would be wrong. {"verdict":"NG"}', "verdict") == 46


def test_words_before_the_answer_are_no_part_of_it() -> None:
    tokens = [*sure('Not "verdict": "OK" but {"verdict":"'), token("NG", 0.6, OK=0.4), *sure('"}')]
    found = scored(tokens)
    assert found is not None
    assert found.probabilities["NG"] == pytest.approx(0.6)


@given(
    st.lists(st.floats(0.001, 1.0), min_size=3, max_size=3),
    st.floats(0.0, 1.0),
    st.integers(1, 6),
)
def test_entropy_and_mass_stay_in_their_range_however_the_text_is_cut(
    weights: list[float], elsewhere: float, width: int
) -> None:
    total = sum(weights) + elsewhere
    shares = [weight / total for weight in weights]
    text = '{"verdict":"NG","x":"y"}'
    start = text.index("NG")
    head = [text[i : min(i + width, start)] for i in range(0, start, width)]
    tail = [text[i : i + width] for i in range(start + 2, len(text), width)]
    choice = token("NG", shares[0], OK=shares[1], REVIEW=shares[2])
    found = option_scores([*sure(*head), choice, *sure(*tail)], text, "verdict", VERDICTS)
    assert found is not None
    assert 0.0 <= found.entropy <= 1.0
    assert found.mass == pytest.approx(sum(shares))
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert found.entropy >= 1.0 - found.mass - 1e-9
