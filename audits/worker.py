"""What inspects the lines of an audit; the same in every engine. It is made from plain data, so any process can."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..agent.artifacts import ArtifactStore
from ..agent.errors import BackendError, FlawscopeError, InputError
from ..agent.schemas import InspectionReport, Verdict
from ..agent.settings import SECRETS, LoadedSettings
from ..graphs.planned import PLAN_ID
from ..graphs.state import Action
from .masks import region_masks
from .pictures import drawn_map, write_pictures
from .records import (
    AuditRecord,
    CitedDocument,
    RecordError,
    Said,
    Timing,
    WorklistLine,
    record_error,
    trace_seconds,
)
from .worklist import Job, record_id

if TYPE_CHECKING:
    from ..agent.inspector import Inspector
    from ..graphs.straight import StraightInspection

Pictures = Literal["flagged", "all", "none"]
WITHOUT_EFFECT = SECRETS | {"home", "profile", "store", "ask_human", "second_person", "llm_concurrency", "llm_retries"}
"""Settings that no result depends on."""
HASH_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Basis:
    """What results depend on beside the picture.

    Attributes:
        settings_sha256: over all of it.
        versions: of Flawscope, backbone, product, plan and knowledge.
    """

    settings_sha256: str
    versions: dict[str, str | None]


@dataclass(frozen=True)
class Done:
    """A finished line, as it goes to the file.

    Attributes:
        id: of the record.
        data: the record as one line of JSON.
        verdict: its verdict.
        error: its error, None when it was inspected.
        spent: whether the process should be replaced, since it ran out of memory or met a defect of the program.
    """

    id: str
    data: bytes
    verdict: str
    error: RecordError | None
    spent: bool = False

    @classmethod
    def of(cls, record: AuditRecord, *, spent: bool = False) -> Done:
        """The record, spelt once."""
        data = record.model_dump_json().encode() + b"\n"
        return cls(record.id, data, record.verdict.value, record.error, spent)


@dataclass(frozen=True)
class InspectWorker:
    """Inspects lines.

    Attributes:
        loaded: settings.
        out: the audit's folder, for pictures.
        pictures: which records get pictures.
        threads: of the backbone; 1 where as many workers as cores run.
    """

    loaded: LoadedSettings
    out: str
    pictures: Pictures = "flagged"
    threads: int = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Only what it is made from goes to another process; models are loaded there."""
        return type(self), (self.loaded, self.out, self.pictures, self.threads)

    @cached_property
    def inspector(self) -> Inspector:
        """With the knowledge base in memory, which any number of processes may read, and without a person to ask."""
        from ..agent.inspector import Inspector

        settings = self.loaded.settings
        store = "memory" if settings.milvus_uri is None else settings.store
        changed = settings.model_copy(update={"store": store, "ask_human": False})
        inspector = Inspector(LoadedSettings(settings=changed, origins=self.loaded.origins))
        if settings.backbone == "efficientnet-lite2":
            from ..tools.backbones.onnx_lite import EfficientNetLite2

            inspector.deps.backbone = EfficientNetLite2(self.threads)
        return inspector

    @cached_property
    def _straight(self) -> StraightInspection:
        from ..graphs.straight import StraightInspection

        return StraightInspection(self.inspector.deps)

    def prepare(self, product: str | None) -> None:
        """Load what lines of a product need.

        Raises:
            FlawscopeError: it cannot be used.
        """
        self.inspector.prepare(product)

    def basis(self, product: str | None) -> Basis:
        """What results of a product depend on.

        Raises:
            FlawscopeError: the product, the weights or the knowledge base cannot be used.
        """
        from ..graphs.report import own_version

        deps = self.inspector.deps
        model, planned = deps.product(product), deps.plan(product)
        versions = {
            "flawscope": own_version(),
            "backbone": f"{deps.backbone.name} {deps.backbone.weights_sha256}",
            "reasoner": deps.reasoner.name,
            "knowledge": deps.knowledge.content_hash,
            "product": model.fingerprint if model else None,
            "plan": f"{planned[1].version} {planned[1].sha256}" if planned else None,
        }
        return basis_of(self.loaded, versions)

    def __call__(self, job: Job, basis: Basis) -> Done:
        """Inspect a line; whatever goes wrong with it is in its record.

        Args:
            job: the line.
            basis: of its product.
        """
        try:
            return Done.of(self._inspected(job, basis))
        except FlawscopeError as error:
            failure = RecordError(kind=error.code, message=str(error)[:2000], exit_code=error.exit_code)
            return Done.of(failed(job, basis, failure))
        except MemoryError:
            failure = RecordError(kind="memory", message="the picture needs more memory than allowed.", exit_code=7)
            return Done.of(failed(job, basis, failure), spent=True)
        except Exception as error:  # noqa: BLE001 - a defect that one picture meets must not cost the other thousands
            told = " ".join(f"{type(error).__name__}: {error}".split())
            memory = "alloc" in told.lower()  # what ONNX Runtime says when it gets no memory
            kind = "memory" if memory else "internal"
            failure = RecordError(kind=kind, message=told[:2000], exit_code=BackendError.exit_code)
            return Done.of(failed(job, basis, failure), spent=True)

    def _inspected(self, job: Job, basis: Basis) -> AuditRecord:
        begun = time.perf_counter()
        deps = self.inspector.deps
        deps.artifacts = ArtifactStore()  # nothing of the picture before stays: one may be huge
        report = self._straight.inspect(job.path, job.line.product)
        sha256 = report.sha256 or content_sha256(job.path)
        identity = record_id(job.identity, sha256, basis.settings_sha256)
        record = record_of(report, job.line, identity, sha256, basis)
        update: dict[str, Any] = {}
        if report.error is None:
            model = deps.product(job.line.product)
            picture = report.provenance["picture"]
            anomaly_map, threshold = drawn_map(report, deps.artifacts.get, model.pixel_threshold if model else None)
            if report.regions and anomaly_map is not None and record.size_px is not None:
                update["masks"] = region_masks(anomaly_map, threshold, report.regions, record.size_px)
            if self.pictures == "all" or (self.pictures == "flagged" and report.verdict is not Verdict.OK):
                rgb = deps.artifacts.get(picture["rgb"])
                update["pictures"] = write_pictures(report, rgb, anomaly_map, threshold, Path(self.out), identity)
            planned = deps.plan(job.line.product)
            if planned is not None and any(item.id == PLAN_ID for item in report.evidence):
                kind = report.defect_type.name if report.defect_type else None
                what = planned[0].consequence_of(kind)
                update |= {"severity": what.severity, "disposition": what.disposition, "reaction": what.reaction_plan}
        timing = Timing(
            seconds=time.perf_counter() - begun, steps=trace_seconds(report.trace), finished=record.timing.finished
        )
        return record.model_copy(update={**update, "timing": timing})


