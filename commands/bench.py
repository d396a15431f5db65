"""``bench``: each benchmark is a module of ``flawscope.benchmarks`` with ``run_NAME`` and ``render``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .shared import make_console, numbers, status

app = typer.Typer(help="Measure Flawscope on labelled data.", no_args_is_help=True)

DataOption = Annotated[Path, typer.Option("--data", help="Folder with one MVTec-style tree per product.")]


def _bench(module: str, *args: Any, **kwargs: Any) -> None:
    """Run a benchmark of flawscope.benchmarks and print its tables; progress goes to standard error."""
    import importlib

    bench = importlib.import_module(f"flawscope.benchmarks.{module}")
    with status(make_console(stderr=True), hidden=False) as say:
        result = getattr(bench, f"run_{module}")(*args, **kwargs, progress=say)
    make_console(width=120).print(bench.render(result))


@app.command("fewshot")
def bench_fewshot(
    data: DataOption,
    shots: Annotated[str, typer.Option("--shots", help="Numbers of references, comma-separated.")] = "1,4,16",
    draws: Annotated[int, typer.Option("--draws", min=1, help="Random draws of references.")] = 3,
) -> None:
    """Detection and localisation from few good references, beside a plain nearest-neighbour baseline."""
    _bench("fewshot", data, numbers(shots), draws=draws)


@app.command("decisions")
def bench_decisions(data: DataOption) -> None:
    """False alarms against the stated rate, detection, calibration error, REVIEW and what the retry loop brings."""
    _bench("decisions", data)


@app.command("types")
def bench_types(
    data: DataOption, examples: Annotated[int, typer.Option("--examples", min=1, help="Examples per type.")] = 10
) -> None:
    """Naming defect types from a few examples each."""
    _bench("types", data, examples=examples)


@app.command("retrieval")
def bench_retrieval(data: DataOption) -> None:
    """Q2K retrieval against top-k and MMR on left-out pictures."""
    _bench("retrieval", data)


@app.command("speed")
def bench_speed(data: DataOption) -> None:
    """What an inspection costs beside the backbone's own forward pass."""
    _bench("speed", data)
