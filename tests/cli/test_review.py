"""``review``: the queue in the terminal, two reviewers, and products that learn and forget."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save
from fakes import texture, with_square
from review_parts import asking, audited

from flawscope.agent.review.desk import ReviewDesk
from flawscope.agent.review.journal import Journal
from flawscope.agent.review.standing import decided
from flawscope.audits.record_file import read_records

BLUE = (40, 60, 235)


@pytest.fixture
def audit(cli: Any) -> Path:
    """An audit of one good part and one with a blue square, both REVIEW."""
    good = save(cli.folder, "good.png", texture(300))
    bad = save(cli.folder, "bad.png", with_square(texture(301), 40, 40, colour=BLUE))
    loaded = cli.plant.loaded(home=cli.home)
    return audited(loaded, cli.folder / "audit", [good, bad])


def ids(cli: Any, *arguments: object) -> list[str]:
    listed = cli("review", "list", *arguments)
    assert listed.code == 0, listed.err
    return [line.split()[0] for line in listed.out.splitlines()]


def test_the_queue_is_listed_shown_and_decided(cli: Any, audit: Path) -> None:
    first, second = ids(cli, "--audit", audit)
    shown = cli("review", "show", first[:6], "-a", audit).out
    assert f" picture: {cli.folder / 'good.png'}" in shown
    assert " serial: S1" in shown
    assert " why: The views disagree." in shown
    told = cli("review", "decide", first, "ok", "-a", audit, "--by", "Kim")
    assert told.out == f"{first}: OK, decided by Kim\n", told.err
    given = ("--type", "Blue Spot", "--note", "a blue spot, due to ink", "--by", "Kim")
    assert cli("review", "decide", second[:4], "NG", *given, "-a", audit).code == 0
    assert ids(cli, "-a", audit) == []
    assert ids(cli, "--state", "decided") == [first, second]  # from the journal alone
    listed = cli("review", "list", "--state", "decided").out.splitlines()
    assert [line[:26] for line in listed] == [f"{first}  REVIEW  ", f"{second}  REVIEW  "]
    plain = [json.loads(line) for line in cli("review", "list", "--state", "decided", "--json").out.splitlines()]
    assert [one["decision"]["defect_type"] for one in plain] == [None, "blue_spot"]
    summary = cli("review", "summary", "-a", audit).out.splitlines()
    assert [line.split() for line in summary[1:4]] == [
        ["OK", "0", "0", "0", "0"],
        ["NG", "0", "0", "0", "0"],
        ["REVIEW", "2", "1", "1", "0"],
    ]
    assert summary[4] == "2 of 2 decided by a person"


def test_what_cannot_be_decided_is_refused_in_one_line(cli: Any, audit: Path) -> None:
    (first, *_) = ids(cli, "-a", audit)
    decide = ("review", "decide", first)
    cli(*decide, "maybe", "-a", audit).refused(2, "OK or NG")
    cli(*decide, "OK", "--type", "hole", "-a", audit).refused(2, "no defect type")
    cli(*decide, "NG", "--type", "!!", "-a", audit).refused(2, "cannot name")
    cli(*decide, "NG", "--note", "x" * 501, "-a", audit).refused(2, "501 letters")
    cli(*decide, "OK").refused(2, "--audit")
    cli("review", "show", "zz", "-a", audit).refused(2, "cannot be an item's id")
    cli("review", "list", "-a", cli.folder / "nowhere").refused(4, "no audit")
    cli("review").refused(2, "nobody is there")
    cli("review", "-a", audit, "list").refused(2, "behind the command")
    cli("review", "confirm", first).refused(2, "nothing to review")
    cli("review", "undo", first, "-a", audit).refused(2, "nothing to take back")
    cli("review", "undo", "product:plate").refused(2, "learnt nothing")
    cli("review", "apply", "--yes")
    assert not (cli.home / "reviews" / "journal.sqlite").exists()


def test_the_second_reviewer_is_told(cli: Any, audit: Path) -> None:
    (first, *_) = ids(cli, "-a", audit)
    assert cli("review", "decide", first, "NG", "-a", audit, "--by", "Kim").code == 0
    again = cli("review", "decide", first, "OK", "-a", audit, "--by", "Ada")
    again.refused(2, "decided already: NG by Kim", f"review undo {first}")
    assert cli("review", "undo", first, "--by", "Ada").out == f"{first}: open again\n"
    assert cli("review", "decide", first, "OK", "-a", audit, "--by", "Ada").code == 0
    history = [line.split()[3:5] for line in cli("review", "history", first).out.splitlines()]
    assert history == [["decided", "Kim"], ["undone", "Ada"], ["decided", "Ada"]]


def test_another_person_confirms_when_the_setting_asks_so(cli: Any, audit: Path) -> None:
    (first, *_) = ids(cli, "-a", audit)
    cli("review", "decide", first, "OK", "-a", audit, "--by", "Kim")
    both = {"FLAWSCOPE_SECOND_PERSON": "true"}
    cli("review", "confirm", first, "--by", "KIM", **both).refused(2, "may not confirm it too")
    assert cli("review", "confirm", first, "--by", "Ada", **both).out == f"{first}: confirmed by Ada\n"
    cli("review", "confirm", first, "--by", "Bo").refused(2, "confirmed already, by Ada")
    assert cli("review", "undo", first).out == f"{first}: decided, no longer confirmed\n"
    assert cli("review", "confirm", "--all-decided", "--by", "Kim").out == f"{first}: confirmed by Kim\n"


def test_hostile_words_stay_words(cli: Any, audit: Path) -> None:
    (first, *_) = ids(cli, "-a", audit)
    note = "<script>alert(1)</script>\x1b[31m\x07 line\nflawscope: fine \u202e back"
    assert cli("review", "decide", first, "NG", "--note", note, "--by", "<b>\x1b[0mKim\n</b>", "-a", audit).code == 0
    for command in (("list", "--state", "decided"), ("show", first), ("history",)):
        seen = cli("review", *command).out
        assert all(char.isprintable() or char == "\n" for char in seen), seen
        assert "\nflawscope: fine" not in seen
    (kept,) = Journal(cli.home / "reviews").entries()
    assert kept.by == "<b> [0mKim </b>"
    assert kept.data["decision"]["note"] == "<script>alert(1)</script> [31m line flawscope: fine back"


def test_a_picture_audited_again_with_other_content_is_another_item(cli: Any, audit: Path) -> None:
    first, second = ids(cli, "-a", audit)
    cli("review", "decide", first, "OK", "-a", audit)
    same = audited(cli.plant.loaded(home=cli.home), cli.folder / "same", [cli.folder / "good.png"])
    assert ids(cli, "-a", same) == []  # settings and run are others, the part is the same
    save(cli.folder, "good.png", texture(333))
    cli("review", "decide", second, "OK", "-a", audit)
    changed = audited(cli.plant.loaded(home=cli.home), cli.folder / "changed", [cli.folder / "good.png"])
    (other,) = ids(cli, "-a", changed)
    assert other not in (first, second)
    journal = Journal(cli.home / "reviews")
    assert [found.verdict for found in decided(read_records(changed), journal)] == ["REVIEW"]
    assert [found.verdict for found in decided(read_records(audit), journal)] == ["OK", "OK"]
    save(cli.folder, "good.png", texture(334))
    cli("review", "decide", other, "OK", "-a", changed).refused(4, "has changed since it was inspected")


# products


def product(cli: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cli.home / "products" / "plate" / "product.json").read_text())
    return found


@pytest.fixture
def confirmed(cli: Any, audit: Path) -> tuple[str, str]:
    """A good part and a blue spot, confirmed."""
    first, second = ids(cli, "-a", audit)
    cli("review", "decide", first, "OK", "-a", audit, "--by", "Kim")
    cli("review", "decide", second, "NG", "--type", "blue_spot", "--note", "ink, due to a leak", "-a", audit)
    assert cli("review", "confirm", "--all-decided", "--by", "Ada").code == 0
    return first, second


def test_a_product_learns_and_forgets(cli: Any, confirmed: tuple[str, str], snapshot: Any) -> None:
    before, was = snapshot(cli.home / "products"), product(cli)
    cli("review", "apply").refused(2, "Add --yes")
    defects = ("--defects", cli.plant.good[0].parents[1] / "defects")
    missing = cli("review", "apply", "--yes", "--by", "Ada")
    missing.refused(5, "--defects FOLDER")
    assert snapshot(cli.home / "products") == before
    done = cli("review", "apply", "--yes", "--by", "Ada", *defects)
    assert done.code == 0, done.err
    assert [line.strip() for line in done.out.splitlines()[:4]] == [
        "plate:",
        "1 good pictures to its references",
        "defect examples: blue_spot (1)",
        "1 pages to the plant's knowledge",
    ]
    assert f" page of {confirmed[1]}: plate.blue_spot.1" in done.out
    now = product(cli)
    assert len(now["references"]) == len(was["references"]) + 1
    assert now["references"][-1]["name"] == "good.png"
    assert now["type_examples"] == {**was["type_examples"], "blue_spot": 1}
    assert now["false_alarm"] == was["false_alarm"]
    assert ids(cli, "--state", "applied") == list(confirmed)
    assert "Nothing to apply" in cli("review", "apply", "--yes").err
    cli("review", "undo", confirmed[0]).refused(2, "review undo product:plate")

    undone = cli("review", "undo", "product:plate", "--by", "Bo")
    assert "change 1 taken back; the product is as it was before" in undone.out
    assert snapshot(cli.home / "products") == before
    assert "remove" in cli("kb", "history", "plate.blue_spot.1").out
    assert ids(cli, "--state", "confirmed") == list(confirmed)
    assert cli("review", "undo", confirmed[0]).code == 0
    told = [line.split()[3] for line in cli("review", "history", "product:plate").out.splitlines()]
    assert told == ["applying", "applied", "reverting", "reverted"]


def test_the_second_change_needs_no_folders(cli: Any, confirmed: tuple[str, str], snapshot: Any) -> None:
    defects = ("--defects", cli.plant.good[0].parents[1] / "defects")
    assert cli("review", "apply", "--yes", *defects).code == 0
    between = snapshot(cli.home / "products")
    more = save(cli.folder, "more.png", with_square(texture(310), 20, 50, colour=BLUE))
    folder = audited(cli.plant.loaded(home=cli.home), cli.folder / "more", [more])
    (third,) = ids(cli, "-a", folder)
    cli("review", "decide", third, "NG", "--type", "blue_spot", "-a", folder)
    cli("review", "confirm", third)
    for folder in (cli.folder / "good.png", cli.folder / "bad.png"):
        folder.unlink()  # kept by then
    done = cli("review", "apply", "--yes")
    assert done.code == 0, done.err
    assert product(cli)["type_examples"]["blue_spot"] == 2
    assert cli("review", "undo", "product:plate").code == 0
    assert snapshot(cli.home / "products") == between
    assert cli("review", "undo", "product:plate").code == 0
    assert "blue_spot" not in product(cli)["type_examples"]


def test_what_was_learnt_is_what_an_enrolment_would_learn(cli: Any, confirmed: tuple[str, str]) -> None:
    defects = cli.plant.good[0].parents[1] / "defects"
    assert cli("review", "apply", "--yes", "--defects", defects).code == 0
    shutil.copytree(defects, cli.folder / "defects")
    (cli.folder / "defects" / "blue_spot").mkdir()
    shutil.copy(cli.folder / "bad.png", cli.folder / "defects" / "blue_spot")
    assert (
        cli("enroll", "fresh", *cli.plant.good, cli.folder / "good.png", "--defects", cli.folder / "defects").code == 0
    )
    for name in ("arrays.npz", "types.npz"):
        with (
            np.load(cli.home / "products" / "plate" / name) as learnt,
            np.load(cli.home / "products" / "fresh" / name) as fresh,
        ):
            assert learnt.files == fresh.files
            assert all(np.array_equal(learnt[key], fresh[key]) for key in learnt.files)


def test_of_two_who_apply_at_once_one_is_told(cli: Any, confirmed: tuple[str, str]) -> None:
    from flawscope.agent.errors import ReviewConflictError
    from flawscope.agent.review.changes import proposed
    from flawscope.commands.review_apply import product_desk

    loaded = cli.plant.loaded(home=cli.home)
    (change,) = proposed(Journal(cli.home / "reviews"), cli.home / "products")  # as the slower one saw it
    defects = cli.plant.good[0].parents[1] / "defects"
    assert cli("review", "apply", "--yes", "--defects", defects).code == 0
    with pytest.raises(ReviewConflictError, match="applied meanwhile"):
        product_desk(loaded).apply(change, "Bo", defects=defects)
    assert len(Journal(cli.home / "reviews").entries("product:plate")) == 2


def test_a_locked_knowledge_base_is_waited_for(
    cli: Any, confirmed: tuple[str, str], snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flawscope.agent.errors import KnowledgeLockedError
    from flawscope.commands import review_pages

    before = snapshot(cli.home / "products")
    defects = ("--defects", cli.plant.good[0].parents[1] / "defects")

    def locked(loaded: Any) -> None:
        raise KnowledgeLockedError("the knowledge base is open in another process.")

    with monkeypatch.context() as patch:
        patch.setattr(review_pages, "refuse_open_bases", locked)
        assert cli("review", "apply", "--yes", *defects).code == 6
    assert snapshot(cli.home / "products") == before
    done = cli("review", "apply", "--yes", *defects)
    assert "finished now" in done.out
    assert product(cli)["type_examples"]["blue_spot"] == 1


def test_a_product_enrolled_anew_meanwhile_is_left_alone(cli: Any, confirmed: tuple[str, str], snapshot: Any) -> None:
    cli("review", "apply", "--yes", "--defects", cli.plant.good[0].parents[1] / "defects")
    assert cli("enroll", "plate", *cli.plant.good[:6], "--replace").code == 0
    before = snapshot(cli.home / "products")
    cli("review", "undo", "product:plate").refused(5, "enrolled anew since")
    assert snapshot(cli.home / "products") == before


def test_what_nothing_can_be_learnt_from_is_said(cli: Any, audit: Path) -> None:
    first, second = ids(cli, "-a", audit)
    cli("review", "decide", first, "OK", "-a", audit)
    cli("review", "decide", second, "NG", "-a", audit)
    cli("review", "confirm", "--all-decided")
    (cli.folder / "good.png").unlink()
    told = cli("review", "apply", "--yes")
    assert f" left out: {first}: {cli.folder / 'good.png'} is gone" in told.out
    assert f" left out: {second}: it has neither a type nor a note" in told.out
    assert "Nothing to apply" in told.err


KILLED = """
import os, runpy, signal, sys
from flawscope.agent.review import applying
from flawscope.agent.review.journal import Journal
from flawscope.tools import products

