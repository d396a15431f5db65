"""``bench``: each benchmark is a module of ``flawscope.benchmarks`` with ``run_NAME`` and ``render``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..agent.errors import ConfigError
from . import bench_forgetting, bench_ladder, bench_mmad, bench_reports
from .shared import ProfileOption, make_console, numbers, settings, status

app = typer.Typer(help="Measure Flawscope on labelled data.", no_args_is_help=True)
bench_mmad.register(app)
bench_forgetting.register(app)
bench_ladder.register(app)
bench_reports.register(app)

DataOption = Annotated[Path, typer.Option("--data", help="Folder with one MVTec-style tree per product.")]


class Peer(StrEnum):
    """Other projects that ``bench fewshot`` can run beside Flawscope."""

    ANOMALIB = "anomalib"


class Switch(StrEnum):
    """Whether ``bench expert`` takes CLIP too."""

    ON = "on"
    OFF = "off"


class PromptTypes(StrEnum):
    """What the prompts of ``bench zsad`` name: nothing, the product, the picture's likely defect types, or both."""

    BASE = "base"
    OBJ = "obj"
    CLS = "cls"
    BOTH = "both"


class Method(StrEnum):
    """How ``bench calibrate`` turns signs of doubt into a probability: a linear model, or that bent by steps."""

    LOGISTIC = "logistic"
    ISOTONIC = "isotonic"


def _bench(module: str, *args: Any, **kwargs: Any) -> None:
    """Run a benchmark of flawscope.benchmarks and print its tables; progress goes to standard error."""
    import importlib

    from ..benchmarks.untouched import untouched_tests

    bench = importlib.import_module(f"flawscope.benchmarks.{module}")
    with untouched_tests(), status(make_console(stderr=True), hidden=False) as say:
        result = getattr(bench, f"run_{module}")(*args, **kwargs, progress=say)
    make_console(width=120).print(bench.render(result))


@app.command("fewshot")
def bench_fewshot(
    data: DataOption,
    shots: Annotated[str, typer.Option("--shots", help="Numbers of references, comma-separated.")] = "1,4,16",
    draws: Annotated[int, typer.Option("--draws", min=1, help="Random draws of references.")] = 3,
    peer: Annotated[
        Peer | None, typer.Option("--peer", help="Compare with this project's own code, with times and memory.")
    ] = None,
) -> None:
    """Detection and localisation from few good references, beside a plain nearest-neighbour baseline."""
    _bench("fewshot" if peer is None else "peers", data, numbers(shots), draws=draws)


@app.command("parts")
def bench_parts(
    data: DataOption,
    shots: Annotated[int, typer.Option("--shots", min=1, help="Good references.")] = 4,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Random draws of references.")] = 3,
    products: Annotated[str | None, typer.Option("--products", help="Only these, comma-separated.")] = None,
) -> None:
    """What each part of the expert is worth: one changed at a time, the rest as it ships."""
    names = products.split(",") if products else None
    _bench("fewshot_parts", data, shots, draws, names)


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
def bench_retrieval(
    data: Annotated[Path | None, typer.Option("--data", help="Folder with one MVTec-style tree per product.")] = None,
    scale: Annotated[bool, typer.Option("--scale", help="Times and recall by the number of documents.")] = False,
    sizes: Annotated[
        str, typer.Option("--sizes", help="For --scale: numbers of documents, comma-separated.")
    ] = "100,1000,10000,100000",
) -> None:
    """Q2K retrieval against top-k and MMR on left-out pictures; with --scale on made documents, without pictures."""
    if scale:
        from ..benchmarks.retrieval_scale import shipped_features

        asked = numbers(sizes, "--sizes")
        _bench("retrieval_scale", shipped_features(settings()), asked)
    elif data is None:
        raise ConfigError("bench retrieval needs --data, a folder of pictures, or --scale.")
    else:
        _bench("retrieval", data)


@app.command("retriever")
def bench_retriever(
    data: Annotated[Path, typer.Option("--data", help="Folder of a data set whose products have pages.")],
    splits: Annotated[int, typer.Option("--splits", min=1, help="Random draws of documents and queries.")] = 2,
) -> None:
    """Trained key and lock projections beside the plain cosine, on known products and on unseen ones."""
    _bench("retriever", data, splits=splits)


@app.command("logic")
def bench_logic(
    data: DataOption,
    product: Annotated[str, typer.Option("--product", help="Tree on whose pictures parts are changed.")] = "transistor",
) -> None:
    """Boards against their templates, and missing, extra and swapped parts made on good pictures."""
    _bench("logic", data, product=product)


