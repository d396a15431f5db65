"""An audit of thousands of pictures beside its backbone alone; its memory; and whether it is the same however it ran.

Real pictures are repeated with changes (up to two percent brighter or darker, saved anew), so that no two files are
equal; a twentieth of them shows defects. Three things run in turn on the same cores: the batched backbone on prepared
pictures with all threads, as many processes with one thread each that do nothing but that (the stricter measure), and
the audit with all its parts and default settings. Further looks at doubtful pictures are forward passes too: how many a
picture took is told beside the rates.

Run: ``python -m flawscope.benchmarks.audit --data DIR``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from ..agent.errors import BackendError, InputError
from ..agent.inspector import Inspector
from ..agent.settings import LoadedSettings, load_settings
from ..audits import runner
from ..audits.folder import AuditSummary
from ..audits.merging import merge_audits
from ..audits.record_file import read_records
from ..audits.records import AuditRecord
from ..audits.runner import AuditPlan, cores
from ..tools.ad_expert.expert import prepare
from ..tools.backbones.onnx_lite import EfficientNetLite2
from ..tools.imaging import load_image
from ..tools.products import enroll_product
from .datasets import ProductData, load_dataset
from .hostile_files import hostile_files
from .untouched import untouched_tests

REFERENCES = 16
DEFECTIVE_SHARE = 0.05
ALONE_S = 8.0
BATCH = 8
COMPARED = 60
"""Lines of the comparison of one worker, two, shards and Ray."""
FORWARDS = {"zoom": 1, "self_consistency": 4}
"""Passes through the backbone that a further look takes."""
THROUGHPUT_TARGET, GROWTH_TARGET = 0.8, 0.10

Progress = Callable[[str], None]


@dataclass(frozen=True)
class AuditRow:
    """One product.

    Attributes:
        product: name.
        images: inspected.
        flagged: share of NG and REVIEW.
        forwards: passes through the backbone a picture, further looks included.
        audit: pictures a second.
        alone: of the batched backbone with all threads.
        processes: of as many processes as cores with one thread each, backbone only.
        growth: memory of all processes at the end by that after a tenth of the pictures, minus 1.
        peak_mb: highest resident memory of all processes together that was seen.
    """

    product: str
    images: int
    flagged: float
    forwards: float
    audit: float
    alone: float
    processes: float
    growth: float
    peak_mb: float


@dataclass
class AuditResult:
    """What was measured.

    Attributes:
        rows: by product.
        same: which ways of running gave the records of one worker, line by line.
        hostile: files that are no pictures, among how many, how many lines came out, and the errors by kind.
    """

    rows: list[AuditRow] = field(default_factory=list)
    same: dict[str, bool] = field(default_factory=dict)
    hostile: tuple[int, int, int, dict[str, int]] | None = None


def run_audit(
    data: Path,
    *,
    images: int = 10_000,
    hostile: int = 200,
    products: Sequence[str] = ("transistor", "textile"),
    ray: bool = False,
    progress: Progress | None = None,
) -> AuditResult:
    """Measure.

    Args:
        data: folder of products in the MVTec layout.
        images: of each product.
        hostile: files that are no pictures, among ten times as many; 0 for none.
        products: which.
        ray: compare Ray's result too.
        progress: told a line now and then.

    Raises:
        InputError: the folder holds none of the products.
        BackendError: an audit lost or doubled a line.
    """
    tell = progress or (lambda text: None)
    there = [name for name in products if (data / name).is_dir()]
    if not there:
        raise InputError(f"{data} has none of {', '.join(products)}.", hint="Give a folder of products.")
    result = AuditResult()
    with tempfile.TemporaryDirectory(prefix="flawscope-audit-") as folder:
        loaded = load_settings({"home": Path(folder) / "home"}, environ={})
        for number, product in enumerate(load_dataset(data, there)):
            work = Path(folder) / product.name
            tell(f"{product.name}: enrolling, and {images} pictures")
            with Inspector(loaded) as inspector:
                enroll_product(
                    inspector.deps.home.products,
                    product.name,
                    product.references[:REFERENCES],
                    inspector.deps.backbone,
                )
            make_pictures(product, work / "pictures", images)
            row = _row(loaded, product.name, work, images, tell)
            result.rows.append(row)
            tell(f"{row.product}: {row.audit:.1f} pictures a second, {row.alone:.1f} of the backbone alone")
            if number == 0:
                tell(f"{product.name}: one worker, two, shards")
                result.same = _sameness(loaded, product.name, work, ray)
                if hostile:
                    tell(f"{product.name}: {hostile} hostile files")
                    result.hostile = _hostile(loaded, product.name, work, hostile)
            shutil.rmtree(work)
    return result


def make_pictures(product: ProductData, folder: Path, count: int, *, seed: int = 0) -> None:
    """Write changed copies of a product's test pictures.

    Args:
        product: with good and defective tests.
        folder: for ``000000.jpg`` and on.
        count: how many.
        seed: of the choice and the changes.
    """
    rng = np.random.default_rng(seed)
    good = [picture.path for picture in product.tests if not picture.is_defective]
    bad = [picture.path for picture in product.tests if picture.is_defective]
    folder.mkdir(parents=True)
    for number in range(count):
        group = bad if bad and rng.random() < DEFECTIVE_SHARE else good
        with Image.open(group[int(rng.integers(len(group)))]) as original:
            how: dict[str, Any] = {"quality": 97}
            if isinstance(original, JpegImageFile):  # with the same tables: it must not look like another camera
                how = {"qtables": original.quantization, "subsampling": get_sampling(original)}
            gain = rng.uniform(0.98, 1.02)
            changed = original.convert("RGB").point([min(255, round(gain * level)) for level in range(256)] * 3)
        changed.save(folder / f"{number:06d}.jpg", comment=str(number), **how)


# --- rates ------------------------------------------------------------------------------------------------------------


def _row(loaded: LoadedSettings, product: str, work: Path, images: int, tell: Progress) -> AuditRow:
    paths = sorted((work / "pictures").iterdir())
    with Inspector(loaded) as inspector:
        model = inspector.deps.product(product)
        assert model is not None  # noqa: S101  # enrolled above
        prepared = [prepare(load_image(path).rgb, model.expert.config) for path in paths[: 4 * BATCH]]
    tell(f"{product}: the backbone alone")
    alone, processes = [_alone(prepared)], [_processes(prepared)]
    tell(f"{product}: auditing {images} pictures")
    memory = _Memory(images)
    out = work / "out"
    summary = runner.run_audit(loaded, AuditPlan([str(work / "pictures")], out, product), memory)
    tell(f"{product}: the backbone alone again")
    alone.append(_alone(prepared))
    processes.append(_processes(prepared))
    if summary.done != images or summary.errors:
        raise BackendError(f"{images} pictures gave {summary.done} records and the errors {dict(summary.errors)}.")
    actions = [action for record in read_records(out) for action in record.actions]
    extra = sum(FORWARDS.get(action, 0) for action in actions)
    return AuditRow(
        product=product,
        images=images,
        flagged=1.0 - summary.verdicts["OK"] / images,
        forwards=1.0 + extra / images,
        audit=memory.rate(summary),
        alone=statistics.fmean(alone),
        processes=statistics.fmean(processes),
        growth=memory.growth(),
        peak_mb=max(memory.seen.values()),
    )


def _alone(prepared: Sequence[NDArray[np.uint8]], threads: int = 0, seconds: float = ALONE_S) -> float:
    """Pictures a second through the backbone in batches, and nothing else."""
    backbone = EfficientNetLite2(threads)
    batches = [np.stack(prepared[i : i + BATCH]) for i in range(0, len(prepared), BATCH)]
    backbone.encode_image(batches[0])
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        batch = batches[done // BATCH % len(batches)]
        backbone.encode_image(batch)
        done += len(batch)
    return done / (time.perf_counter() - begun)


def _processes(prepared: Sequence[NDArray[np.uint8]]) -> float:
    """The same in as many processes as cores, one thread each; their rates added up."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(cores()) as pool:
        return sum(pool.starmap(_alone, [(list(prepared), 1)] * cores(), chunksize=1))


