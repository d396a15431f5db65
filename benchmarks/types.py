"""How well defect types are named from ten examples each, leaving images out.

Queries are described as at inspection: weighted by the anomaly map of an expert fitted on the good references, never
by a mask. A surface without good references is described by all of its patches. Macro accuracy counts ``unknown`` as
wrong. The open-set figure leaves a whole type out and asks how often its pictures are called unknown. The transfer
figures name real defects from the drawn examples of the general types alone.

Run: ``python -m flawscope.benchmarks.types --data DIR``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError
from ..tools.backbones import load_backbone
from ..tools.defect_types import DRAWING_TRUST, UNKNOWN, Method, TypeModel
from .type_features import GENERAL_TYPE, Features, Labels, describe_drawings, describe_product
from .untouched import untouched_tests

METHODS: tuple[Method, ...] = ("lda", "cosine")
MIN_TEST_PICTURES = 5  # of each type must remain beside the examples; with fewer, pictures are left out in turn

Progress = Callable[[str], None]


@dataclass(frozen=True)
class NamingRow:
    """One method on one product; every figure is a share of 1.

    Attributes:
        product, method: what was run.
        types: number of defect types.
        examples: per type.
        macro, macro_sd: mean recall of the types with unknown counted as wrong, and its spread over the repeats.
        forced: the same for the best named type, had unknown not been allowed.
        unknown: share of queries answered with unknown.
        answered: accuracy of those answered with a type, None when there was none.
        open_set: share called unknown of the pictures of a type without examples.
        query_ms: one posterior.
    """

    product: str
    method: Method
    types: int
    examples: int
    macro: float
    macro_sd: float
    forced: float
    unknown: float
    answered: float | None
    open_set: float
    query_ms: float


@dataclass(frozen=True)
class TransferRow:
    """Real defects named from the drawings of all general types.

    Attributes:
        product: whose pictures.
        drawn: number of drawn types to choose from; chance is 1 / drawn.
        top1, top3: macro share whose general type comes first, or among the first three, leaving unknown aside.
        unknown: share answered with unknown.
    """

    product: str
    drawn: int
    top1: float
    top3: float
    unknown: float


@dataclass(frozen=True)
class TypesReport:
    """All rows of one run, and its seconds."""

    naming: tuple[NamingRow, ...]
    transfer: tuple[TransferRow, ...]
    seconds: float


def run_types(data: Path, examples: int = 10, repeats: int = 5, progress: Progress | None = None) -> TypesReport:
    """Run the benchmark on those of its products that are in ``data``.

    Args:
        data: one folder per product: ``train/good``, ``test/<type>``.
        examples: per type.
        repeats: random draws of the examples.
        progress: told what is being done.

    Raises:
        InputError: none of the products is there.
    """
    tell = progress or (lambda _: None)
    products = [name for name in GENERAL_TYPE if (data / name / "test").is_dir()]
    if not products:
        raise InputError(f"no pictures of {', '.join(GENERAL_TYPE)} under {data}.", hint="Give --data another folder.")
    started = time.perf_counter()
    backbone = load_backbone("efficientnet-lite2")
    tell("drawing the general types")
    drawn = TypeModel.fit(*describe_drawings(backbone), trust=DRAWING_TRUST)
    naming, transfer = [], []
    for product in products:
        tell(f"describing {product}")
        features, labels = describe_product(data / product, backbone)
        for method in METHODS:
            tell(f"naming {product} ({method})")
            naming.append(evaluate_naming(product, features, labels, method, examples, repeats))
        transfer.append(_evaluate_transfer(product, features, labels, drawn))
    return TypesReport(tuple(naming), tuple(transfer), time.perf_counter() - started)


def evaluate_naming(
    product: str, features: Features, labels: Labels, method: Method, examples: int, repeats: int
) -> NamingRow:
    """Leave-images-out naming and, type by type, the share of a type without examples that is called unknown."""
    names = sorted(set(labels.tolist()))
    macro, forced, answers, truths, strangers = [], [], [], [], []
    used, spent = examples, 0.0
    for repeat in range(repeats):
        answer, best, asked = [], [], []
        for train, test in split_images(labels, examples, np.random.default_rng(repeat)):
            used = int(min((labels[train] == name).sum() for name in names))
            model = TypeModel.fit(features[train], labels[train].tolist(), method=method)
            started = time.perf_counter()
            posteriors = [model.posterior(features[i]) for i in test]
            spent += time.perf_counter() - started
            answer += [posterior[0][0] for posterior in posteriors]
            best += [_best_named(posterior) for posterior in posteriors]
            asked += labels[test].tolist()
            strangers += _left_out_types(features, labels, train, test, method)
        macro.append(macro_accuracy(asked, answer))
        forced.append(macro_accuracy(asked, best))
        answers += answer
        truths += asked
    named = [answer == truth for answer, truth in zip(answers, truths, strict=True) if answer != UNKNOWN]
    return NamingRow(
        product=product,
        method=method,
        types=len(names),
        examples=used,
        macro=float(np.mean(macro)),
        macro_sd=float(np.std(macro, ddof=1)) if repeats > 1 else 0.0,
        forced=float(np.mean(forced)),
        unknown=1 - len(named) / len(answers),
        answered=float(np.mean(named)) if named else None,
        open_set=float(np.mean(strangers)),
        query_ms=1000 * spent / len(answers),
    )


def split_images(
    labels: Labels, examples: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Indices of examples and of queries.

    Yields:
        One split with ``examples`` of each type when enough pictures remain; otherwise folds that leave one picture
        of each type out in turn, until each picture was left out once.
    """
    shuffled = [rng.permutation(np.flatnonzero(labels == name)) for name in sorted(set(labels.tolist()))]
    everything = np.arange(len(labels))
    if min(len(indices) for indices in shuffled) - examples >= MIN_TEST_PICTURES:
        train = np.concatenate([indices[:examples] for indices in shuffled])
        yield train, np.setdiff1d(everything, train)
        return
    for fold in range(max(len(indices) for indices in shuffled)):
        test = np.array([indices[fold] for indices in shuffled if fold < len(indices)])
        train = np.concatenate([np.setdiff1d(indices, test)[:examples] for indices in shuffled])
        yield train, test