@app.command("audit")
def bench_audit(
    data: DataOption,
    images: Annotated[int, typer.Option("--images", min=20, help="Pictures of each product.")] = 10_000,
    hostile: Annotated[
        int, typer.Option("--hostile", min=0, help="Files that are none, among ten times as many.")
    ] = 200,
    products: Annotated[str, typer.Option("--products", help="Comma-separated.")] = "transistor,textile",
    ray: Annotated[bool, typer.Option("--ray", help="Compare with Ray's actors too.")] = False,
) -> None:
    """An audit beside its backbone alone, its memory, and whether it is the same however it ran."""
    _bench("audit", data, images=images, hostile=hostile, products=products.split(","), ray=ray)


@app.command("speed")
def bench_speed(data: DataOption) -> None:
    """What an inspection costs beside the backbone's own forward pass."""
    _bench("speed", data)


@app.command("expert")
def bench_expert(
    data: DataOption,
    products: Annotated[str | None, typer.Option("--products", help="Only these, comma-separated.")] = None,
    clip: Annotated[Switch, typer.Option("--clip", help="Also CLIP, on random weights, for its times.")] = Switch.ON,
) -> None:
    """What the expert costs beside its backbone, its bank's search by number of references, and batches."""
    names = products.split(",") if products else None
    _bench("expert_speed", data, products=names, clip=clip is Switch.ON)


@app.command("robustness")
def bench_robustness(
    data: DataOption,
    shots: Annotated[int, typer.Option("--shots", min=1, help="Good references per product.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Of directions, signs and noise.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Test pictures per product at most.")] = None,
) -> None:
    """Loss of detection and false alarms under changed light, focus, noise, pose and JPEG, at three grades each."""
    _bench("robustness", data, shots, seed, limit=limit)


@app.command("zsad")
def bench_zsad(
    data: Annotated[Path, typer.Option("--data", help="Folder of the data set, in any layout of docs/benchmarks.md.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Its name or layout; recognised if not given.")
    ] = None,
    profile: ProfileOption = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="Feature extractor with a text tower.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="Checkpoint of the backbone.")] = None,
    train_on: Annotated[
        list[str] | None, typer.Option("--train-on", help="Data set that the weights were trained on; may be repeated.")
    ] = None,
    types: Annotated[
        PromptTypes | None,
        typer.Option("--types", help="What prompts name: nothing, the product, likely defect types, both."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Pictures per class at most.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep scores here; a run there goes on.")] = None,
) -> None:
    """Detection without references, per class and beside published figures; goes on after an interruption."""
    from ..agent.terminal import ProgressBar
    from ..benchmarks.untouched import untouched_tests
    from ..benchmarks.zsad import configured_setup, render, run_zsad

    errors = make_console(stderr=True)
    with status(errors, hidden=False) as say:
        say("loading the weights")
        loaded = settings(profile=profile, backbone=backbone, clip_weights=weights)
        setup = configured_setup(loaded, types.value if types else None)
    with untouched_tests(), ProgressBar(errors) as progress:
        result = run_zsad(data, setup, dataset, train_on or (), limit, out, progress)
    make_console(width=120).print(render(result))


@app.command("head")
def bench_head(
    data: DataOption,
    shots: Annotated[str, typer.Option("--shots", help="Numbers of references, comma-separated.")] = "4,16",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings and draws of references.")] = 2,
    left_out: Annotated[str | None, typer.Option("--products", help="Leave out only these, comma-separated.")] = None,
    prompts: Annotated[str, typer.Option("--prompts", help="Of none, sparse, dense.")] = "none,sparse,dense",
    synthetic_only: Annotated[
        bool, typer.Option("--synthetic-only", help="Train on made defects alone, on no labelled picture.")
    ] = False,
) -> None:
    """A head trained on all other products, with and without HSP, beside the untrained expert."""
    names = left_out.split(",") if left_out else None
    _bench("head", data, numbers(shots), seeds, names, prompts.split(","), not synthetic_only)


@app.command("calibrate")
def bench_calibrate(
    logs: Annotated[list[Path], typer.Argument(help="Per-item logs of a benchmark, or reports (JSONL).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the calibrator (JSON).")],
    test: Annotated[
        list[Path] | None, typer.Option("--test", help="Log of other products to measure on; may be repeated.")
    ] = None,
    signs: Annotated[
        str, typer.Option("--signs", help="Signs of doubt to weigh, comma-separated.")
    ] = "entropy,semantic_entropy,disagreement,permutation,retrieval",
    method: Annotated[Method, typer.Option("--method", help="Bend the probabilities or not.")] = Method.LOGISTIC,
    diagram: Annotated[
        Path | None, typer.Option("--diagram", help="Reliability diagram (PNG); beside the calibrator if not given.")
    ] = None,
    good: Annotated[
        str, typer.Option("--good", help="For reports of inspect --json: folder of the good parts' pictures.")
    ] = "good",
) -> None:
    """Fit P(correct) to the logs of a benchmark; say what it is worth on products that it has not seen."""
    picture = diagram or out.with_suffix(".png")
    names = [name.strip() for name in signs.split(",")]
    _bench("calibration", logs, out, test or (), names, method.value, picture, good)
