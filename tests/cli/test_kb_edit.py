"""``kb edit`` and ``kb diff``: a page corrected, by options and in an editor, and what that changed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import save
from fakes import texture, with_square

BLUE = (40, 60, 235)


@pytest.fixture
def page(cli: Any) -> str:
    """A page with a picture, by Ada."""
    photo = save(cli.folder, "photo.png", with_square(texture(301), 40, 40, colour=BLUE))
    note = "burr on edge, due to dull punch, rework"
    added = cli("kb", "add", photo, "--note", note, "--product", "plate", "--author", "Ada", "--box", "1,2,30,40")
    assert added.code == 0, added.err
    return "plate.burr.1"


def edit(cli: Any, *options: object, by: str = "Bob") -> Any:
    return cli("kb", "edit", "plate.burr.1", "--author", by, *options)


def shown(cli: Any) -> str:
    return str(cli("kb", "show", "plate.burr.1").out)


def test_each_option_is_a_new_version(cli: Any, page: str) -> None:
    done = edit(cli, "--note", "burr on two edges", "--cause", "worn die", "--cause", "wrong gap", "--action", "Scrap.")
    assert (done.out, done.err) == ("plate.burr.1: edited as version 2\n", "")
    more = edit(cli, "--type", "dent", "--title", "Rim", "--severity", "8", "--reaction-plan", "Stop the press.")
    assert more.out == "plate.burr.1: edited as version 3\n"
    text = shown(cli)
    for words in (
        "Rim  [plate.burr.1]",
        "burr on two edges",
        "1. worn die",
        "2. wrong gap",
        "Scrap.",
        "Stop the press.",
    ):
        assert words in text
    assert "plate.burr.1: nothing changed" in edit(cli, "--severity", "8").out
    assert [line.split()[1] for line in cli("kb", "history", page).out.splitlines()] == ["add", "edit", "edit"]
    assert "box: none" not in text
    assert cli("kb", "rollback", page, "1").code == 0
    assert "burr on edge" in shown(cli)
    assert cli("kb", "verify").code == 0


def test_another_picture_takes_the_box_along(cli: Any, page: str) -> None:
    other = save(cli.folder, "other.png", with_square(texture(303), 10, 60, colour=BLUE))
    done = edit(cli, "--picture", other)
    assert "the box belonged to the old picture and is gone" in done.out
    assert edit(cli, "--box", "5,6,70,80").code == 0
    assert edit(cli, "--box", "none").code == 0
    edit(cli, "--box", "0,0,481,9").refused(2, "480 x 480 px")
    assert "nothing changed" in edit(cli, "--picture", other).out  # its own picture is no twin
    third = save(cli.folder, "third.png", with_square(texture(305), 60, 10, colour=BLUE))
    cli("kb", "add", third, "--note", "dent", "--product", "plate")
    edit(cli, "--picture", third).refused(6, "as plate.dent.1")


def test_a_second_person_checks_the_page(cli: Any, page: str) -> None:
    edit(cli, "--reviewed", "--reviewer", "Ada").refused(6, "somebody else must check it")
    assert edit(cli, "--reviewer", "Eve").out == "plate.burr.1: edited as version 2\n"
    assert "checked by Eve on 20" in shown(cli)
    assert cli("kb", "edit", page, "--unreviewed", "--author", "Bob").code == 0
    assert cli("kb", "edit", page, "--reviewer", "Eve").code == 0
    assert " edit 20" in cli("kb", "history", page).out.splitlines()[-1]
    assert " by Eve " in cli("kb", "history", page).out.splitlines()[-1]
    edit(cli, "--unreviewed", "--reviewer", "Eve").refused(2, "--unreviewed")
    changed = edit(cli, "--action", "Scrap.")
    assert "not checked by a second person yet" in changed.out
    assert "not yet checked" in shown(cli)


def test_a_diff_of_two_versions(cli: Any, page: str) -> None:
    cli("kb", "diff", page).refused(6, "one version only")
    edit(cli, "--action", "Scrap.")
    edit(cli, "--severity", "8")
    last = cli("kb", "diff", page).out.splitlines()
    assert last[:2] == ["--- plate.burr.1 version 2", "+++ plate.burr.1 version 3"]
    assert "+severity: '8'" in last
    assert "-action: Rework." in cli("kb", "diff", page, "1", "3").out.splitlines()
    assert "+action: Rework." in cli("kb", "diff", page, "3", "1").out.splitlines()
    cli("kb", "diff", page, "1", "9").refused(6, "no version 9", "It has 1, 2, 3.")


def test_what_cannot_be_edited_is_one_line(cli: Any, page: str) -> None:
    edit(cli).refused(2, "nothing to change")
    edit(cli, "--title", "").refused(6, "this title")
    edit(cli, "--note", " ").refused(6, "no words")
    cli("kb", "edit", "general.scratch", "--action", "x").refused(6, "shipped with Flawscope")
    cli("kb", "remove", page, "--yes")
    edit(cli, "--action", "Scrap.").refused(6, "is removed", "kb rollback")


@pytest.fixture
def editor(cli: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An editor that applies replacements given as (old, new), one round after the other, on a terminal."""
    rounds = cli.folder / "rounds"
    program = cli.folder / "editor.py"
    program.write_text(
        "import sys, pathlib\n"
        f"rounds = pathlib.Path({str(rounds)!r})\n"
        "todo = rounds.read_text().split('\\0')\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "old, new = todo[0].split('=>')\n"
        "path.write_text(path.read_text().replace(old, new))\n"
        "rounds.write_text('\\0'.join(todo[1:]))\n"
    )
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def run(*replacements: str, answer: bool = True) -> Any:
        rounds.write_text("\0".join(replacements))
        monkeypatch.setattr("typer.confirm", lambda *a, **k: answer)
        return cli("kb", "edit", "plate.burr.1", "--author", "Bob", EDITOR=f"{sys.executable} {program}", VISUAL="")

    return run


