"""What an inspection costs beside the backbone's own forward pass, and a cold start beside its bare imports.

Warm: real pictures as files, a product enrolled on 16 references, the shipped knowledge base in Milvus Lite, one
process, no chat, no overlay. Each picture is inspected, then its prepared copy goes through the backbone alone, in
turn, so that other work on the machine slows both. Ratios are formed per picture, and their median is reported. The
default configuration is what the targets speak of; the first round alone (``max_actions=0``) is shown beside it,
because only doubtful pictures pay for further looks.

Cold: new processes with warm caches, in turn with processes that only import what the inspection had imported of
other projects.

Run: ``python -m flawscope.benchmarks.speed --data DIR``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..agent.errors import BackendError, InputError
from ..agent.inspector import Inspector
from ..agent.settings import LoadedSettings, load_settings
from ..tools.ad_expert.expert import prepare
from ..tools.imaging import load_image
from ..tools.products import enroll_product
from .datasets import ProductData, load_dataset
from .untouched import untouched_tests

if TYPE_CHECKING:
    from ..agent.schemas import InspectionReport

PRODUCTS = ("transistor", "solar_cell_mono", "magnetic_tile", "textile")
REFERENCES = 16
PICTURES = 12
ROUNDS = 3
COLD_RUNS = 5
STAGES = (
    "load",
    "resize",
    "forward",
    "localise",
    "retrieve",
    "classify",
    "reason",
    "verify",
    "graph+report",
    "actions",
)
WHOLE_TARGET, REST_TARGET, COLD_TARGET, HELP_TARGET, MEMORY_TARGET_MB = 2.5, 1.0, 1.5, 2.0, 1000.0
ACTIONS = frozenset({"zoom", "reference", "self_consistency", "more_docs"})
HEAVY = ("torch", "pymilvus", "langgraph", "sklearn", "onnxruntime")
"""What ``--help`` must not import."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class WarmRow:
    """One product under one configuration; milliseconds are medians over pictures, ratios medians of ratios.

    Attributes:
        product: name.
        further_looks: whether the retry loop could act (the default).
        whole: an inspection, ms.
        forward: the backbone alone on the prepared picture, ms.
        ratio: whole by forward.
        rest_ratio: everything but load, resize, forward and localise, by forward. Retrieval counts in full although it
            runs beside localising.
        acted: share of pictures that took a further look.
        stages: ms per stage.
    """

    product: str
    further_looks: bool
    whole: float
    forward: float
    ratio: float
    rest_ratio: float
    acted: float
    stages: dict[str, float]


@dataclass(frozen=True)
class ColdResult:
    """New processes, medians in seconds.

    Attributes:
        inspect_s: one picture from the command line, caches warm.
        imports_s: only importing the other projects' modules that it had imported.
        modules: how many those are.
        help_s: ``--help``.
        typer_rich_s: ``import typer, rich``.
        help_imports: modules of ``HEAVY`` that ``--help`` imported; should be empty.
        peak_mb: largest resident memory of an inspect.
    """

    inspect_s: float
    imports_s: float
    modules: int
    help_s: float
    typer_rich_s: float
    help_imports: tuple[str, ...]
    peak_mb: float


@dataclass
class SpeedResult:
    """What was measured; ``cold`` is None when it was not asked for."""

    warm: list[WarmRow] = field(default_factory=list)
    cold: ColdResult | None = None


def run_speed(
    data: Path,
    *,
    products: Sequence[str] | None = None,
    cold: bool = True,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
) -> SpeedResult:
    """Measure warm inspections per product and, with the first product, a cold start.

    Args:
        data: folder of products in the MVTec layout.
        products: these; by default those of ``PRODUCTS`` that the folder has.
        cold: also start new processes.
        rounds: times that each picture is inspected.
        progress: told a line now and then.

    Raises:
        InputError: the folder holds none of the products.
        BackendError: a new process failed.
    """
    tell = progress or (lambda text: None)
    wanted = products or [name for name in PRODUCTS if (data / name).is_dir()]
    if not wanted:
        raise InputError(f"{data} has none of {', '.join(PRODUCTS)}.", hint="Give a folder of products.")
    result = SpeedResult()
    with tempfile.TemporaryDirectory(prefix="flawscope-speed-") as home:
        chosen = load_dataset(data, wanted)
        for product in chosen:
            result.warm += _warm(product, Path(home), rounds, tell)
        if cold:
            result.cold = _cold(chosen[0], Path(home), tell)
    return result


def _settings(home: Path, **flags: Any) -> LoadedSettings:
    return load_settings({"home": home, **flags}, environ={})


