"""Changes of a page, its review, and what a diff shows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flawscope.agent.errors import KnowledgeError
from flawscope.tools.knowledge.plant import PlantStore
from flawscope.tools.knowledge.plant_edit import (
    changed_page,
    difference,
    editable_text,
    edited_fields,
    reviewed_page,
)
from flawscope.tools.knowledge.plant_page import PlantPage, page_from_note
from flawscope.tools.knowledge.schema import quoted_text
from flawscope.tools.knowledge.sections import as_text


def page(note: str = "burr on edge, due to dull punch, rework", **given: Any) -> PlantPage:
    fields: dict[str, Any] = {"type_name": None, "doc_id": "plate.burr.1", "taken": (), "author": "Ada"}
    fields |= {"created": "2026", "box": (1, 2, 3, 4), "picture_name": "picture.png"}
    return page_from_note(note, "plate", **{**fields, **given})


def test_a_new_note_keeps_what_it_leaves_out() -> None:
    changed = changed_page(page(), {"note": "burr along the rim"}, "Bob")
    assert (changed.description, changed.likely_causes, changed.action) == (
        "burr along the rim",
        ("dull punch",),
        "Rework.",
    )
    assert (changed.author, changed.created, changed.box) == ("Bob", "2026", (1, 2, 3, 4))
    assert changed_page(page(), {"note": "burr, scrap"}, "Bob").action == "Scrap."


def test_a_new_type_changes_the_title_that_nobody_wrote() -> None:
    changed = changed_page(page(), {"type_name": "bent lead"}, "Bob")
    assert (changed.defect_type, changed.general_type, changed.title) == ("bent_lead", "bent", "Bent lead of plate")
    named = changed_page(page(), {"title": "Sharp rim"}, "Bob")
    assert changed_page(named, {"type_name": "dent"}, "Bob").title == "Sharp rim"


def test_no_change_is_none() -> None:
    same = changed_page(page(), {"action": "Rework.", "title": "Burr of plate"}, "Bob")
    assert same == page()
    assert same.author == "Ada"


def test_a_value_that_cannot_be_is_refused_by_its_field() -> None:
    with pytest.raises(KnowledgeError, match="this title"):
        changed_page(page(), {"title": ""}, "Bob")
    with pytest.raises(KnowledgeError, match="this action"):
        changed_page(page(), {"action": "x" * 401}, "Bob")


def test_somebody_else_must_check_the_words() -> None:
    with pytest.raises(KnowledgeError, match="somebody else"):
        reviewed_page(page(), "Ada", "today")
    checked = reviewed_page(page(), "Bob", "today")
    assert (checked.reviewed, checked.reviewer, checked.reviewed_on, checked.author) == (True, "Bob", "today", "Ada")
    assert reviewed_page(checked, "Bob", "tomorrow") == checked
    assert any("checked by Bob on today" in line for line in as_text(checked))
    changed = changed_page(checked, {"action": "Scrap."}, "Bob")
    assert (changed.reviewed, changed.reviewer, changed.author) == (False, None, "Bob")
    assert reviewed_page(checked, None, "tomorrow") == page()


def test_a_draft_is_accepted_before_it_is_checked() -> None:
    drafted = page().model_copy(update={"drafted_by": "a model", "drafted_fields": ("likely_causes", "description")})
    with pytest.raises(KnowledgeError, match="kb accept"):
        reviewed_page(drafted, "Bob", "today")
    own = changed_page(drafted, {"description": "A burr."}, "Bob")
    assert (own.drafted_by, own.drafted_fields) == ("a model", ("likely_causes",))
    assert changed_page(own, {"likely_causes": ("wear",)}, "Bob").drafted_by is None


def test_severity_and_reaction_plan_stand_in_the_quotation() -> None:
    rated = changed_page(page(), {"severity": "8", "reaction_plan": "Stop the press"}, "Bob")
    assert rated.instruction == "Rework. Reaction plan: Stop the press. Severity 8."
    assert "> Action: Rework. Reaction plan: Stop the press. Severity 8." in quoted_text(rated)
    assert "> Severity: 8" in quoted_text(rated)
    only = changed_page(page("burr on edge"), {"severity": "8"}, "Bob")
    assert only.instruction == ""  # the general page says what to do
    assert "> Severity: 8" in quoted_text(only)


@pytest.fixture
def store(tmp_path: Path) -> PlantStore:
    store = PlantStore(tmp_path / "plant")
    with store.locked():
        store.add(page(), b"one", "0" * 16)
    return store


def test_the_text_for_an_editor_comes_back_as_the_same_page(store: PlantStore) -> None:
    (document,) = store.current()
    text = editable_text(document)
    assert text.startswith("# The page plate.burr.1, version 1.")
    assert "author" not in text
    assert changed_page(document.page, edited_fields(text), "Bob") == document.page
    moved = text.replace("action: Rework.", "action: Scrap.").replace("- 1\n", "- 0\n")
    changed = changed_page(document.page, edited_fields(moved), "Bob")
    assert (changed.action, changed.box) == ("Scrap.", (0, 2, 3, 4))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("title: [", "no valid YAML"),
        ("- a\n- b", "no mapping"),
        ("", "no mapping"),
        ("title: a\ntitle: b", "twice"),
        ("author: Eve", "author cannot be edited"),
        ("reviewed: true", "reviewed cannot be edited"),
        ("title: !!python/object/apply:os.system [ls]", "no valid YAML"),
        ("a: " + "x" * 30_000, "letters"),
        ("a: " + "[" * 15_000, "nested too deep"),
        ("a: &x [1]\nb: *x", "alias"),
    ],
)
def test_an_invalid_text_is_refused(text: str, why: str) -> None:
    with pytest.raises(KnowledgeError, match=why):
        edited_fields(text)


def test_orders_are_taken_out_of_an_edited_text() -> None:
    assert edited_fields("title: 'system: [click](http://a.b) ok'") == {"title": "click ok"}


def test_a_diff_shows_lines_and_pictures(store: PlantStore) -> None:
    (old,) = store.current()
    with store.locked():
        new = store.add(changed_page(old.page, {"action": "Scrap."}, "Bob"), b"two", "0" * 16, action="edit")
    lines = difference(old, new)
    assert lines[:2] == ["--- plate.burr.1 version 1", "+++ plate.burr.1 version 2"]
    assert {"-action: Rework.", "+action: Scrap.", "-author: Ada", "+author: Bob"} <= set(lines)
    assert [line.split(":")[0] for line in lines if "picture sha256" in line] == ["-picture sha256", "+picture sha256"]
    assert difference(old, old) == []
    assert all(line.isprintable() for line in lines)