def dies_after(owner, name, when=lambda *given: True):
    real = getattr(owner, name)
    def call(*given, **more):
        found = real(*given, **more)
        if when(*given):
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    setattr(owner, name, call)

when = sys.argv.pop(1)
kind = lambda self, subject, kind, *rest: kind == when
dies_after(Journal, "append", kind)
if when == "enrolled":
    dies_after(products, "enroll_product")
if when == "pages":
    from flawscope.commands import kb_shared, review_pages
    dies_after(review_pages, "put_into_effect")
if when == "restored":
    from flawscope.agent.review.originals import Originals
    dies_after(Originals, "restore_product")
sys.argv[0] = {cheap!r}
runpy.run_path({cheap!r}, run_name="__main__")
"""


def kill(cli: Any, when: str, *arguments: object) -> None:
    """A command that dies by SIGKILL at a certain moment."""
    script = KILLED.replace("{cheap!r}", repr(str(Path(__file__).with_name("cheap_cli.py"))))
    done = subprocess.run(
        [sys.executable, "-c", script, when, *map(str, arguments)],
        env=cli.environment(),
        cwd=cli.folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("when", ["applying", "pages", "enrolled"])
def test_an_apply_that_was_killed_is_finished_once(
    cli: Any, confirmed: tuple[str, str], snapshot: Any, when: str
) -> None:
    before, was = snapshot(cli.home / "products"), product(cli)
    defects = ("--defects", cli.plant.good[0].parents[1] / "defects")
    kill(cli, when, "review", "apply", "--yes", *defects)
    done = cli("review", "apply", "--yes", *defects)
    assert "what was not finished before is finished now" in done.out, done.err
    assert len(product(cli)["references"]) == len(was["references"]) + 1
    assert product(cli)["type_examples"]["blue_spot"] == 1
    pages = [path.name for path in (cli.home / "knowledge" / "plant").iterdir() if path.name.startswith("plate")]
    assert pages == ["plate.blue_spot.1"]
    assert [entry.kind for entry in Journal(cli.home / "reviews").entries("product:plate")] == ["applying", "applied"]
    kill(cli, "restored" if when == "enrolled" else "reverting", "review", "undo", "product:plate")
    assert cli("review", "undo", "product:plate").code == 0
    assert snapshot(cli.home / "products") == before


def test_an_apply_that_was_killed_can_be_taken_back(cli: Any, confirmed: tuple[str, str], snapshot: Any) -> None:
    before = snapshot(cli.home / "products")
    kill(cli, "enrolled", "review", "apply", "--yes", "--defects", cli.plant.good[0].parents[1] / "defects")
    cli("review", "undo", confirmed[0]).refused(2, "review undo product:plate")
    assert cli("review", "undo", "product:plate").code == 0
    assert snapshot(cli.home / "products") == before
    assert ids(cli, "--state", "confirmed") == list(confirmed)


def test_the_walk_through_the_queue(cli: Any, audit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flawscope.commands import review

    keys = iter("uouns")
    answers = iter(["blue spot", "ink"])
    monkeypatch.setattr(review, "read_key", lambda: next(keys))
    monkeypatch.setattr(review.typer, "prompt", lambda *given, **more: next(answers))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    seen = cli("review", "-a", audit, "--by", "Kim")
    assert "Nothing to take back." in seen.out
    assert seen.out.endswith("1 decided, 1 left open.\n")
    entries = Journal(cli.home / "reviews").entries()
    assert [entry.kind for entry in entries] == ["decided", "undone", "decided"]
    assert entries[-1].data["decision"] == {"verdict": "NG", "defect_type": "blue_spot", "note": "ink", "box": None}
    assert list(keys) == []


def test_an_undo_that_somebody_else_was_quicker_with_skips_nothing(
    cli: Any, audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flawscope.commands import review

    first, second = ids(cli, "-a", audit)
    steps: list[str] = []

    def key() -> str:
        steps.append("ouos"[len(steps)])
        if steps == ["o", "u"]:
            ReviewDesk(cli.home / "reviews").undo(first, "Ada")
        return steps[-1]

    monkeypatch.setattr(review, "read_key", key)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    seen = cli("review", "-a", audit, "--by", "Kim")
    assert f"{first} is open: there is nothing to take back." in seen.err
    assert seen.out.endswith("1 decided, 1 left open.\n")
    told = [(entry.subject, entry.kind, entry.by) for entry in Journal(cli.home / "reviews").entries()]
    assert told == [(first, "decided", "Kim"), (first, "undone", "Ada"), (first, "decided", "Kim")]
    assert ids(cli, "-a", audit) == [second]
    assert steps == list("ouos")  # the second item was shown again


@pytest.fixture
def unread(cli: Any) -> Path:
    """An audit of one file that is no picture."""
    (cli.folder / "torn.png").write_bytes(b"no picture")
    return audited(cli.plant.loaded(home=cli.home), cli.folder / "torn", [cli.folder / "torn.png"])


def test_a_picture_that_could_not_be_read_is_never_ok(cli: Any, unread: Path) -> None:
    (only,) = ids(cli, "-a", unread)
    cli("review", "decide", only, "OK", "-a", unread).refused(4, "cannot be OK", "Take the picture again")
    assert " may be: NG, never OK: it could not be read. Take the" in cli("review", "show", only, "-a", unread).out
    assert not (cli.home / "reviews" / "journal.sqlite").exists()
    assert cli("review", "decide", only, "NG", "-a", unread, "--by", "Kim").out == f"{only}: NG, decided by Kim\n"


def test_the_walk_offers_no_ok_for_a_picture_that_could_not_be_read(
    cli: Any, unread: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flawscope.commands import review

    keys, answers = iter("on"), iter(["", "no picture"])
    monkeypatch.setattr(review, "read_key", lambda: next(keys))
    monkeypatch.setattr(review.typer, "prompt", lambda *given, **more: next(answers))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    seen = cli("review", "-a", unread, "--by", "Kim")
    assert seen.out.count("[1 left]  N ng   S skip") == 2  # it stays after the O
    assert "could not be read, so it cannot be OK" in seen.err
    assert seen.out.endswith("1 decided, 0 left open.\n")


@pytest.mark.parametrize("gone", ["products", "reviews"])
def test_a_home_without_them_has_nothing_to_review(cli: Any, gone: str) -> None:
    shutil.rmtree(cli.home / gone, ignore_errors=True)
    assert cli("review", "list").out == ""
    assert cli("review", "history").out == ""


def test_a_thread_of_the_home_is_answered(cli: Any) -> None:
    (cli.home / "threads").mkdir()
    loaded = cli.plant.loaded(home=cli.home, ask_human=True, max_actions=0)
    with asking(loaded, cli.home / "threads" / "threads.sqlite") as (inspector, _):
        dict(inspector.stream(cli.plant.square, product="plate", thread_id="part-7"))
    (name,) = ids(cli)
    assert " thread: part-7" in cli("review", "show", name).out
    told = cli("review", "decide", name, "NG", "--type", "hole", "--by", "Kim").out.splitlines()
    assert told == [f"{name}: NG, decided by Kim", f"{name}: its thread went on and ended with NG"]
    undone = cli("review", "undo", name).out.splitlines()
    assert undone[0] == f"{name}: open again"
    (again,) = ids(cli)
    assert undone[1] == f"{name}: its thread asks again, as {again}"
    cli("review", "list", "--threads", "nowhere.sqlite").refused(2, "no database of threads")
    assert not (cli.folder / "nowhere.sqlite").exists()
    elsewhere = cli("review", "list", "--threads", cli.home / "threads" / "threads.sqlite")
    assert elsewhere.out.startswith(again)


def test_the_page_is_served_until_it_is_stopped(cli: Any, audit: Path) -> None:
    serve = subprocess.Popen(
        cli.command("review", "serve", "-a", audit, "--by", "Kim"),
        env=cli.environment(),
        cwd=cli.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert serve.stdout is not None
    address = serve.stdout.readline().strip()
    with urllib.request.urlopen(f"{address}queue", timeout=60) as answer:
        queue = json.load(answer)
    assert (queue["by"], len(queue["items"])) == ("Kim", 2)
    with urllib.request.urlopen(f"{address}overlay/{queue['items'][1]['id']}", timeout=60) as answer:
        assert answer.read(4) == b"\x89PNG"
    port = address.split(":")[2].partition("/")[0]
    cli("review", "serve", "-a", audit, "--port", port).refused(2, "cannot be used")
    serve.send_signal(signal.SIGINT)
    _, err = serve.communicate(timeout=60)
    assert serve.returncode == 130, err
    assert "Traceback" not in err
    cli("review", "serve", "-a", cli.folder / "nowhere").refused(4, "no audit")