class _Memory:
    """Watches an audit: resident memory of all its processes, and the rate once its workers have started."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._started: tuple[int, float] | None = None
        self.seen: dict[int, float] = {}

    def __call__(self, summary: AuditSummary) -> None:
        if self._started is None and summary.done >= 0.05 * self._images:
            self._started = (summary.done, summary.seconds)
        step = summary.done * 10 // self._images
        if step >= 1 and step not in self.seen:
            self.seen[step] = sum(_resident_mb(pid) for pid in _processes_of(os.getpid()))

    def rate(self, summary: AuditSummary) -> float:
        """Pictures a second, without the twentieth during which workers start."""
        done, seconds = self._started or (0, 0.0)
        return (summary.done - done) / (summary.seconds - seconds)

    def growth(self) -> float:
        """Memory at the end by that after a tenth, minus 1."""
        return self.seen[max(self.seen)] / self.seen[min(self.seen)] - 1.0


def _processes_of(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _processes_of(int(child))


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- the same, however it ran -----------------------------------------------------------------------------------------


def _sameness(loaded: LoadedSettings, product: str, work: Path, ray: bool) -> dict[str, bool]:
    plan = AuditPlan([str(work / "pictures" / "0000*.jpg")], work / "one", product, workers=1, limit=COMPARED)
    runner.run_audit(loaded, plan)
    first = _comparable(work / "one")
    runner.run_audit(loaded, replace(plan, out=work / "two", workers=2))
    found = {"two workers": _comparable(work / "two") == first}
    shards = [work / f"shard{i}" for i in (1, 2, 3)]
    few = [str(path) for path in sorted((work / "pictures").iterdir())[:COMPARED]]
    for i, shard in enumerate(shards, start=1):
        runner.run_audit(loaded, replace(plan, inputs=few, limit=None, out=shard, shard=(i, 3)))
    merge_audits(shards, work / "merged")
    found["three shards, merged"] = _comparable(work / "merged") == first
    found["the graph, one by one"] = _graph_agrees(loaded, product, work / "one")
    if ray:
        runner.run_audit(loaded, replace(plan, out=work / "ray", workers=2, engine="ray"))
        found["Ray"] = _comparable(work / "ray") == first
    return found


def _comparable(out: Path) -> list[dict[str, Any]]:
    return [record.comparable() for record in read_records(out)]


def _graph_agrees(loaded: LoadedSettings, product: str, out: Path) -> bool:
    """Whether ``inspect`` reports what the records hold."""
    with Inspector(loaded) as inspector:
        for record in read_records(out):
            report = inspector.inspect(record.line.image, product=product).model_dump(mode="json")
            report["provenance"].pop("settings")
            told = AuditRecord.model_validate({**record.model_dump(), "report": report})
            if told.comparable() != record.comparable():
                return False
    return True


def _hostile(loaded: LoadedSettings, product: str, work: Path, count: int) -> tuple[int, int, int, dict[str, int]]:
    """Files that are no pictures among ten times as many good ones."""
    mixed = work / "mixed"
    mixed.mkdir()
    for number, path in enumerate(sorted((work / "pictures").iterdir())[: 9 * count]):
        (mixed / f"{number:06d}-good.jpg").hardlink_to(path)
    good = len(list(mixed.iterdir()))
    hostile_files(mixed, count)
    summary = runner.run_audit(loaded, AuditPlan([str(mixed)], work / "mixed-out", product))
    records = list(read_records(work / "mixed-out"))
    if len({record.id for record in records}) != good + count or summary.verdicts.total() < good:
        raise BackendError(
            f"{good + count} files gave {len(records)} records, {summary.verdicts.total()} of them judged."
        )
    return count, good + count, len(records), dict(summary.errors)


# --- the table --------------------------------------------------------------------------------------------------------


def render(result: AuditResult) -> str:
    """Plain text of 100 columns."""
    lines = [
        f"{'product':<16}{'images':>8}{'flagged':>9}{'forwards':>10}{'audit/s':>9}{'alone/s':>9}{'1-thread/s':>11}"
        f"{'audit/alone':>13}{'passes/alone':>14}{'growth':>8}{'peak MB':>9}"
    ]
    for row in result.rows:
        lines.append(
            f"{row.product:<16}{row.images:>8}{100 * row.flagged:>8.1f}%{row.forwards:>10.2f}{row.audit:>9.1f}"
            f"{row.alone:>9.1f}{row.processes:>11.1f}{row.audit / row.alone:>13.2f}"
            f"{row.audit * row.forwards / row.alone:>14.2f}{100 * row.growth:>7.1f}%"
            f"{row.peak_mb:>9.0f}"
        )
    worst = min(row.audit / row.alone for row in result.rows)
    growth = max(row.growth for row in result.rows)
    lines += [
        f"worst rate {worst:.2f} of the batched backbone alone (target {THROUGHPUT_TARGET}: "
        f"{'met' if worst >= THROUGHPUT_TARGET else 'missed'}), memory growth {100 * growth:.1f}% (target below "
        f"{100 * GROWTH_TARGET:.0f}%: {'met' if growth < GROWTH_TARGET else 'missed'})",
        "1-thread/s: as many processes as cores, one thread each, the backbone and nothing else",
        "forwards: passes through the backbone a picture; further looks at doubtful pictures take more than one,",
        "so passes/alone compares like with like and audit/alone what a user waits for",
    ]
    lines += [
        f"records of one worker and of {way}: {'equal' if same else 'DIFFERENT'}" for way, same in result.same.items()
    ]
    if result.hostile is not None:
        bad, files, records, errors = result.hostile
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(errors.items()))
        lines.append(f"{bad} hostile among {files} files: {records} records, errors: {told}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--hostile", type=int, default=200)
    parser.add_argument("--products", default="transistor,textile")
    parser.add_argument("--ray", action="store_true")
    args = parser.parse_args(argv)
    result = run_audit(
        args.data,
        images=args.images,
        hostile=args.hostile,
        products=args.products.split(","),
        ray=args.ray,
        progress=lambda text: print(text, flush=True),  # noqa: T201
    )
    print(render(result))  # noqa: T201


if __name__ == "__main__":
    with untouched_tests():
        main()
