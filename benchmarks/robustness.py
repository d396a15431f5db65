"""What changes of capture cost: image AUROC, and false alarms of a threshold that was set before the change.

Products are enrolled on clean references as a user would enrol them. Then every test picture is judged as it is and
under each change of ``corruptions`` at three grades; references are never changed. The false-alarm rate is the share of
good test pictures whose first look reaches the threshold calibrated on the references at the stated rate. A defect that
a movement carries out of the picture stays labelled as defective, so the moved grades include that loss.

Run: ``python -m flawscope.benchmarks.robustness --data DIR``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import ConfigError
from ..tools.backbones import Backbone, load_backbone
from ..tools.enrolment import fit_product
from ..tools.imaging import load_image
from ..tools.product_model import ProductModel
from .corruptions import GRADES, KINDS, STRENGTHS, corrupt
from .datasets import ProductData, load_dataset
from .detection_metrics import image_auroc
from .fewshot import MIN_GOOD_TESTS, draw_references
from .untouched import untouched_tests
from .zsad import select

if TYPE_CHECKING:
    from rich.console import Group

SHOTS = 16
FALSE_ALARM = 0.05
"""Stated rate, the default of an inspection."""
CLEAN = ("clean", 0)

Progress = Callable[[str], None]
Condition = tuple[str, int]
"""(kind, grade); CLEAN is the picture as it is."""


def run_robustness(
    data: Path,
    shots: int = SHOTS,
    seed: int = 0,
    products: Sequence[str] | None = None,
    limit: int | None = None,
    kinds: Sequence[str] = KINDS,
    progress: Progress | None = None,
    backbone: Backbone | None = None,
) -> dict[str, Any]:
    """Judge clean and changed test pictures of every product of a data folder.

    Args:
        data: folder of products in the MVTec layout.
        shots: good references per product, the first draw of ``bench fewshot``; all where there are fewer.
        seed: of directions, signs and noise.
        products: only these.
        limit: at most so many test pictures a product.
        kinds: of changes.
        progress: told a line now and then.
        backbone: the embedded one by default.

    Returns:
        Plain data: ``shots``, ``seed``, ``limit``, ``kinds``, ``products`` (each ``product``, ``in_macro``, ``basis``
        of its threshold and ``conditions``: (kind, grade) -> image_auroc, false_alarms) and ``macro``: likewise, means
        over the products of the macro mean.

    Raises:
        ConfigError: no references, an unknown kind, or a limit that leaves nothing.
        InputError: the data folder or a picture cannot be used.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or shots < 1 or (limit is not None and limit < 2):
        wrong = f"the kinds {unknown}" if unknown else f"{shots} references and a limit of {limit} pictures"
        raise ConfigError(f"cannot measure {wrong}.", hint=f"Kinds: {', '.join(KINDS)}.")
    if backbone is None:
        backbone = load_backbone("efficientnet-lite2")
    tell = progress or (lambda text: None)
    conditions = [CLEAN, *((kind, grade) for kind in kinds for grade in GRADES)]
    rows = [_run_product(p, backbone, shots, seed, limit, conditions, tell) for p in load_dataset(data, products)]
    counted = [row["conditions"] for row in rows if row["in_macro"]]
    macro = {c: {f: float(np.mean([row[c][f] for row in counted])) for f in _FIGURES} for c in conditions if counted}
    shared = {"shots": shots, "seed": seed, "limit": limit, "kinds": tuple(kinds)}
    return {**shared, "products": rows, "macro": macro}


_FIGURES = ("image_auroc", "false_alarms")


def _run_product(
    product: ProductData,
    backbone: Backbone,
    shots: int,
    seed: int,
    limit: int | None,
    conditions: Sequence[Condition],
    tell: Progress,
) -> dict[str, Any]:
    available = len(product.references)
    tell(f"{product.name}: enrolling")
    chosen = [str(product.references[i]) for i in draw_references(available, min(shots, available), 0)]
    model = fit_product(product.name, chosen, backbone)
    tests = select(product.tests, limit)
    scores = np.empty((len(conditions), len(tests)))
    alarms = np.empty((len(conditions), len(tests)), bool)
    basis = "uncalibrated"
    for number, picture in enumerate(tests):
        if number % 10 == 0:
            tell(f"{product.name}: picture {number + 1} of {len(tests)} in {len(conditions)} conditions")
        rgb = load_image(str(picture.path), value_range=model.value_range).rgb
        for row, (kind, grade) in enumerate(conditions):
            changed = rgb if (kind, grade) == CLEAN else corrupt(rgb, kind, grade, seed=seed, number=number)
            scores[row, number], alarms[row, number], basis = _first_look(model, changed)
    defective = np.array([picture.is_defective for picture in tests])
    figures = {
        condition: {
            "image_auroc": image_auroc(scores[row], defective),
            "false_alarms": float(alarms[row, ~defective].mean()),
        }
        for row, condition in enumerate(conditions)
    }
    in_macro = int((~product.labels).sum()) >= MIN_GOOD_TESTS and available >= shots
    return {"product": product.name, "in_macro": in_macro, "basis": basis, "conditions": figures}


