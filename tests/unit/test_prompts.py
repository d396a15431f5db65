"""Prompt files: every template gets exactly its variables, and every template is used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import flawscope.prompts as prompts
from flawscope.agent.errors import ConfigError
from flawscope.agent.reasoner import evidence as reasoner


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)
    prompts.load_prompts.cache_clear()
    yield tmp_path
    prompts.load_prompts.cache_clear()


def said_by_the_evidence_reasoner() -> set[str]:
    """Names of sections that the module mentions as string literals."""
    tree = ast.parse(Path(reasoner.__file__).read_text())
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return literals & set(prompts.load_prompts("report").sections)


def test_no_section_of_the_report_is_left_unused() -> None:
    assert said_by_the_evidence_reasoner() == set(prompts.load_prompts("report").sections)


def test_a_template_may_have_variables_called_like_anything() -> None:
    text = prompts.render("report", "type_known", name="cut lead", posterior="0.8")
    assert text == "It is most like cut lead (posterior 0.8)."


@pytest.mark.parametrize("given", [{}, {"name": "x"}, {"name": "x", "posterior": 1, "colour": "red"}])
def test_missing_and_unused_variables_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="type_known takes"):
        prompts.render("report", "type_known", **given)


def test_unknown_names_say_what_there_is(folder: Path) -> None:
    (folder / "known.md").write_text("---\nversion: 1\n---\n\n## a\ntext\n")
    with pytest.raises(ConfigError, match="Known: known"):
        prompts.load_prompts("other")
    with pytest.raises(ConfigError, match="no section 'b'"):
        prompts.render("known", "b")


@pytest.mark.parametrize(
    "text", ["", "## a\nno version\n", "---\nversion: 1\n---\nno section\n", "---\nversion:\n---\n## a\nb"]
)
def test_a_file_without_version_or_sections_is_refused(folder: Path, text: str) -> None:
    (folder / "bad.md").write_text(text)
    with pytest.raises(ConfigError, match="no version or no sections"):
        prompts.load_prompts("bad")


def test_an_unnamed_variable_is_refused(folder: Path) -> None:
    (folder / "bad.md").write_text("---\nversion: 1\n---\n## a\nvalue {}\n")
    with pytest.raises(ConfigError, match="takes"):
        prompts.render("bad", "a")


def test_values_are_not_templates() -> None:
    assert prompts.render("report", "description_document", sentence="{score} {0}") == "{score} {0}"


def test_the_hash_changes_with_the_file(folder: Path) -> None:
    (folder / "p.md").write_text("---\nversion: 3\n---\n## a\none\n")
    before = prompts.load_prompts("p")
    prompts.load_prompts.cache_clear()
    (folder / "p.md").write_text("---\nversion: 3\n---\n## a\ntwo\n")
    after = prompts.load_prompts("p")
    assert before.version == after.version == "3"
    assert before.sha256 != after.sha256
