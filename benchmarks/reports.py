"""How usable are the reports that a vision-language model writes inside an inspection?

Products are learnt from their good references and a few examples of each defect type. Every picture drawn from the rest
goes through the whole graph twice: with the evidence reasoner, which needs no model, and with the model. What of a
model's answer could be read, what it decided, and what the last check and the verifier left of its words is read off
the reports themselves; see ``reports_tables`` for what is counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..agent.errors import BackendError, ConfigError, InputError
from ..agent.home import write_json_atomically
from ..agent.inspector import InspectionDeps, Inspector
from ..agent.schemas import InspectionReport
from ..agent.settings import LoadedSettings
from ..graphs.state import Action
from ..tools.ad_expert.zero_shot import ZeroShotConfig
from ..tools.enrolment import fit_product
from ..tools.product_model import ProductModel
from .datasets import LabelledPicture, ProductData, load_dataset
from .decisions import MIN_REFERENCES
from .reports_tables import EVIDENCE, MODEL, figures, render
from .run_folder import RunFolder, open_run

__all__ = ["Drawn", "draw", "render", "run_reports"]

LOG = "reports.jsonl"
EXAMPLES = 3
ACTIONS = frozenset(get_args(Action))
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Drawn:
    """What a product is learnt from, and what it is tested on.

    Attributes:
        product: with its references.
        examples: pictures of each defect type that it is taught to name; none of them is tested.
        tests: drawn pictures, good ones first.
    """

    product: ProductData
    examples: dict[str, tuple[Path, ...]]
    tests: tuple[LabelledPicture, ...]


def draw(product: ProductData, limit: int | None, examples: int, seed: int) -> Drawn:
    """Set examples aside and draw the test pictures, half of them good where there are enough.

    Args:
        product: with good and defective tests.
        limit: test pictures at most, 2 or more; all when None.
        examples: of each type, but never more than half of its pictures; 0 teaches no type.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)

    def shuffled(kind: str) -> list[LabelledPicture]:
        found = [picture for picture in product.tests if picture.defect_type == kind]
        return [found[i] for i in rng.permutation(len(found))]

    good = shuffled("good")
    taught: dict[str, tuple[Path, ...]] = {}
    left: list[list[LabelledPicture]] = []
    for kind in sorted({picture.defect_type for picture in product.tests if picture.is_defective}):
        mine = shuffled(kind)
        count = min(examples, len(mine) // 2)
        if count:
            taught[kind] = tuple(picture.path for picture in mine[:count])
        left.append(mine[count:])
    # one of each type, then a second of each, so that a few pictures show as many types as they can
    turns = range(max(len(mine) for mine in left))
    defective = [mine[turn] for turn in turns for mine in left if turn < len(mine)]
    if limit is not None:
        n_bad = max(min(len(defective), limit // 2), limit - len(good))
        good, defective = good[: limit - n_bad], defective[:n_bad]
    return Drawn(product, taught, (*good, *defective))


def run_reports(
    data: Path,
    loaded: LoadedSettings,
    *,
    products: Sequence[str] | None = None,
    limit: int | None = None,
    examples: int = EXAMPLES,
    seed: int = 0,
    weights: str = "",
    out: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Inspect every drawn picture with and without the model.

    Args:
        data: folder of products in any layout with good references, good and defective test pictures.
        loaded: settings that name a model as the reasoner; the other inspection has the same but for that.
        products: only these.
        limit: test pictures of each product at most.
        examples: of each defect type, set aside to teach the product its types.
        seed: of the draws.
        weights: what tells the model from others of its name, for ``out``.
        out: folder for the records; a run there goes on.
        progress: told about long work.

    Returns:
        Plain data: what was run, ``records`` (a picture each) and ``figures`` (`reports_tables.figures`).

    Raises:
        ConfigError: the settings name no model, no product has enough references, or ``out`` holds another run.
        InputError: the data or a picture cannot be used.
        FlawscopeError: the model cannot be loaded or failed.
    """
    if loaded.settings.reasoner == "evidence":
        raise ConfigError(
            "bench reports needs a vision-language model as the reasoner.",
            hint="Use --profile mini, another profile with a model, or --model.",
        )
    if limit is not None and limit < 2:
        raise ConfigError(f"a limit of {limit} pictures leaves no good or no defective ones.")
    found = load_dataset(data, products)
    drawn = [draw(p, limit, examples, seed) for p in found if len(p.references) >= MIN_REFERENCES]
    if not drawn:
        raise ConfigError(f"no product in {data} has {MIN_REFERENCES} references.")
    with _inspectors(loaded) as inspectors:
        progress("loading the model", 0, 1)
        inspectors[MODEL].prepare()
        progress("loading the model", 1, 1)
        deps = inspectors[MODEL].deps
        about = {
            "benchmark": "reports",
            "data": str(data.resolve()),
            "reasoner": deps.reasoner.name,
            "model": _model_name(deps),
            "weights": weights,
            "knowledge": deps.knowledge.content_hash,
            "backbone": deps.backbone.weights_sha256,
            "limit": limit,
            "examples": examples,
            "seed": seed,
            "products": [each.product.name for each in drawn],
            "settings": loaded.settings.model_dump(mode="json"),
        }
        kept: AbstractContextManager[RunFolder | None] = nullcontext() if out is None else open_run(out, about, log=LOG)
        with kept as folder:
            records = _inspect_all(drawn, inspectors, folder, progress)
    result = {
        **about,
        "title": data.resolve().name,
        "left_out": [p.name for p in found if len(p.references) < MIN_REFERENCES],
        "drawn": [
            {"product": each.product.name, "references": len(each.product.references), "types": sorted(each.examples)}
            for each in drawn
        ],
        "records": records,
        "figures": figures(records),
    }
    if out is not None:
        write_json_atomically(out / "result.json", result)
    return result


def _model_name(deps: InspectionDeps) -> str:
    """Of the model behind the reasoner; reasoners of other makes have none."""
    return str(getattr(getattr(deps.reasoner, "model", None), "name", deps.reasoner.name))


@contextmanager
def _inspectors(loaded: LoadedSettings) -> Iterator[dict[str, Inspector]]:
    """One with the evidence reasoner and one with the model; the same in all else, each with its pages in memory."""
    both: dict[str, dict[str, Any]] = {
        EVIDENCE: {"reasoner": "evidence", "latent": False, "prior_tokens": None, "calibrator": None},
        MODEL: {},
    }
    made = {}
    for name, changes in both.items():
        own = loaded.settings.model_copy(update={"store": "memory", **changes})
        made[name] = Inspector(loaded.model_copy(update={"settings": own}))
    with made[EVIDENCE], made[MODEL]:
        yield made


def _inspect_all(
    drawn: Sequence[Drawn], inspectors: dict[str, Inspector], folder: RunFolder | None, progress: Progress
) -> list[dict[str, Any]]:
    """A record for each picture, those of a run before included, in the order of the draw."""
    records: list[dict[str, Any]] = []
    total = sum(len(each.tests) for each in drawn)
    for each in drawn:
        name, learnt = each.product.name, False
        for picture in each.tests:
            key = f"{name}/{picture.defect_type}/{picture.path.name}"
            record = None if folder is None else folder.records.get(key)
            if record is None:
                if not learnt:
                    _teach(each, inspectors, progress)
                    learnt = True
                record = {
                    "picture": key,
                    "product": name,
                    "truth": picture.defect_type,
                    "nameable": picture.defect_type in each.examples,
                    **{who: _inspected(inspector, picture, name) for who, inspector in inspectors.items()},
                }
                if folder is not None:
                    folder.add(record)
            records.append(record)
            progress("pictures", len(records), total)
    return records


def _teach(each: Drawn, inspectors: dict[str, Inspector], progress: Progress) -> None:
    """Learn the product once, for both inspectors; a control plan that the home has for its name is no part of it."""
    deps, name = inspectors[MODEL].deps, each.product.name
    with tempfile.TemporaryDirectory(prefix="flawscope-reports-") as folder:
        model: ProductModel = fit_product(
            name,
            [str(path) for path in each.product.references],
            deps.backbone,
            defects=_as_folders(each.examples, Path(folder)),
            max_pixels=deps.settings.max_pixels,
            anchors=deps.anchors,
            words=ZeroShotConfig(deps.settings.loc_mode),
            head=deps.head,
            progress=progress,
        )
    for inspector in inspectors.values():
        inspector.deps.products[name] = model
        inspector.deps.plans[name] = None
        inspector.prepare(name)
        _inspected(inspector, LabelledPicture(each.product.references[0], "good"), name)  # a first look is slower


def _as_folders(examples: dict[str, tuple[Path, ...]], folder: Path) -> Path | None:
    """One subfolder for each type, as enrolling takes them; None without any."""
    for kind, paths in examples.items():
        (folder / kind).mkdir()
        for path in paths:
            (folder / kind / path.name).symlink_to(path.resolve())
    return folder if examples else None


def _inspected(inspector: Inspector, picture: LabelledPicture, product: str) -> dict[str, Any]:
    """What is counted of one report.

    Raises:
        InputError: the picture cannot be read.
        BackendError: the model failed.
    """
    begun = time.perf_counter()
    report = inspector.inspect(picture.path, product=product)
    seconds = time.perf_counter() - begun
    if report.error is not None:
        kind = InputError if report.error.code == InputError.code else BackendError
        raise kind(f"{picture.path} was not inspected: {report.error.message}")
    return _counted(report, seconds)


def _counted(report: InspectionReport, seconds: float) -> dict[str, Any]:
    answer = report.provenance["answer"]
    said = answer.get("said", {})
    return {
        "verdict": report.verdict.value,
        "type": None if report.defect_type is None else report.defect_type.name,
        "entropy": report.uncertainty.entropy,
        "retries": [step.action for step in report.trace if step.action in ACTIONS],
        "usable": said.get("usable"),
        "repaired": answer["usage"].get("repaired"),
        "said_verdict": said.get("verdict"),
        "said_type": said.get("defect_type"),
        "written": said.get("sentences"),
        "kept": len(report.claims),
        "seconds": seconds,
    }
