"""Audits and threads of the small plant, for tests of reviews."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes import FunctionReasoner
from langgraph.checkpoint.sqlite import SqliteSaver

from flawscope.agent.checkpoints import open_checkpointer
from flawscope.agent.inspector import Inspector
from flawscope.agent.reasoner import DraftReport, ReasonerReply
from flawscope.agent.review.desk import ReviewDesk
from flawscope.agent.review.threads import GraphThreads
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.agent.settings import LoadedSettings
from flawscope.audits.pictures import drawn_map, write_pictures
from flawscope.audits.record_file import RECORDS_NAME, RecordWriter
from flawscope.audits.records import AuditRecord, WorklistLine
from flawscope.audits.worker import Basis, record_of

BASIS = Basis("1" * 64, {})


def audited(
    loaded: LoadedSettings, folder: Path, images: Sequence[Path], *, product: str = "plate", verdict: str = "REVIEW"
) -> Path:
    """An audit of these pictures with this verdict for each, pictures included; its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    with Inspector(loaded) as inspector:
        for number, image in enumerate(images, start=1):
            report = inspector.inspect(image, product=product)
            doubtful = report.model_copy(update={"verdict": Verdict(verdict), "verdict_reason": "The views disagree."})
            line = WorklistLine(number=number, image=str(image), product=product, serial=f"S{number}", lot="L7")
            record = record_of(doubtful, line, f"{number:032x}", report.sha256, BASIS)
            if report.error is None:
                record = with_pictures(record, inspector, doubtful, folder)
            records.append(record)
    with RecordWriter(folder / RECORDS_NAME) as writer:
        writer.append(records)
    return folder


def with_pictures(record: AuditRecord, inspector: Inspector, report: InspectionReport, folder: Path) -> AuditRecord:
    """The record with its pictures written."""
    artifacts = inspector.deps.artifacts
    product = inspector.deps.product(report.product)
    anomaly_map, threshold = drawn_map(report, artifacts.get, product.pixel_threshold if product else None)
    rgb = artifacts.get(report.provenance["picture"]["rgb"])
    return record.model_copy(
        update={"pictures": write_pictures(report, rgb, anomaly_map, threshold, folder, record.id)}
    )


def undecided(evidence: Any = None) -> ReasonerReply:
    """A reasoner's answer that makes the graph ask a person."""
    return ReasonerReply(DraftReport(verdict=Verdict.REVIEW), 1.0, "scripted")


@contextmanager
def asking(loaded: LoadedSettings, database: Path) -> Iterator[tuple[Inspector, GraphThreads]]:
    """An inspector that asks about every part, on a database of its own."""
    with SqliteSaver.from_conn_string(str(database)) as saver, asking_with(loaded, saver) as found:
        yield found


@contextmanager
def asking_at(loaded: LoadedSettings, url: str) -> Iterator[tuple[Inspector, GraphThreads]]:
    """The same on checkpoints at an address, such as a PostgreSQL server's."""
    with open_checkpointer(url) as saver, asking_with(loaded, saver) as found:
        yield found


@contextmanager
def asking_with(loaded: LoadedSettings, saver: Any) -> Iterator[tuple[Inspector, GraphThreads]]:
    """The same on any checkpointer."""
    with Inspector(loaded, checkpointer=saver) as inspector:
        inspector.deps.__dict__["reasoner"] = FunctionReasoner(undecided)
        yield inspector, GraphThreads(inspector.graph, saver)


def desk_of(folder: Path, *audits: Path, **given: Any) -> ReviewDesk:
    """A desk with its journal in ``folder``."""
    return ReviewDesk(folder / "reviews", audits=audits, **given)
