"""The same worker in Ray Data's actors, for machines of a cluster that see the same files.

Each actor keeps its worker in a process of its own, as the local engine does: a picture that hangs or crashes it costs
that picture only, and not the actor.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from ..agent.errors import BackendError, MissingExtraError
from .local import Limits, LocalEngine
from .worker import Basis, Done, InspectWorker
from .worklist import Job

LINES_AT_ONCE = 16
"""Lines that an actor gets together, so that its worker does not wait between them."""


class InspectActor:
    """What Ray Data runs: a batch of lines in, their records out.

    Args:
        worker: what inspects.
        limits: of each line.
        product: loaded before the first line.
    """

    def __init__(self, worker: InspectWorker, limits: Limits, product: str | None) -> None:
        self._engine = LocalEngine(worker, 1, limits, product)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Inspect the lines of a batch; the columns are ``index`` and pickled ``task`` and ``done``."""
        tasks: list[tuple[int, Job, Basis]] = [pickle.loads(task) for task in batch["task"]]  # noqa: S301 - our own
        done = dict(self._engine.run(iter(tasks)))
        return {"index": list(batch["index"]), "done": [pickle.dumps(done[index]) for index, _, _ in tasks]}


def _start(ray: Any) -> None:
    """Start Ray or join a cluster.

    Read from a cold disk its servers take longer than it waits for them; what did not start in time the first time
    starts the second, and giving up would cost an audit.
    """
    for further in (True, False):
        try:
            ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
        except Exception as error:  # Ray raises bare ones
            ray.shutdown()  # what did start
            if further:
                continue
            told = " ".join(str(error).split())
            raise BackendError(
                f"Ray does not start: {told[:500]}", hint="Try again, check RAY_ADDRESS, or leave out --engine ray."
            ) from error
        return


def run_on_ray(
    worker: InspectWorker,
    workers: int,
    limits: Limits,
    product: str | None,
    tasks: Sequence[tuple[int, Job, Basis]],
) -> Iterator[tuple[int, Done]]:
    """Inspect lines in so many actors; a running cluster is used when ``RAY_ADDRESS`` names one.

    Raises:
        MissingExtraError: Ray is not installed.
        BackendError: it does not start, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # 30 of its own
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("The engine ray", "ray") from error
    if not tasks:
        return
    started = not ray.is_initialized()
    if started:
        _start(ray)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        rows = [{"index": task[0], "task": pickle.dumps(task)} for task in tasks]
        inspected = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // LINES_AT_ONCE)).map_batches(
            InspectActor,
            fn_constructor_args=(worker, limits, product),
            batch_size=LINES_AT_ONCE,
            concurrency=workers,
            num_cpus=1,
        )
        for row in inspected.iter_rows():
            yield int(row["index"]), pickle.loads(row["done"])  # noqa: S301 - our own
    finally:
        if started:
            ray.shutdown()
