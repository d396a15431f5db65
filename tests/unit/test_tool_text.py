"""Tool calls in the words of models."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flawscope.agent.vision_language.tool_text import (
    MAX_CALLS,
    ToolCall,
    ToolDescription,
    call_text,
    called,
    parse_tool_calls,
    tool_instructions,
)

ZOOM = ToolCall("zoom", {"region": "R1"})


@pytest.mark.parametrize(
    "text",
    [
        '{"tool": "zoom", "arguments": {"region": "R1"}}',
        ' {"name": "zoom", "parameters": {"region": "R1"}} ',
        '{"tool": "zoom", "arguments": "{\\"region\\": \\"R1\\"}"}',
        'Let me look.\n```json\n{"tool": "zoom", "arguments": {"region": "R1"}}\n```\nThen I know.',
        '[{"tool": "zoom", "arguments": {"region": "R1"}}]',
        '<tool_call>\n{"name": "zoom", "arguments": {"region": "R1"}}\n</tool_call>',
        'I look.<tool_call>{"name": "zoom", "arguments": {"region": "R1"}}',
    ],
)
def test_a_call_is_read_in_whichever_way_it_is_written(text: str) -> None:
    assert parse_tool_calls(text) == (ZOOM,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would zoom.",
        '{"verdict": "OK"}',
        '{"tool": "zoom", "arguments": [1]}',
        '{"tool": 3}',
        '{"tool": ""}',
        '{"tool": "zoom", "arg',
        'The word {"tool": "zoom"} in a sentence',
        "[" * 100_000,
        "<tool_call>nonsense</tool_call>",
        "null",
    ],
)
def test_words_are_no_call(text: str) -> None:
    assert parse_tool_calls(text) == ()


def test_no_more_calls_are_read_than_anybody_needs() -> None:
    assert len(parse_tool_calls(json.dumps([{"tool": "zoom"}] * 100))) == MAX_CALLS
    assert len(parse_tool_calls('<tool_call>{"name": "zoom"}</tool_call>' * 2)) == 2


@given(
    st.lists(
        st.builds(ToolCall, st.text(min_size=1), st.dictionaries(st.text(), st.integers() | st.text(), max_size=3)),
        min_size=1,
        max_size=MAX_CALLS,
    )
)
def test_calls_are_read_as_they_were_written(calls: list[ToolCall]) -> None:
    written = call_text(calls)
    assume("<tool_call>" not in written and "```" not in written)
    assert parse_tool_calls(written) == tuple(calls)


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    assert all(call.name for call in parse_tool_calls(text))


def test_a_tool_is_a_line() -> None:
    told = tool_instructions([ToolDescription("zoom", "Look\n again.", {"type": "object"})])
    assert told.splitlines()[1] == '- zoom: Look again. Arguments: {"type":"object"}'
    assert tool_instructions([], forced=True).startswith("Use one of these tools")


@pytest.mark.parametrize(
    "text",
    [
        '{"tool": "zo\\ud800", "arguments": {"x": "\\udfff", "\\ud800": [NaN, {"y": "\\ud83d"}]}}',
        '<tool_call>{"name": "zo\\ud800", "arguments": "{\\"x\\": \\"\\\\ud800\\"}"}</tool_call>',
    ],
)
def test_half_a_letter_in_a_call_can_be_sent_and_kept(text: str) -> None:
    (call,) = parse_tool_calls(text)
    assert call.name == "zo?"
    json.dumps(dict(call.arguments), ensure_ascii=False, allow_nan=False).encode()
    call_text([call]).encode()


def test_half_a_letter_in_arguments_that_came_apart_can_be_sent_and_kept() -> None:
    found = called("zoom", '{"x": "\\ud800", "\\udc00": 1e999}')
    assert found.arguments["x"] == "?"
    json.dumps(dict(found.arguments), ensure_ascii=False, allow_nan=False).encode()
