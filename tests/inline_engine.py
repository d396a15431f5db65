"""An audit's engine without processes, for tests of everything around it: the same worker, called at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flawscope.agent.errors import FlawscopeError
from flawscope.audits.worker import Basis, Done, InspectWorker
from flawscope.audits.worklist import Job


class InlineEngine:
    """Stands in for ``LocalEngine``; takes the same arguments."""

    def __init__(self, worker: InspectWorker, workers: int, limits: Any, product: str | None = None) -> None:
        self._worker, self._product = worker, product

    def __enter__(self) -> InlineEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._worker.inspector.close()

    def bases(self, products: Sequence[str | None]) -> dict[str | None, Basis | FlawscopeError]:
        self._worker.prepare(self._product)
        found: dict[str | None, Basis | FlawscopeError] = {}
        for product in products:
            try:
                found[product] = self._worker.basis(product)
            except FlawscopeError as error:
                found[product] = error
        return found

    def run(
        self, tasks: Iterator[tuple[int, Job, Basis]], may_start: Callable[[int], bool]
    ) -> Iterator[tuple[int, Done]]:
        for index, job, basis in tasks:
            assert may_start(index)
            yield index, self._worker(job, basis)