def macro_accuracy(truths: Sequence[str], answers: Sequence[str]) -> float:
    """Mean over the types of the share of their pictures that were named right."""
    truth, answer = np.array(truths), np.array(answers)
    return float(np.mean([(answer[truth == name] == name).mean() for name in sorted(set(truths))]))


def _left_out_types(
    features: Features, labels: Labels, train: NDArray[np.intp], test: NDArray[np.intp], method: Method
) -> list[bool]:
    """Whether each query is called unknown by a model that has no example of its type."""
    called = []
    for name in sorted(set(labels.tolist())):
        kept = train[labels[train] != name]
        model = TypeModel.fit(features[kept], labels[kept].tolist(), method=method)
        called += [model.posterior(features[i])[0][0] == UNKNOWN for i in test if labels[i] == name]
    return called


def _evaluate_transfer(product: str, features: Features, labels: Labels, drawn: TypeModel) -> TransferRow:
    first: dict[str, list[bool]] = {}
    third: dict[str, list[bool]] = {}
    unknown = []
    for feature, label in zip(features, labels.tolist(), strict=True):
        posterior = drawn.posterior(feature)
        nearest = [drawn.names[i] for i in np.argsort(drawn.distances(feature), kind="stable")]
        unknown.append(posterior[0][0] == UNKNOWN)
        wanted = GENERAL_TYPE[product][label]
        first.setdefault(label, []).append(wanted == nearest[0])
        third.setdefault(label, []).append(wanted in nearest[:3])
    top1, top3 = (float(np.mean([np.mean(hits) for hits in table.values()])) for table in (first, third))
    return TransferRow(product, len(drawn.names), top1, top3, float(np.mean(unknown)))


def _best_named(posterior: Sequence[tuple[str, float]]) -> str:
    return next(name for name, _ in posterior if name != UNKNOWN)


def render(report: TypesReport) -> str:
    """The tables as plain text."""
    lines = [
        "Defect types from examples (macro accuracy counts unknown as wrong)",
        f"{'product':<14}{'method':<8}{'types':>5}{'ex.':>5}{'macro':>14}{'forced':>8}{'unknown':>9}{'answered':>10}"
        f"{'open set':>10}{'ms':>7}",
    ]
    lines += [
        f"{row.product:<14}{row.method:<8}{row.types:>5}{row.examples:>5}{row.macro:>8.3f} ±{row.macro_sd:.3f}"
        f"{row.forced:>8.3f}{row.unknown:>9.3f}{_figure(row.answered):>10}{row.open_set:>10.3f}{row.query_ms:>7.2f}"
        for row in report.naming
    ]
    lines += [
        "",
        "Real defects named from drawings alone",
        f"{'product':<14}{'drawn types':>12}{'top-1':>8}{'top-3':>8}{'unknown':>9}",
    ]
    lines += [
        f"{row.product:<14}{row.drawn:>12}{row.top1:>8.3f}{row.top3:>8.3f}{row.unknown:>9.3f}"
        for row in report.transfer
    ]
    return "\n".join([*lines, "", f"{report.seconds:.0f} s"])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from a shell."""
    parser: Any = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per product")
    parser.add_argument("--examples", type=int, default=10, help="per type")
    parser.add_argument("--repeats", type=int, default=5, help="random draws of the examples")
    options = parser.parse_args(arguments)

    def tell(text: str) -> None:
        sys.stderr.write(text + "\n")

    report = run_types(options.data, options.examples, options.repeats, progress=tell)
    sys.stdout.write(render(report) + "\n")


if __name__ == "__main__":
    with untouched_tests():
        main()
