"""Signs of doubt and thresholds on numbers worked by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawscope.agent.errors import InputError
from flawscope.agent.uncertainty import agreement, features, thresholds
from flawscope.agent.uncertainty.records import Answered, AnswerRecord, read_log, task_name
from flawscope.agent.vision_language import Generated, LetterAnswer, Message


class Drawing:
    """Replies that depend on the seed; the letter that stands for one text, wherever the options put it."""

    name = "drawing"

    def __init__(self, replies: Sequence[str] = (), wanted: str = "") -> None:
        self.replies, self.wanted = replies, wanted
        self.seeds: list[int] = []

    def generate(self, messages: Sequence[Message], **asked: Any) -> Generated:
        assert asked["temperature"] == 0.7
        self.seeds.append(asked["seed"])
        return Generated(self.replies[asked["seed"] % len(self.replies)], None, "stop")

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        options = dict(line.split(": ") for line in messages[-1].text.splitlines())
        letter = next((key for key, text in options.items() if text == self.wanted), None)
        shares = {key: 0.7 if key == letter else 0.3 / (len(letters) - 1) for key in letters}
        return LetterAnswer(letter, shares if letter else None, 0.9 if letter else None, letter or "none")


# --- draws ------------------------------------------------------------------------------------------------------------


def test_semantic_entropy_of_clusters() -> None:
    expected = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4)) / math.log(5)
    assert agreement.semantic_entropy(["a", "a", "b", "a", "b"]) == pytest.approx(expected)
    assert agreement.semantic_entropy(["a"] * 5) == 0.0
    assert agreement.semantic_entropy([None] * 5) == pytest.approx(1.0)  # replies without meaning agree with none
    assert agreement.semantic_entropy(["a"]) is None


def test_what_an_answer_comes_down_to() -> None:
    places = {"R1": "upper left", "R2": "left"}
    whole = '{"verdict": "NG", "defect_type": "Cut lead", "region": "R2", "sentences": [{"about": "verdict"}]}'
    assert agreement.meaning_of(whole, places) == agreement.Meaning("NG", "cut lead", "left")
    assert agreement.meaning_of('{"verdict":"OK","defect_type":"none","region":"none"', places) == agreement.Meaning(
        "OK"
    )
    assert agreement.meaning_of('{"verdict":"NG","defect_ty', places) == agreement.Meaning("NG")
    assert agreement.meaning_of('{"verdict":"FINE"}', places) is None
    assert agreement.meaning_of("It is good.", places) is None
    assert str(agreement.Meaning("NG", "scratch", "left")) == "NG | scratch | left"


def test_draws_have_seeds_of_their_own() -> None:
    model = Drawing(["NG", "NG", "what?"])
    found = agreement.draw_meanings(model, [Message("user", ("?",))], {"NG": "NG", "OK": "OK"}.get, n=3)
    assert model.seeds == [0, 1, 2]
    assert found == ("NG", "NG", None)
    with pytest.raises(ValueError, match="temperature"):
        agreement.draw_meanings(model, [], {}.get, temperature=0.0)


def test_reordered_options_are_mapped_back() -> None:
    options = {"A": "scratch", "B": "hole", "C": "stain"}
    order = ("C", "A", "B")
    assert agreement.reordered(options, order) == {"A": "stain", "B": "scratch", "C": "hole"}
    assert agreement.mapped_back("B", tuple(options), order) == "A"
    assert agreement.mapped_back(None, tuple(options), order) is None
    assert agreement.consistency("A", ["A", "B", None, "A"]) == 0.5
    assert agreement.consistency(None, [None]) == 0.0
    assert agreement.consistency("A", []) is None


def test_orders_are_new_and_as_many_as_there_are() -> None:
    assert agreement.option_orders("AB", 5) == (("B", "A"),)
    orders = agreement.option_orders("ABCD", 6, seed=3)
    assert len(set(orders)) == 6
    assert tuple("ABCD") not in orders
    assert orders == agreement.option_orders("ABCD", 6, seed=3)


def compose(options: Mapping[str, str]) -> list[Message]:
    return [Message("user", ("\n".join(f"{key}: {text}" for key, text in options.items()),))]


def test_a_model_that_reads_the_options_keeps_its_answer_under_every_order() -> None:
    options = {"A": "scratch", "B": "hole", "C": "stain"}
    answers = agreement.ask_reordered(Drawing(wanted="hole"), compose, options, n=5)
    assert [answer.letter for answer in answers] == ["B"] * 5
    assert all(answer.probabilities == pytest.approx({"A": 0.15, "B": 0.7, "C": 0.15}) for answer in answers)
    silent = agreement.ask_reordered(Drawing(wanted="dent"), compose, options, n=2)
    assert [(answer.letter, answer.probabilities) for answer in silent] == [(None, None)] * 2


# --- signs ------------------------------------------------------------------------------------------------------------


def test_signs_of_an_answer_by_hand() -> None:
    answered = Answered(
        task="Anomaly Detection",
        product="bolt",
        answer="A",
        probabilities={"A": 0.75, "B": 0.25},
        p_defect=0.75,
        s_cal=0.2,
        retrieval_similarity=0.5,
        permuted=("A", "B", None, "A"),
        samples=("A", "A", "B", None),
    )
    found = features.signs_of_doubt(answered, None, [0.1, 0.5, 0.7, 0.9])
    assert answered.task == "detection"
    assert found["entropy"] == pytest.approx(0.8112781245)
    assert found["disagreement"] == pytest.approx(0.55)
    assert found["permutation"] == 0.5
    assert found["retrieval"] == pytest.approx(1 - 1.5 / 4)  # one below, one equal that counts half
    assert found["semantic_entropy"] == pytest.approx(-(0.5 * math.log(0.5) + 0.5 * math.log(0.25)) / math.log(4))


def test_what_is_not_known_is_none_and_never_zero() -> None:
    found = features.signs_of_doubt(Answered(task="x", product="y", s_cal=0.4), None, [])
    assert set(found) == set(features.FEATURES)
    assert set(found.values()) == {None}
    alone = Answered(task="x", product="y", entropy=0.3)
    assert features.signs_of_doubt(alone, None, [])["entropy"] == 0.3
    assert features.signs_of_doubt(alone, 2.0, [])["entropy"] is None  # an entropy has no temperature


def test_temperature_by_hand() -> None:
    assert features.tempered({"A": 0.8, "B": 0.2}, 2.0) == pytest.approx({"A": 2 / 3, "B": 1 / 3})  # odds 4 -> 2
    assert features.tempered({"A": 1.0, "B": 0.0}, 3.0) == {"A": 1.0, "B": 0.0}


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_bounds_of_an_error_rate() -> None:
    bounds = thresholds.error_bounds(np.array([0, 0, 3, 0]), np.array([59, 58, 3, 0]))
    assert bounds[0] == pytest.approx(1 - 0.05 ** (1 / 59))  # closed form without errors
    assert bounds[0] < 0.05 < bounds[1]
    assert list(bounds[2:]) == [1.0, 1.0]


def test_the_largest_coverage_within_the_target() -> None:
    # Doubt rises: with one error among them 92 answers are bounded by 5.05% and 93 by 4.9994%, where the chance of
    # one error or none is just 5%.
    doubts = [i / 200 for i in range(100)]
    correct = [i not in (80, 93, 94, 95, 96, 97, 98, 99) for i in range(100)]
    chosen = thresholds.choose_threshold(doubts, correct, 0.05)
    assert (chosen.low, chosen.high) == (doubts[92], doubts[92])
    assert (chosen.decided, chosen.errors) == (93, 1)
    p = chosen.bound or 0.0
    assert p == pytest.approx(0.049994, abs=1e-6)
    assert (1 - p) ** 93 + 93 * p * (1 - p) ** 92 == pytest.approx(0.05)
    assert chosen.calibrated


def test_equal_doubts_stand_or_fall_together() -> None:
    chosen = thresholds.choose_threshold([0.1] * 60 + [0.2] * 40, [True] * 80 + [False] * 20, 0.05)
    assert (chosen.low, chosen.decided) == (0.1, 60)


def test_where_no_coverage_keeps_to_the_target_nothing_stands() -> None:
    chosen = thresholds.choose_threshold([0.1 * (i % 7) for i in range(80)], [i % 2 == 0 for i in range(80)], 0.05)
    assert (chosen.low, chosen.high, chosen.calibrated) == (None, None, True)
    unknown = thresholds.choose_threshold([None] * 80, [True] * 80, 0.05)
    assert unknown.low is None


def test_few_answers_give_the_defaults_and_say_so() -> None:
    chosen = thresholds.choose_threshold([0.1] * 59, [True] * 59, thresholds.target_error("detection"))
    assert (chosen.on, chosen.low, chosen.high, chosen.calibrated) == ("entropy", 0.25, 0.60, False)
    assert thresholds.choose_threshold([0.1] * 60, [True] * 60, 0.05).low == 0.1
    assert (thresholds.target_error("detection"), thresholds.target_error("defect_analysis")) == (0.05, 0.15)


# --- logs -------------------------------------------------------------------------------------------------------------


def test_logs_are_read_with_their_hash(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"task": "Defect Analysis", "product": "bolt", "correct": true, "probabilities": {"A": 0.5, "B": 0.5},'
        ' "more": [1]}\n\n{"task": "verdict", "product": "nut", "correct": false, "permuted": ["A", null]}\n'
    )
    log = read_log(path)
    assert [record.task for record in log.records] == ["defect_analysis", "detection"]
    assert log.records[1].permuted == ("A", None)
    assert len(log.sha256) == 64
    assert task_name("Object Structure/Details") == "object_structure_details"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no answers"),
        ("{", "line 1 .* not JSON"),
        ("[1]", "line 1 .* no answer"),
        ('{"task": "a", "product": "b"}', "correct"),
        ('{"task": "a", "product": "b", "correct": true, "probabilities": {"A": 0.9, "B": 0.9}}', "add up to 1"),
        ('{"task": "a", "product": "b", "correct": true, "entropy": NaN}', "entropy"),
        ('{"task": "a", "product": "b", "correct": true, "entropy": 1.5}', "entropy"),
        ("[" * 100_000, "line 1 .* not JSON"),
    ],
)
def test_bad_logs_are_named_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_log(path)


def test_logs_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_log(tmp_path / "log.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_log(tmp_path / "none.jsonl")


def test_a_record_keeps_what_it_was_given() -> None:
    record = AnswerRecord(task="x", product="y", correct=True, samples=("A", None))
    assert AnswerRecord.model_validate_json(record.model_dump_json()) == record
