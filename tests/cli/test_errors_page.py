"""docs/errors.md lists every error class with the code it really has."""

from __future__ import annotations

import re
from pathlib import Path

from flawscope import cli
from flawscope.agent import errors
from flawscope.commands.inspection import EXIT_NG, EXIT_REVIEW

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")


def _classes(base: type[errors.FlawscopeError]) -> list[type[errors.FlawscopeError]]:
    """Those of the tree; a module's own, such as one row's failure in an import, have the code of their parent."""
    found = [found for child in base.__subclasses__() for found in (child, *_classes(child))]
    own = [cls for cls in found if cls.__module__ != errors.__name__ and "fake" not in cls.__module__]
    assert all((cls.code, cls.exit_code) == (cls.__base__.code, cls.__base__.exit_code) for cls in own)  # type: ignore[union-attr]
    return [cls for cls in found if cls.__module__ == errors.__name__]


def test_every_class_is_listed_with_its_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| `(\w+)` \|", PAGE, flags=re.M)
    declared = {(str(cls.exit_code), cls.__name__, cls.code) for cls in _classes(errors.FlawscopeError)}
    assert len(declared) >= 9
    assert set(rows) == declared


def test_every_exit_code_is_listed_once_it_can_occur() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, flags=re.M)}
    raised = {cls.exit_code for cls in _classes(errors.FlawscopeError)}
    assert codes == raised | {0, EXIT_NG, EXIT_REVIEW, cli.EXIT_INTERRUPTED}
    assert not raised & {0, EXIT_NG, EXIT_REVIEW, cli.EXIT_INTERRUPTED}


def test_every_code_of_a_failure_has_an_example_line() -> None:
    sections = dict(re.findall(r"^\*\*(\d+), [\w ]+\.\*\*(.*?)(?=^\*\*\d|\Z)", PAGE, flags=re.M | re.S))
    assert {int(code) for code in sections} == {cls.exit_code for cls in _classes(errors.FlawscopeError)} | {130}
    for text in sections.values():
        assert re.search(r"^```text\nflawscope: .+\n", text, flags=re.M)


def test_the_tree_in_the_docstring_is_complete() -> None:
    for cls in _classes(errors.FlawscopeError):
        assert re.search(rf"{cls.__name__}\s+{cls.exit_code}\b", errors.__doc__ or "")
