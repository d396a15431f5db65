"""Test only on what is no knowledge: for every way in which a benchmark is started.

The loaders do not look for a knowledge base themselves: what a function reads must not depend on somebody's home.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")


@contextmanager
def untouched_tests(tell: Callable[[str], None] = _tell) -> Iterator[None]:
    """Leave out the test pictures that ``kb build`` attached to pages of the configured home, and say so.

    Args:
        tell: what to do with the line that says so.

    Raises:
        KnowledgeError: a record of an attached picture cannot be read.
    """
    from ..agent.settings import load_settings
    from ..tools.knowledge.attachments import FOLDER, attachments
    from .datasets import leaving_out

    home = load_settings({}).home
    with leaving_out(attachments(home.knowledge / FOLDER)) as left_out:
        yield
    if left_out.met:
        tell(
            f"{len(left_out.met)} test pictures are in the knowledge base of {home.root} and were left out; "
            "with another FLAWSCOPE_HOME they are tested too."
        )
