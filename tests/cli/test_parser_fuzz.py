"""Whatever arrives as a report is a valid one or refused; whatever stands on the command line keeps its words."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flawscope.agent.errors import ConfigError
from flawscope.agent.reasoner import DraftReport
from flawscope.agent.schemas import InspectionReport, Uncertainty, Verdict
from flawscope.agent.session import distinct_names
from flawscope.cli import _spread_references

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted(InspectionReport.model_fields)
WHOLE = InspectionReport(
    image="a.png",
    sha256=None,
    product=None,
    verdict=Verdict.OK,
    image_score=0.1,
    uncertainty=Uncertainty(entropy=None, source="none", calibrated=False),
).model_dump(mode="json")


def _read(model: Any, data: str | bytes) -> Any:
    with contextlib.suppress(ValidationError):
        return model.model_validate_json(data)
    return None


@given(st.binary(max_size=200) | st.text(max_size=200) | JSON.map(json.dumps))
@settings(max_examples=150, deadline=None)
def test_noise_is_never_a_report(data: str | bytes) -> None:
    assert _read(InspectionReport, data) is None
    assert _read(DraftReport, data) is None


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=3), st.sets(st.sampled_from(FIELDS)))
@settings(max_examples=300, deadline=None)
def test_a_changed_report_is_valid_or_refused_and_ok_needs_a_score(changes: dict[str, Any], gone: set[str]) -> None:
    fields = {**{name: value for name, value in WHOLE.items() if name not in gone}, **changes}
    report = _read(InspectionReport, json.dumps(fields))
    if report is None:
        return
    assert InspectionReport.model_validate_json(report.model_dump_json()) == report
    if report.verdict is Verdict.OK:
        assert fields["verdict"] == "OK"
        assert report.image_score is not None
        assert report.error is None


@given(JSON, st.sampled_from(["verdict", "claims", "defect_type", "verdict_reason", "extra"]))
@settings(max_examples=200, deadline=None)
def test_a_changed_draft_is_valid_or_refused(value: Any, name: str) -> None:
    draft = _read(DraftReport, json.dumps({"verdict": "NG", name: value}))
    if draft is not None:
        assert name != "extra"
        assert draft.verdict is Verdict.NG or value == draft.verdict.value


@given(st.integers(0, 200), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_report_with_a_flipped_byte_is_valid_or_refused(position: int, mask: int) -> None:
    data = bytearray(json.dumps(WHOLE).encode())
    data[position % len(data)] ^= mask
    report = _read(InspectionReport, bytes(data))
    if report is not None:
        assert InspectionReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize("verdict", ["ok", "OK ", "GOOD", "", None, 1, True, ["OK"]])
def test_only_the_exact_word_is_a_verdict(verdict: Any) -> None:
    assert _read(InspectionReport, json.dumps({**WHOLE, "verdict": verdict})) is None
    assert _read(DraftReport, json.dumps({"verdict": verdict})) is None


def test_deep_nesting_is_refused() -> None:
    assert _read(InspectionReport, "[" * 100_000) is None
    assert _read(DraftReport, '{"claims":' * 50_000) is None


# --- command line -----------------------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["a.png", "b.png", "-", "--reference", "-r", "--json", "-o", "out", "--"]), max_size=9)


@given(WORDS)
@settings(max_examples=300, deadline=None)
def test_spreading_keeps_every_word_in_order_and_pairs_references(arguments: list[str]) -> None:
    try:
        spread = _spread_references(arguments)
    except ConfigError:
        assert {"--reference", "-r"} & set(arguments)
        return
    before = arguments.index("--") if "--" in arguments else len(arguments)
    after = spread.index("--") if "--" in spread else len(spread)
    assert spread[after:] == arguments[before:]
    flags = {"--reference", "-r"}
    assert [word for word in spread[:after] if word not in flags] == [
        word for word in arguments[:before] if word not in flags
    ]
    for position, word in enumerate(spread[:after]):
        if word in flags:
            assert not spread[position + 1].startswith("--")


@given(WORDS)
@settings(max_examples=200, deadline=None)
def test_without_references_nothing_changes(arguments: list[str]) -> None:
    plain = [word for word in arguments if word not in {"--reference", "-r"}]
    assert _spread_references(plain) == plain


def test_references_are_spread() -> None:
    given = ["inspect", "x.png", "-r", "a.png", "b.png", "--json", "y.png", "--reference", "c"]
    pairs = ["--reference", "a.png", "--reference", "b.png"]
    assert _spread_references(given) == ["inspect", "x.png", *pairs, "--json", "y.png", "--reference", "c"]


@given(st.lists(st.text(min_size=1, max_size=120) | st.sampled_from(["a", "a-2", "A", "..", "a.png"]), max_size=12))
@settings(max_examples=300, deadline=None)
def test_folder_names_are_distinct_and_safe(stems: list[str]) -> None:
    images = [Path(f"{stem}.png") for stem in stems]
    names = distinct_names(images)
    assert len(names) == len(images) == len(set(names))
    for name in names:
        assert name
        assert not name.startswith(".")
        assert not set(name) & set('/\\\0\n:*?"<>|')
        assert len(name.encode()) <= 255
    assert distinct_names(images) == names
