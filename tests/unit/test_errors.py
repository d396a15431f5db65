"""The tree, its codes and the one-line messages."""

from __future__ import annotations

import re

import pytest

from flawscope.agent import errors
from flawscope.agent.errors import BackendError, FlawscopeError, KnowledgeLockedError, MissingExtraError


def tree(base: type[FlawscopeError]) -> list[type[FlawscopeError]]:
    return [base, *(below for child in base.__subclasses__() for below in tree(child))]


CLASSES = [kind for kind in tree(FlawscopeError) if kind.__module__ == errors.__name__]


def test_codes_are_unique_and_exit_codes_leave_the_verdicts_alone() -> None:
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)
    assert not {kind.exit_code for kind in CLASSES} & {0, 1, 3, 130}


def test_the_documented_tree_is_the_real_one() -> None:
    drawn = dict(re.findall(r"(\w+Error)\s+(\d+)\s", errors.__doc__ or ""))
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in CLASSES if kind is not FlawscopeError}


def test_a_locked_base_is_a_knowledge_error_of_the_same_exit_code() -> None:
    assert KnowledgeLockedError("x").exit_code == errors.KnowledgeError.exit_code


@pytest.mark.parametrize("kind", [k for k in CLASSES if k is not MissingExtraError], ids=lambda k: k.__name__)
def test_a_message_is_one_line_with_what_to_do(kind: type[FlawscopeError]) -> None:
    assert str(kind("it\nbroke \t badly.", hint="Mend\nit.")) == "it broke badly. Mend it."
    assert str(kind("it broke.")) == "it broke."


def test_a_missing_extra_names_the_pip_line() -> None:
    assert "pip install 'flawscope[clip]'" in str(MissingExtraError("CLIP", "clip"))


def test_a_retry_is_promised_only_on_request() -> None:
    assert not BackendError("x").retryable
    assert BackendError("x", retryable=True).retryable