def basis_of(loaded: LoadedSettings, versions: dict[str, str | None]) -> Basis:
    """The hash over settings that matter and over versions."""
    values = loaded.settings.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
    own_rates = loaded.origins["false_alarm"].startswith(("default", "profile"))  # products' own hold then
    text = json.dumps([values, own_rates, versions], sort_keys=True)
    return Basis(hashlib.sha256(text.encode()).hexdigest(), versions)


def record_of(
    report: InspectionReport, line: WorklistLine, identity: str, sha256: str | None, basis: Basis
) -> AuditRecord:
    """What a report says, as a record without pictures, masks and plan."""
    cited = {item for claim in report.claims for item in claim.evidence_ids}
    actions = frozenset(get_args(Action))
    plain = report.model_dump(mode="json")
    plain["provenance"].pop("settings", None)  # in audit.json, once
    picture = report.provenance.get("picture", {})
    size = picture.get("original_size_px")
    return AuditRecord(
        id=identity,
        line=line,
        sha256=sha256,
        verdict=report.verdict,
        image_score=report.image_score,
        threshold=report.threshold,
        probability=report.probability,
        entropy=report.uncertainty.entropy,
        defect_type=report.defect_type,
        regions=report.regions,
        texts=_texts(report),
        documents=tuple(
            CitedDocument(
                evidence_id=item.id,
                doc_id=item.source,
                defect_type=str(item.values.get("defect_type") or ""),
                similarity=_number(item.values.get("similarity")),
                cited=item.id in cited,
            )
            for item in report.evidence
            if item.kind == "document"
        ),
        actions=tuple(step.action for step in report.trace if step.action in actions),
        flags=tuple(picture.get("flags", ())),
        size_px=(int(size[0]), int(size[1])) if size else None,
        thread_id=f"audit-{identity}" if report.verdict is Verdict.REVIEW and report.error is None else None,
        error=record_error(report.error) if report.error else None,
        settings_sha256=basis.settings_sha256,
        versions=basis.versions,
        report=plain,
        timing=Timing(finished=now()),
    )


def failed(job: Job, basis: Basis, error: RecordError, seconds: float | None = None) -> AuditRecord:
    """The record of a line without a report.

    Args:
        job: the line.
        basis: of its product.
        error: why.
        seconds: that it took, when that is known.
    """
    sha256 = content_sha256(job.path)
    return AuditRecord(
        id=record_id(job.identity, sha256, basis.settings_sha256),
        line=job.line,
        sha256=sha256,
        verdict=Verdict.REVIEW,
        error=error,
        settings_sha256=basis.settings_sha256,
        versions=basis.versions,
        timing=Timing(seconds=seconds, finished=now()),
    )


def without_product(job: Job, basis: Basis, error: FlawscopeError) -> Done:
    """The record of a line whose product cannot be used."""
    failure = RecordError(kind=error.code, message=str(error)[:2000], exit_code=error.exit_code)
    return Done.of(failed(job, basis, failure))


def content_sha256(path: str) -> str | None:
    """Hash of a picture's file; None when it cannot be read, also when the disk does not answer in time."""
    from threading import Thread

    from ..tools.imaging import file_sha256

    found: list[str] = []

    def read() -> None:
        try:
            found.append(file_sha256(path))
        except (InputError, MemoryError):
            return

    reader = Thread(target=read, daemon=True)  # a share that hangs must not hang the audit
    reader.start()
    reader.join(HASH_TIMEOUT_S)
    return found[0] if found else None


def now() -> str:
    """The time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _texts(report: InspectionReport) -> dict[str, Said]:
    """The report's sentences by field with what they cite; fields without words are left out."""
    texts = {
        "verdict": report.verdict_reason,
        "location": "; ".join(dict.fromkeys(region.place for region in report.regions)),
        "defect_type": report.defect_type.name if report.defect_type else "",
        **{name: getattr(report, name) for name in ("description", "root_cause", "consequence", "action")},
    }
    cites: dict[str, dict[str, None]] = {}
    for claim in report.claims:
        cites.setdefault(claim.field, {}).update(dict.fromkeys(claim.evidence_ids))
        texts[claim.field] = texts[claim.field] or claim.text
    return {name: Said(text=text, evidence_ids=tuple(cites.get(name, ()))) for name, text in texts.items() if text}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