def test_a_person_edits_the_text(cli: Any, page: str, editor: Any) -> None:
    assert editor("Rework.=>Scrap.").out == "plate.burr.1: edited as version 2\n"
    assert "Scrap." in shown(cli)
    assert editor("nowhere=>there").out == "plate.burr.1: nothing changed\n"
    assert not list((cli.home / "knowledge" / "drafts").iterdir())


def test_an_invalid_edit_is_offered_again_and_never_lost(cli: Any, page: str, editor: Any) -> None:
    twice = editor("action: Rework.=>action: [", "action: [=>action: Scrap.")
    assert "no valid YAML" in twice.err
    assert "Traceback" not in twice.err
    assert twice.out == "plate.burr.1: edited as version 2\n"
    given_up = editor("action: Scrap.=>action: {words of an hour", answer=False)
    draft = cli.home / "knowledge" / "drafts" / "plate.burr.1.yaml"
    assert given_up.code == 6
    assert f"What you typed is in {draft}" in given_up.err
    assert "words of an hour" in draft.read_text()
    later = editor("action: {words of an hour=>action: Words of an hour.")
    assert later.out == "plate.burr.1: edited as version 3\n"
    assert "Words of an hour." in shown(cli)


def test_a_draft_that_began_before_the_page_changed_says_so(cli: Any, page: str, editor: Any) -> None:
    given_up = editor("action: Rework.=>action: [", answer=False)
    assert given_up.code == 6
    edit(cli, "--cause", "blunt punch", "--author", "Eve")
    later = editor("action: [=>action: Scrap.")
    assert "It began with version 1, and saving it undoes what changed since" in later.err
    assert "flawscope kb diff plate.burr.1 1 2" in later.err


def test_a_draft_that_nobody_changed_undoes_nothing(cli: Any, page: str, editor: Any) -> None:
    from flawscope.tools.knowledge.plant import PlantStore
    from flawscope.tools.knowledge.plant_edit import editable_text

    draft = cli.home / "knowledge" / "drafts" / "plate.burr.1.yaml"  # as a process leaves it that is killed in vi
    draft.parent.mkdir()
    draft.write_text(editable_text(PlantStore(cli.home / "knowledge" / "plant").current()[0]))
    edit(cli, "--cause", "blunt punch", "--author", "Eve")
    assert editor("Rework.=>Scrap.").out == "plate.burr.1: edited as version 3\n"
    assert "blunt punch" in shown(cli)
    assert "Scrap." in shown(cli)


def test_an_editor_that_fails_is_one_line(cli: Any, page: str, editor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("kb", "edit", page, EDITOR="/nowhere/editor", VISUAL="").refused(2, "cannot be started", "what you typed")
    cli("kb", "edit", page, EDITOR="false", VISUAL="").refused(2, "ended with code 1")
    assert [line.split()[1] for line in cli("kb", "history", page).out.splitlines()] == ["add"]


def test_a_page_changed_meanwhile_is_not_overwritten(
    cli: Any, page: str, editor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flawscope.commands import kb_edit

    run, done = kb_edit._open_editor, []

    def slow(path: Path) -> None:
        run(path)
        if not done:
            done.append(True)
            from flawscope.tools.knowledge.plant import PlantStore

            store = PlantStore(cli.home / "knowledge" / "plant")
            with store.locked():
                store.remove(page, "Eve")
                store.rollback(page, 1, "Eve")

    monkeypatch.setattr(kb_edit, "_open_editor", slow)
    ended = editor("Rework.=>Scrap.", answer=False)
    assert ended.code == 6
    assert "has become version 3 meanwhile" in ended.err
    assert "Rework." in shown(cli)
