"""Latency and peak memory of a vision-language model with and without each module.

Each setting runs in a process of its own, so that its peak is its own, and gathers its evidence anew for every picture,
as an inspection does. ADSeeker reports for its modules on Qwen2.5-VL-7B 22.63 -> 28.36 GiB and 4.47 -> 6.14 s a picture
(arXiv 2508.03088).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..agent.errors import BackendError
from ..agent.settings import load_settings
from .memory import resident_peak_mb
from .mmad.arms import BY_NAME
from .mmad.scoring import DETECTION
from .mmad.tables import markdown, number
from .untouched import untouched_tests

PUBLISHED_MEMORY_GIB = (22.63, 28.36)
PUBLISHED_SECONDS = (4.47, 6.14)
WARM_UP = 2
SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("model alone", "A0", ""),
    ("+ a reference picture", "A1", "model alone"),
    ("+ pages", "A3", "+ a reference picture"),
    ("+ the expert's evidence", "A5", "+ pages"),
    ("+ prior tokens", "A6", "+ the expert's evidence"),
    ("+ latent reasoning", "A8", "+ the expert's evidence"),
    ("+ retries", "A9", "+ the expert's evidence"),
)
"""(name, arm, name of the setting that it is compared with)."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Attributes:
        data: set in MMAD's layout.
        workshop: home of its own.
        arm: row of the ladder.
        pictures: asked about, after the warm-up.
        flags: settings of the model, JSON values.
    """

    data: str
    workshop: str
    arm: str
    pictures: int
    flags: dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a setting costs.

    Attributes:
        name: of the setting.
        against: of the setting that it is compared with; empty for the first.
        p50_s: median seconds a picture, evidence included.
        p95_s: 95th percentile.
        evidence_s: median seconds of gathering the evidence.
        peak_mb: highest resident memory of the process; None where the kernel does not tell.
        missing: why it was not measured; empty when it was.
    """

    name: str
    against: str
    p50_s: float = 0.0
    p95_s: float = 0.0
    evidence_s: float = 0.0
    peak_mb: float | None = None
    missing: str = ""


def run_efficiency(
    data: Path, workshop: Path, flags: Mapping[str, Any], pictures: int, progress: Progress
) -> dict[str, Any]:
    """Measure every setting.

    Args:
        data: set in MMAD's layout.
        workshop: home of its own for the set; see `flawscope.benchmarks.mmad.workshop`.
        flags: settings of the model: reasoner, vlm_weights, prior_tokens, profile.
        pictures: asked about in each setting.
        progress: told after each.

    Raises:
        BackendError: a measuring process failed.
    """
    rows = []
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()}
    for done, (name, arm, against) in enumerate(SETTINGS, start=1):
        if arm == "A6" and plain.get("prior_tokens") is None:
            rows.append(Cost(name, against, missing="no prior tokens are trained for this model"))
        else:
            measured = _in_a_process(Job(str(data), str(workshop), arm, pictures, plain))
            rows.append(Cost(name, against, **measured))
        progress("efficiency", done, len(SETTINGS))
    return {"title": data.name, "pictures": pictures, "rows": rows}


def _in_a_process(job: Job) -> dict[str, Any]:
    command = [sys.executable, "-m", "flawscope.benchmarks.efficiency", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"measuring {job.arm} failed: {last[:300]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(job: Job) -> dict[str, Any]:
    """Measure one setting in this process.

    Raises:
        FlawscopeError: the model, the set or the workshop cannot be used.
    """
    from ..agent.vision_language.loading import load_model
    from .ablation import prior_tokens_for
    from .mmad.asking import Asking
    from .mmad.evidence import EvidenceSource
    from .mmad.questions import load_items
    from .mmad.run import chosen_items
    from .mmad.workshop import open_workshop

    arm = BY_NAME[job.arm]
    items = load_items(Path(job.data))
    asked = chosen_items(items, tasks=[DETECTION])
    step = max(1, len(asked) // (job.pictures + WARM_UP))
    asked = asked[::step][: job.pictures + WARM_UP]
    model = load_model(load_settings(job.flags))
    loaded = load_settings({**job.flags, "reasoner": "evidence", "home": Path(job.workshop)})
    deps = open_workshop(loaded, items) if arm.pages or arm.told else None
    tokens = None if deps is None else prior_tokens_for(loaded, model, deps.backbone, [arm])
    source = None if deps is None else EvidenceSource(deps, items.root, tokens, live=True, looks=arm.retries)
    asking = Asking(model, items.root)
    whole, evidence_s = [], []
    for item in asked:
        begun = time.perf_counter()
        evidence = None if source is None else source.of(item)
        gathered = time.perf_counter() - begun
        asking.line(item, arm, evidence)
        whole.append(time.perf_counter() - begun)
        evidence_s.append(gathered)
    if deps is not None:
        deps.close()
    times = sorted(whole[WARM_UP:])
    return {
        "p50_s": statistics.median(times),
        "p95_s": times[min(len(times) - 1, int(0.95 * len(times)))],
        "evidence_s": statistics.median(evidence_s[WARM_UP:]),
        "peak_mb": resident_peak_mb(),
    }


def render(result: Mapping[str, Any]) -> str:
    """A result of ``run_efficiency`` as Markdown, beside what ADSeeker reports."""
    rows: Sequence[Cost] = result["rows"]
    by_name = {row.name: row for row in rows}
    body = []
    for row in rows:
        if row.missing:
            body.append([row.name, row.missing, "", "", "", "", ""])
            continue
        other = by_name.get(row.against)
        body.append(
            [
                row.name,
                f"{1e3 * row.p50_s:.0f}",
                f"{1e3 * row.p95_s:.0f}",
                f"{1e3 * row.evidence_s:.0f}",
                number(row.peak_mb, 0),
                "" if other is None else f"{1e3 * (row.p50_s - other.p50_s):+.0f}",
                _more(row.peak_mb, None if other is None else other.peak_mb),
            ]
        )
    before, after = PUBLISHED_MEMORY_GIB
    seconds_before, seconds_after = PUBLISHED_SECONDS
    cells = [f"{1e3 * seconds_after:.0f}", "", "", f"{1024 * 1.048576 * after:.0f}"]
    gains = [f"{1e3 * (seconds_after - seconds_before):+.0f}", f"{100 * (after / before - 1):+.0f}%"]
    body.append(["ADSeeker on Qwen2.5-VL-7B, reported", *cells, *gains])
    head = ["", "p50 ms", "p95 ms", "of it evidence", "peak MB", "ms more", "memory more"]
    about = f"{result['title']}: {result['pictures']} pictures a setting, one question each, each setting in a process."
    return f"{about}\n\n{markdown(head, body)}"


def _more(peak: float | None, other: float | None) -> str:
    return "" if peak is None or other is None else f"{100 * (peak / other - 1):+.0f}%"


def main() -> None:
    """Measure one setting in this process, which `run_efficiency` starts for each."""
    parser = argparse.ArgumentParser(description="One setting of bench efficiency, in a process of its own.")
    parser.add_argument("job", type=json.loads, help="the setting as JSON")
    sys.stdout.write(json.dumps(measure(Job(**parser.parse_args().job))) + "\n")


if __name__ == "__main__":
    with untouched_tests():
        main()
