"""Our reading of replies and our tables beside those of MMAD's published scripts, recorded on made-up replies."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from flawscope.benchmarks.mmad.replies import official_letter, strict_letter
from flawscope.benchmarks.mmad.scoring import official_scores, strict_scores

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "mmad_replies.json").read_text(encoding="utf-8"))
OPTIONS = {"A": "Yes.", "B": "No."}
KINDS = {"A": "A scratch.", "B": "A dent.", "C": "Contamination."}


def rows(field: str, repeat: int = 1, first: int | None = None) -> list[dict[str, Any]]:
    """The recorded answers in the form of the published scripts."""
    found = [
        {
            "image": item["image"],
            "question": {"type": "text", "text": item["task"], "options": item["options"]},
            "question_type": item["task"],
            "correct_answer": item["truth"],
            "gpt_answer": item[field],
        }
        for item in RECORDED["items"]
    ]
    return found[:first] * repeat


def test_each_recorded_reply_is_read_as_by_the_published_parser() -> None:
    assert len(RECORDED["items"]) > 300
    for item in RECORDED["items"]:
        assert official_letter(item["reply"], item["options"]) == item["official"], item["reply"]


@pytest.mark.parametrize(
    ("name", "given"), [("parsed", rows("official")), ("blanks", rows("blank")), ("twice", rows("blank", 2, 60))]
)
def test_tables_equal_those_of_the_published_scorer(name: str, given: list[dict[str, Any]]) -> None:
    recorded, scores = RECORDED[name], official_scores(given)
    assert (scores.unreadable, scores.counted) == (recorded["removed"], recorded["counted"])
    for dataset, row in recorded["table"].items():
        if dataset == "Average":
            continue
        for task, value in row.items():
            ours = {"Average": scores.mean, "Overkill": scores.overkill, "Miss": scores.miss}.get(task)
            found = scores.accuracy[dataset][task] if ours is None else ours[dataset]
            assert found is not None
            assert math.isclose(found, value, abs_tol=1e-9), (dataset, task)
    mean = recorded["table"]["Average"]
    assert math.isclose(scores.average or 0.0, mean["Average"], abs_tol=1e-9)
    for task, value in scores.by_task.items():
        assert math.isclose(value or 0.0, mean[task], abs_tol=1e-9)


def row(image: str, task: str, truth: str, given: str) -> dict[str, Any]:
    return {"image": image, "question_type": task, "correct_answer": truth, "gpt_answer": given}


def test_the_published_form_passes_over_the_answer_after_one_it_removes() -> None:
    given = [row("VisA/candle/test/good/0.png", "Object Details", "A", said) for said in ("", "B", "A")]
    scores = official_scores(given)
    assert (scores.counted, scores.unreadable, scores.passed_over) == (1, 1, 1)
    assert scores.average == 100.0
    strict = strict_scores(given)
    assert (strict.counted, strict.unreadable, strict.passed_over) == (3, 1, 0)
    assert strict.average == pytest.approx(100.0 / 3.0)


def test_detection_is_the_mean_of_both_kinds_of_part() -> None:
    asked = (("good", "B", "B"), ("bad", "A", "B"), ("bad", "A", "A"), ("bad", "A", "A"), ("bad", "A", "A"))
    given = [row(f"VisA/candle/test/{kind}/0.png", "Anomaly Detection", truth, said) for kind, truth, said in asked]
    scores = strict_scores(given)
    assert scores.accuracy["VisA"]["Anomaly Detection"] == pytest.approx((100.0 + 75.0) / 2.0)
    assert scores.overkill["VisA"] == 0.0
    assert scores.miss["VisA"] == pytest.approx(25.0)


def test_what_was_not_asked_is_nothing_in_the_strict_table_and_zero_in_the_published_one() -> None:
    given = [
        row("VisA/a/test/bad/0.png", "Defect Analysis", "A", "A"),
        row("GoodsAD/b/test/bad/0.png", "Object Classification", "A", "A"),
    ]
    assert strict_scores(given).average == 100.0
    assert official_scores(given).average == 50.0


@pytest.mark.parametrize(
    ("reply", "options", "official", "strict"),
    [
        ("B", OPTIONS, "B", "B"),
        ("B.", OPTIONS, "B", "B"),
        ("B. A scratch.", KINDS, "A", None),  # letter and text disagree: the text is option A's
        ("B. A dent.", KINDS, "A", "B"),
        ("A scratch.", KINDS, "A", "A"),
        ("A crack", KINDS, "A", None),  # an article, and no option's text
        ("Answer: C", KINDS, "C", "C"),
        ("The answer is B.", OPTIONS, "B", "B"),
        ("no.", OPTIONS, "B", "B"),
        ("D", OPTIONS, "D", None),
        ("Contamination", KINDS, "C", "C"),
        ("**C**", KINDS, "C", "C"),
        ("(b)", {"A": "x", "B": "(b) y"}, "B", "B"),
        ("B, no, C", KINDS, "C", "B"),
    ],
)
def test_hazards_of_reading_a_reply(reply: str, options: dict[str, str], official: str, strict: str | None) -> None:
    assert (official_letter(reply, options), strict_letter(reply, options)) == (official, strict)


@pytest.mark.parametrize("reply", ["", " ", "I cannot tell", "Bother", "42", "A", "Option"])
def test_what_names_no_option_is_no_answer(reply: str) -> None:
    assert strict_letter(reply, {"C": "Yes.", "D": "No."}) is None


def test_without_options_nothing_is_near_and_the_reply_stays() -> None:
    assert official_letter("cannot tell", {}) == "cannot tell"