def _first_look(model: ProductModel, rgb: NDArray[np.uint8]) -> tuple[float, bool, str]:
    """image_score, whether it alarms, and how the threshold was found; no alarm without a calibration."""
    found = model.localise(model.expert.encode(model.backbone, rgb), rgb)
    views = {"whole": found.image_score, **({} if found.tile_score is None else {"tiles": found.tile_score})}
    decision = model.calibration.decide(views, FALSE_ALARM)
    if decision.score is None or decision.threshold is None:
        return found.image_score, False, decision.basis
    return found.image_score, decision.score >= decision.threshold, decision.basis


def render(result: dict[str, Any]) -> Group:
    """Two tables, a line per kind of change with its three grades: loss of AUROC in points, false alarms in percent."""
    from rich.console import Group

    names = [row["product"] if row["in_macro"] else f"{row['product']} *" for row in result["products"]]
    columns = dict(zip(names, (row["conditions"] for row in result["products"]), strict=True))
    if result["macro"]:
        columns["macro"] = result["macro"]
    uncalibrated = [row["product"] for row in result["products"] if row["basis"] == "uncalibrated"]
    notes = [
        f"{result['shots']} clean references, threshold at a stated rate of {100 * FALSE_ALARM:.0f}%, grades 1 2 3 of "
        f"each change, seed {result['seed']}"
        + (f", {result['limit']} pictures a product at most" if result["limit"] else ""),
        *(
            [f"* not in the macro mean: fewer than {MIN_GOOD_TESTS} good test pictures or too few references."]
            if any(not row["in_macro"] for row in result["products"])
            else []
        ),
        *([f"no threshold, hence no alarm, for {', '.join(uncalibrated)}: too few references"] if uncalibrated else []),
    ]
    return Group(_losses(columns, result["kinds"]), _false_alarms(columns, result["kinds"]), *notes)


_Columns = dict[str, dict[Condition, dict[str, float]]]


def _losses(columns: _Columns, kinds: Sequence[str]) -> Any:
    table = _table("loss of image AUROC, points", columns)
    table.add_row("clean, %", "", *(f"{100 * found[CLEAN]['image_auroc']:.1f}" for found in columns.values()))
    table.add_section()
    for kind in kinds:
        cells = [
            " ".join(f"{100 * (found[CLEAN]['image_auroc'] - found[kind, g]['image_auroc']):5.1f}" for g in GRADES)
            for found in columns.values()
        ]
        table.add_row(kind, " ".join(f"{strength:g}" for strength in STRENGTHS[kind]), *cells)
    return table


def _false_alarms(columns: _Columns, kinds: Sequence[str]) -> Any:
    table = _table("false alarms, % of good pictures", columns)
    table.add_row("clean", "", *(f"{100 * found[CLEAN]['false_alarms']:.0f}" for found in columns.values()))
    table.add_section()
    for kind in kinds:
        cells = [" ".join(f"{100 * found[kind, g]['false_alarms']:3.0f}" for g in GRADES) for found in columns.values()]
        table.add_row(kind, " ".join(f"{strength:g}" for strength in STRENGTHS[kind]), *cells)
    return table


def _table(title: str, columns: _Columns) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("change", no_wrap=True)
    table.add_column("strengths", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this benchmark alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of products in the MVTec layout")
    parser.add_argument("--shots", type=int, default=SHOTS, help="good references per product")
    parser.add_argument("--seed", type=int, default=0, help="of directions, signs and noise")
    parser.add_argument("--products", help="only these, separated by commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="only these changes, separated by commas")
    parser.add_argument("--limit", type=int, help="test pictures per product at most")
    options = parser.parse_args(arguments)
    from rich.console import Console

    def tell(text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201

    names = options.products.split(",") if options.products else None
    kinds = options.kinds.split(",")
    result = run_robustness(options.data, options.shots, options.seed, names, options.limit, kinds, tell)
    Console(width=160).print(render(result))


if __name__ == "__main__":
    with untouched_tests():
        main()