def _warm(product: ProductData, home: Path, rounds: int, tell: Progress) -> list[WarmRow]:
    with ExitStack() as stack:
        inspectors = {
            looks: stack.enter_context(Inspector(_settings(home, **({} if looks else {"max_actions": 0}))))
            for looks in (False, True)
        }
        tell(f"{product.name}: enrolling")
        first = inspectors[False].deps
        enroll_product(first.home.products, product.name, product.references[:REFERENCES], first.backbone)
        paths = [picture.path for picture in product.tests]
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, min(PICTURES, len(paths))).astype(int)]
        for inspector in inspectors.values():
            inspector.inspect(paths[0], product=product.name)  # whatever is loaded late is loaded now
        taken: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for number in range(rounds):
            tell(f"{product.name}: round {number + 1} of {rounds}")
            for path in paths:
                for looks, inspector in inspectors.items():
                    taken[looks].append(_once(inspector, path, product.name))
    return [_row(product.name, looks, samples) for looks, samples in taken.items()]


def _once(inspector: Inspector, path: Path, product: str) -> dict[str, float]:
    """One inspection and one bare forward pass of the same picture, milliseconds per stage."""
    begun = time.perf_counter()
    report = inspector.inspect(path, product=product)
    whole = time.perf_counter() - begun
    model = inspector.deps.product(product)
    backbone: Any = inspector.deps.backbone
    if model is None or report.error is not None:
        raise BackendError(f"{path} could not be inspected: {report.verdict_reason}")
    rgb = load_image(path).rgb
    begun = time.perf_counter()
    batch = prepare(rgb, model.expert.config)[None]
    resized = time.perf_counter()
    backbone.run_stages(batch, ("stride8", "stride16"))
    ended = time.perf_counter()
    return _split(report, whole, resized - begun, ended - resized)


def _split(report: InspectionReport, whole: float, resize: float, forward: float) -> dict[str, float]:
    """Stages from the trace; what no step accounts for is the graph and the report. Seconds in, milliseconds out."""
    seconds = dict.fromkeys(("load", "encode", "localise", "retrieve", "classify", "reason", "verify", "actions"), 0.0)
    for entry in report.trace:
        seconds["actions" if entry.action in ACTIONS else entry.action] += entry.seconds
    beside = min(seconds["localise"], seconds["retrieve"])  # the two run at the same time
    graph = whole - (sum(seconds.values()) - beside)
    acted = any(entry.action in ACTIONS for entry in report.trace)
    rest = sum(seconds[name] for name in ("retrieve", "classify", "reason", "verify", "actions")) + graph
    stages = {**seconds, "resize": resize, "forward": seconds["encode"] - resize, "graph+report": graph}
    times = {"whole": whole, "bare": forward, "rest": rest, **{name: stages[name] for name in STAGES}}
    return {**{name: 1e3 * value for name, value in times.items()}, "acted": float(acted)}


def _row(product: str, looks: bool, samples: Sequence[dict[str, float]]) -> WarmRow:
    def median(name: str, by: str | None = None) -> float:
        return statistics.median(sample[name] / (sample[by] if by else 1.0) for sample in samples)

    return WarmRow(
        product=product,
        further_looks=looks,
        whole=median("whole"),
        forward=median("bare"),
        ratio=median("whole", "bare"),
        rest_ratio=median("rest", "bare"),
        acted=statistics.fmean(sample["acted"] for sample in samples),
        stages={name: median(name) for name in STAGES},
    )


# --- new processes ----------------------------------------------------------------------------------------------------

