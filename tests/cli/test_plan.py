"""``products plan``: set, show, edit, history, rollback, and what an inspection makes of it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

FIRST = """products:
  - product: plate
    severity: 7
    disposition: scrap
"""
SECOND = FIRST.replace("scrap", "rework")


def written(cli: Any, name: str, text: str) -> Path:
    path: Path = cli.folder / name
    path.write_text(text, encoding="utf-8")
    return path


def action_of(cli: Any) -> str:
    report = json.loads(cli("inspect", cli.plant.square, "--product", "plate", "--json").out)
    return str(report["action"])


def test_the_plan_that_holds_is_what_inspections_say(cli: Any) -> None:
    done = cli("products", "plan", "set", "plate", written(cli, "a.yaml", FIRST), "--by", "ann", "--note", "first")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("plate: control plan, version 1.")
    assert "disposition: scrap" in action_of(cli)
    assert "version 2" in cli("products", "plan", "set", "plate", written(cli, "b.yaml", SECOND), "--by", "bob").out
    assert "disposition: rework" in action_of(cli)
    back = cli("products", "plan", "rollback", "plate", "1", "--by", "cy")
    assert back.out == "plate: control plan, version 3 (as version 1).\n"
    assert "disposition: scrap" in action_of(cli)
    assert cli("products", "plan", "show", "plate").out == FIRST
    assert cli("products", "plan", "show", "plate", "--version", "2").out == SECOND
    told = [line.split() for line in cli("products", "plan", "history", "plate").out.splitlines()]
    assert [line[0] for line in told] == ["1", "2", "3"]
    assert told[0][-2:] == ["ann:", "first"]


def test_an_editor_changes_it(cli: Any) -> None:
    cli("products", "plan", "set", "plate", written(cli, "a.yaml", FIRST))
    script = written(
        cli,
        "editor.py",
        "import sys; p = sys.argv[1]; t = open(p).read(); open(p, 'w').write(t + '    false_alarm: 0.1\\n')",
    )
    editor = shlex.join([sys.executable, str(script)])
    assert "version 2" in cli("products", "plan", "edit", "plate", EDITOR=editor, VISUAL="").out
    assert cli("products", "plan", "show", "plate").out.endswith("false_alarm: 0.1\n")
    cli("products", "plan", "edit", "plate", EDITOR="true", VISUAL="").refused(2, "nothing was changed")
    cli("products", "plan", "edit", "plate", EDITOR="false", VISUAL="").refused(2, "the editor 'false' failed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("products:\n  - product: plate\n    false_alarm: 2\n", "line 3"),
        ("products:\n  - product: plate\n    severty: 2\n", "severty"),
        ("products:\n  - product: other\n", "plate"),
        ("products: [", "bad.yaml"),
    ],
)
def test_a_mistake_is_refused_in_one_line_and_nothing_is_kept(cli: Any, text: str, said: str) -> None:
    result = cli("products", "plan", "set", "plate", written(cli, "bad.yaml", text))
    result.refused(result.code, said)
    assert result.code in {2, 6}
    assert cli("products", "plan", "history", "plate").out == ""


def test_what_is_not_there_is_said(cli: Any) -> None:
    shown = cli("products", "plan", "show", "plate")
    shown.refused(shown.code, "plate")
    cli("products", "plan", "set", "plate", cli.folder / "nowhere.yaml").refused(
        4, "nowhere.yaml cannot be read: No such"
    )
    (cli.folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    cli("products", "plan", "set", "plate", cli.folder / "bytes.yaml").refused(4, "bytes.yaml is not text")
