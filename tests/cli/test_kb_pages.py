"""``kb list``, ``show`` and ``export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden" / "kb_show.txt"


def test_list_is_a_table_or_json(cli: Any) -> None:
    table = cli("kb", "list", "--product", "textile")
    assert (table.code, table.err) == (0, "")
    lines = table.out.splitlines()
    assert lines[0].split() == ["document", "product", "type", "title", "picture", "reviewed", "source"]
    assert [line.split()[0] for line in lines[1:]] == ["textile.good"]
    rows = [json.loads(line) for line in cli("kb", "list", "--type", "crack", "--json").out.splitlines()]
    assert rows[0]["document"] == "general.crack"
    assert rows[0]["picture"] is True
    assert all("crack" in (row["type"], row["general_type"]) for row in rows)


def test_show_reads_as_before(cli: Any) -> None:
    import os

    shown = cli("kb", "show", "general.crack", COLUMNS="80")
    assert (shown.code, shown.err) == (0, "")
    if os.environ.get("REGENERATE"):
        GOLDEN.write_text(shown.out, encoding="utf-8")
    assert shown.out == GOLDEN.read_text(encoding="utf-8")


def test_show_draws_pages(cli: Any) -> None:
    shown = cli("kb", "show", "textile.good", "--out", "pages")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.endswith("pages/textile.good.png\n")
    with Image.open(cli.folder / "pages" / "textile.good.png") as page:
        assert page.size == (1000, 1414)


def test_the_plants_own_pages_are_among_them(cli: Any) -> None:
    note = "burr on edge, due to dull punch, rework"
    cli("kb", "add", cli.plant.square, "--note", note, "--product", "plate", "--type", "burr", "--box", "60,70,160,170")
    assert "plate.burr.1" in cli("kb", "list", "--product", "plate").out
    shown = cli("kb", "show", "plate.burr.1", "--out", "pages")
    assert (shown.code, shown.err) == (0, "")
    assert "dull punch" in shown.out
    written = cli("kb", "export", "own.html", "--product", "plate")
    assert (written.code, written.out, written.err) == (0, "own.html: 1 documents\n", "")
    assert (cli.folder / "own.html").read_text(encoding="utf-8").count("<img ") == 2


def test_errors_are_one_line(cli: Any) -> None:
    cli("kb", "show", "general.scrach").refused(2, "general.scratch")
    cli("kb", "show", "\x1b[31mnothing").refused(2, "kb list")
    cli("kb", "list", "--product", "textle").refused(2, "textile")
    cli("kb", "export", "catalogue.docx").refused(2, ".pdf or a .html")
    cli("kb", "export", "/proc/nowhere/a.pdf", "--product", "textile").refused(10, "/proc/nowhere")
    cli("kb", "show", "textile.good", "--out", "/proc/nowhere").refused(10, "/proc/nowhere")
    (cli.folder / "taken").write_text("")
    cli("kb", "show", "textile.good", "--out", "taken").refused(10, "taken")
    assert sorted(path.name for path in cli.folder.iterdir()) == ["taken"]
