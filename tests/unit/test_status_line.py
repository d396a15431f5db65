"""The line that says what is being done: written over, hostile text harmless, silent where nobody watches."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flawscope.agent.terminal import StatusLine


def shown(*pieces: str, terminal: bool = True, hidden: bool = False, width: int = 60) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system=None, highlight=False)
    with StatusLine(console, hidden=hidden) as line:
        line.step("classify")
        for piece in pieces:
            line.text(piece)
    return out.getvalue()


def test_an_answer_runs_through_the_line_as_it_grows() -> None:
    lines = [line.strip() for line in shown('{"verdict":', ' "NG"').split("\r")]
    assert lines == ["· naming the defect", '· {"verdict":', '· {"verdict": "NG"', "", ""]  # wiped, then at its start


def test_a_long_answer_shows_its_end_and_never_more_than_the_line() -> None:
    lines = shown("x" * 500, "the end").split("\r")
    assert lines[2].endswith("the end")
    assert "\n" not in "".join(lines)
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("text", ["\x1b[2J", "[bold]", "\n\n\n", "\r\x07", "[/]"])
def test_an_answer_cannot_steer_the_terminal(text: str) -> None:
    out = shown(f"a{text}b")
    assert "\x1b" not in out
    assert "\n" not in out
    if "[" in text and "\x1b" not in text:
        assert f"a{text}b" in out  # no markup of ours either


@pytest.mark.parametrize("options", [{"terminal": False}, {"hidden": True}])
def test_nobody_watching_means_nothing_written(options: dict[str, bool]) -> None:
    assert shown("text", **options) == ""
