"""One BLAS thread while a picture is inspected.

An inspection has its parallelism elsewhere: ONNX Runtime's own threads, then two graph branches at a time. NumPy's BLAS
brings a third pool for products of a few milliseconds, and OpenBLAS lets it spin some 25 ms after each: on two cores
an inspection took twice the processor time. Enrolment, which multiplies for seconds, keeps all threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread in the whole process; what was set before comes back at the end.

    When several threads of a process ask at once, the first one's limit holds for all of them.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> Any:
    """Finding the loaded libraries takes milliseconds, so it is done once."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