_LIST_MODULES = """
import json, sys
asked = []
class Recorder:  # sys.modules is in the order of completion, in which circular imports fail
    @staticmethod
    def find_spec(name, path=None, target=None):
        asked.append(name)
sys.meta_path.insert(0, Recorder)
sys.argv = ["flawscope", *json.loads(sys.argv[1])]
from flawscope.cli import main
try:
    main()
except SystemExit:
    pass
found = [n for n in dict.fromkeys(asked) if "site-packages" in (getattr(sys.modules.get(n), "__file__", None) or "")]
sys.stderr.write("\\nMODULES " + json.dumps([n for n in found if not n.startswith(("flawscope", "__editable__"))]))
"""
_PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
if b"Traceback" in done.stderr:
    sys.exit(done.stderr.decode(errors="replace").strip()[-200:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
_IMPORT = """
import importlib, importlib.util, json, sys
for name in json.load(open(sys.argv[1])):
    if name not in sys.modules and importlib.util.find_spec(name):  # some compiled parts cannot be imported by name
        importlib.import_module(name)
"""


def _cold(product: ProductData, home: Path, tell: Progress) -> ColdResult:
    picture = str(next(test.path for test in product.tests if not test.is_defective))
    arguments = ["inspect", picture, "--product", product.name, "--home", str(home), "--json", "--no-chat"]
    modules = _imported(arguments)
    listing = home / "modules.json"
    listing.write_text(json.dumps(modules), encoding="utf-8")
    commands = {
        "inspect": ["-m", "flawscope.cli", *arguments],
        "imports": ["-c", _IMPORT, str(listing)],
        "help": ["-m", "flawscope.cli", "--help"],
        "typer": ["-c", "import typer, rich"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(COLD_RUNS):
        tell(f"new processes, run {run + 1} of {COLD_RUNS}")
        for name, command in commands.items():
            times[name].append(_timed(command))
    middle = {name: statistics.median(values) for name, values in times.items()}
    loaded = {name.partition(".")[0] for name in _imported(["--help"])}
    return ColdResult(
        inspect_s=middle["inspect"],
        imports_s=middle["imports"],
        modules=len(modules),
        help_s=middle["help"],
        typer_rich_s=middle["typer"],
        help_imports=tuple(name for name in HEAVY if name in loaded),
        peak_mb=peak_mb(commands["inspect"]),
    )


def _imported(arguments: Sequence[str]) -> list[str]:
    """Modules of other projects that a command had imported when it ended, in the order of their import."""
    done = subprocess.run(
        [sys.executable, "-c", _LIST_MODULES, json.dumps(list(arguments))], capture_output=True, text=True, check=False
    )
    _, found, listing = done.stderr.rpartition("\nMODULES ")
    if not found:
        raise BackendError(f"flawscope {' '.join(arguments)} failed: {done.stderr.strip()[-200:]}")
    names: list[str] = json.loads(listing.partition("\n")[0])
    return names


def _timed(command: Sequence[str]) -> float:
    """Seconds that a new process takes."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, check=False)
    seconds = time.perf_counter() - begun
    if b"Traceback" in done.stderr or done.returncode not in (0, 1, 3):  # OK, NG and REVIEW are all good ends
        raise BackendError(f"{' '.join(command[:3])} ended with exit code {done.returncode}.")
    return seconds


def peak_mb(command: Sequence[str]) -> float:
    """Largest resident memory of a new Python process, MB; asked of a small process between, as a fork inherits it.

    Args:
        command: arguments of the interpreter.

    Raises:
        BackendError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, sys.executable, *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackendError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-200:]}")
    return float(done.stdout) / (2**20 if sys.platform == "darwin" else 2**10)


# --- the tables -------------------------------------------------------------------------------------------------------


def render(result: SpeedResult) -> str:
    """Plain text of 80 columns."""
    lines = []
    for looks, title in ((True, "default configuration"), (False, "first round only (max_actions 0)")):
        rows = [row for row in result.warm if row.further_looks == looks]
        if not rows:
            continue
        lines += [f"warm inspection, {title}: median ms", f"{'':<22}" + "".join(f"{r.product[:13]:>14}" for r in rows)]
        lines.append(f"{'whole':<22}" + "".join(f"{r.whole:>14.1f}" for r in rows))
        lines.append(f"{'bare forward pass':<22}" + "".join(f"{r.forward:>14.1f}" for r in rows))
        lines += [f"  {stage:<20}" + "".join(f"{r.stages[stage]:>14.1f}" for r in rows) for stage in STAGES]
        lines.append(f"{'further looks at':<22}" + "".join(f"{100 * r.acted:>13.0f}%" for r in rows))
        lines.append(f"{'whole / forward':<22}" + "".join(f"{r.ratio:>14.2f}" for r in rows))
        lines.append(f"{'rest / forward':<22}" + "".join(f"{r.rest_ratio:>14.2f}" for r in rows))
        worst, rest = max(r.ratio for r in rows), max(r.rest_ratio for r in rows)
        lines += [f"worst {_against(worst, WHOLE_TARGET)}, rest {_against(rest, REST_TARGET)}", ""]
    lines.append("rest: all but load, resize, forward and localise; retrieve counts in full beside localise")
    if result.cold is not None:
        c = result.cold
        lines += [
            "",
            f"cold inspect {c.inspect_s:.2f} s, its {c.modules} imports alone {c.imports_s:.2f} s: "
            + _against(c.inspect_s / c.imports_s, COLD_TARGET),
            f"--help {c.help_s:.2f} s, import typer, rich {c.typer_rich_s:.2f} s: "
            + _against(c.help_s / c.typer_rich_s, HELP_TARGET),
            f"--help imports of {', '.join(HEAVY)}: {', '.join(c.help_imports) or 'none'}",
            f"peak memory of an inspect {c.peak_mb:.0f} MB ({'met' if c.peak_mb < MEMORY_TARGET_MB else 'MISSED'}: "
            f"below {MEMORY_TARGET_MB:.0f})",
        ]
    return "\n".join(lines)


def _against(ratio: float, target: float) -> str:
    return f"{ratio:.2f} ({'met' if ratio <= target else 'MISSED'}: at most {target:.1f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this benchmark alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of products in the MVTec layout")
    parser.add_argument("--products", help="only these, separated by commas")
    parser.add_argument("--warm-only", action="store_true", help="start no new processes")
    options = parser.parse_args(arguments)

    def tell(text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201

    products = options.products.split(",") if options.products else None
    print(render(run_speed(options.data, products=products, cold=not options.warm_only, progress=tell)))  # noqa: T201


if __name__ == "__main__":
    with untouched_tests():
        main()
