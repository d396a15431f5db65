"""Are the decisions what they say: false alarms against the stated rate, detection, calibration, REVIEW and retries.

Each product is learnt from all its good references and nothing else; the held-out pictures then go through the whole
inspection graph, once without the retry loop and once with it, at each stated false-alarm rate.

Run: ``python -m flawscope.benchmarks.decisions --data DIR``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..agent.inspector import Inspector
from ..agent.schemas import InspectionReport, Verdict
from ..agent.settings import load_settings
from ..graphs.routing import VIEW_ACTIONS
from ..tools.ad_expert.calibration import Calibration
from ..tools.ad_expert.expert import ExpertConfig, FittedExpert, prepare
from ..tools.ad_expert.reference_views import fit_references
from ..tools.backbones import VisualFeatures, load_backbone
from ..tools.enrolment import fit_product
from ..tools.imaging import load_image
from .datasets import ProductData, load_dataset
from .detection_metrics import clopper_pearson, expected_calibration_error
from .untouched import untouched_tests

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

RATES = (0.05, 0.10)
MIN_REFERENCES = 20
"""Products with fewer references cannot support the rates; they are left out by name."""

SHUFFLES = 5

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Decisions:
    """What happened to the held-out pictures of one product at one stated rate, with or without retries.

    Attributes:
        product: name.
        references: number of good references.
        stated: false-alarm rate asked for.
        retries: whether the loop was on.
        defective: bool (n,), the truth.
        alarmed: bool (n,), score at or above the threshold after the last look, whatever the verdict.
        verdicts: OK, NG or REVIEW of each picture.
        probabilities: float64 (n,).
        actions: mean number of retry actions per picture.
    """

    product: str
    references: int
    stated: float
    retries: bool
    defective: NDArray[np.bool_]
    alarmed: NDArray[np.bool_]
    verdicts: tuple[Verdict, ...]
    probabilities: NDArray[np.float64]
    actions: float

    @property
    def false_alarms(self) -> tuple[int, int]:
        """Alarming good pictures, and all good pictures."""
        good = ~self.defective
        return int(self.alarmed[good].sum()), int(good.sum())

    @property
    def covers(self) -> bool:
        """Whether the 95% binomial interval of the observed rate holds the stated one."""
        low, high = clopper_pearson(*self.false_alarms)
        return low <= self.stated <= high

    @property
    def detection(self) -> float:
        """Share of defective pictures that alarm."""
        return float(self.alarmed[self.defective].mean())

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Pictures that did not end in REVIEW."""
        return np.array([verdict is not Verdict.REVIEW for verdict in self.verdicts])

    @property
    def accuracy(self) -> float | None:
        """Share of right verdicts among the decided pictures; None when all went to REVIEW."""
        decided = self.decided
        if not decided.any():
            return None
        said = np.array([verdict is Verdict.NG for verdict in self.verdicts])
        return float((said == self.defective)[decided].mean())

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error of the probability, 15 bins."""
        return expected_calibration_error(self.probabilities, self.defective)


@dataclass(frozen=True)
class MixedAlarms:
    """False alarms on shuffled good pictures, summed over the shuffles.

    Attributes:
        product: name.
        references: drawn per shuffle; the others are held out.
        stated: false-alarm rate asked for.
        alarms: held-out good pictures that alarmed.
        trials: held-out good pictures.
    """

    product: str
    references: int
    stated: float
    alarms: int
    trials: int


def run_graph(
    data: Path, rates: Sequence[float] = RATES, products: Sequence[str] | None = None, progress: Progress | None = None
) -> list[Decisions]:
    """Inspect every held-out picture of every product.

    Args:
        data: folder with one MVTec-style tree per product.
        rates: stated false-alarm rates.
        products: only these.
        progress: told a line now and then.
    """
    tell = progress or (lambda text: None)
    found = []
    for product in load_dataset(data, products):
        if len(product.references) < MIN_REFERENCES:
            tell(f"{product.name}: left out, {len(product.references)} references")
            continue
        found += _run_product(product, rates, tell)
    return found


def _run_product(product: ProductData, rates: Sequence[float], tell: Progress) -> list[Decisions]:
    tell(f"{product.name}: learning {len(product.references)} references")
    model = fit_product(product.name, [str(p) for p in product.references], load_backbone("efficientnet-lite2"))
    defective = np.array([picture.defect_type != "good" for picture in product.tests])
    found = []
    for stated in rates:
        for retries in (False, True):
            flags = {"false_alarm": stated, "store": "memory"} | ({} if retries else {"max_actions": 0})
            with Inspector(load_settings(flags)) as inspector:
                inspector.deps.products[product.name] = model
                reports = []
                for number, picture in enumerate(product.tests):
                    if number % 20 == 0:
                        loop = "with" if retries else "without"
                        tell(f"{product.name} at {stated:.0%} {loop} retries: {number} of {len(product.tests)}")
                    reports.append(inspector.inspect(picture.path, product=product.name))
            found.append(_summarise(product, stated, retries, defective, reports))
    return found


def _summarise(
    product: ProductData, stated: float, retries: bool, defective: NDArray[np.bool_], reports: list[InspectionReport]
) -> Decisions:
    actions = [sum(step.action in VIEW_ACTIONS for step in r.trace) for r in reports]
    return Decisions(
        product=product.name,
        references=len(product.references),
        stated=stated,
        retries=retries,
        defective=defective,
        alarmed=np.array([(r.image_score or 0.0) >= (r.threshold or np.inf) for r in reports]),
        verdicts=tuple(r.verdict for r in reports),
        probabilities=np.array([r.probability if r.probability is not None else np.nan for r in reports]),
        actions=float(np.mean(actions)),
    )


@dataclass(frozen=True)
class DecisionReport:
    """Everything this benchmark measures: the given split through the graph, and the shuffled pools."""

    decisions: list[Decisions]
    mixed: list[MixedAlarms]


def run_decisions(
    data: Path, rates: Sequence[float] = RATES, products: Sequence[str] | None = None, progress: Progress | None = None
) -> DecisionReport:
    """Run both parts; arguments as in ``run_graph``."""
    return DecisionReport(run_graph(data, rates, products, progress), run_mixed(data, rates, products, progress))


def run_mixed(
    data: Path, rates: Sequence[float] = RATES, products: Sequence[str] | None = None, progress: Progress | None = None
) -> list[MixedAlarms]:
    """First-look false alarms when good references and held-out good pictures are one shuffled pool.

    This parts two questions that the given split mixes: whether the threshold keeps its rate on exchangeable parts, and
    whether a data set's held-out parts are exchangeable with its references at all.

    Args:
        data: folder with one MVTec-style tree per product.
        rates: stated false-alarm rates.
        products: only these.
        progress: told a line now and then.
    """
    tell = progress or (lambda text: None)
    backbone, config = load_backbone("efficientnet-lite2"), ExpertConfig()
    found = []
    for product in load_dataset(data, products):
        count = len(product.references)
        if count < MIN_REFERENCES:
            continue
        paths = [*product.references, *(p.path for p in product.tests if p.defect_type == "good")]
        tell(f"{product.name}: {len(paths)} good pictures shuffled {SHUFFLES} times")
        framed = [prepare(load_image(path).rgb, config) for path in paths]
        seen = [backbone.encode_image(picture[None]) for picture in framed]
        hits = dict.fromkeys(rates, 0)
        for seed in range(SHUFFLES):
            order = np.random.default_rng(seed).permutation(len(paths))
            chosen, held_out = [seen[i] for i in order[:count]], [seen[i] for i in order[count:]]
            fit = fit_references([framed[i] for i in order[:count]], chosen, backbone, config)
            left_out = [_first_look(fit.without(owner), features) for owner, features in enumerate(chosen)]
            calibration = Calibration(("whole",), np.array(left_out)[:, None])
            scores = [_first_look(fit.expert, features) for features in held_out]
            for rate in rates:
                decisions = [calibration.decide({"whole": score}, rate) for score in scores]
                hits[rate] += sum((d.score or 0.0) >= (d.threshold or np.inf) for d in decisions)
        trials = SHUFFLES * (len(paths) - count)
        found += [MixedAlarms(product.name, count, rate, hits[rate], trials) for rate in rates]
    return found


def _first_look(expert: FittedExpert, features: VisualFeatures) -> float:
    return expert.image_score(expert.score_grid(features), features)


def render(report: DecisionReport) -> Group:
    """The stated rate against the observed one, what the loop does to coverage and accuracy, and the shuffled pools."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    results = report.decisions
    alarms = Table("product", "refs", "stated", "retries", "false alarms", "95% interval", "covers", "detected", "ECE")
    loop = Table("product", "stated", "retries", "decided", "accuracy", "NG of good", "OK of defective", "actions")
    for result in results:
        hits, count = result.false_alarms
        low, high = clopper_pearson(hits, count)
        on = "on" if result.retries else "off"
        stated = f"{result.stated:.0%}"
        alarms.add_row(
            result.product,
            str(result.references),
            stated,
            on,
            f"{hits}/{count} = {hits / count:.3f}",
            f"{low:.3f} to {high:.3f}",
            "yes" if result.covers else "NO",
            f"{result.detection:.3f}",
            "-" if result.calibration_error is None else f"{result.calibration_error:.3f}",
        )
        wrong_ng = sum(v is Verdict.NG and not d for v, d in zip(result.verdicts, result.defective, strict=True))
        wrong_ok = sum(v is Verdict.OK and d for v, d in zip(result.verdicts, result.defective, strict=True))
        loop.add_row(
            result.product,
            stated,
            on,
            f"{result.decided.mean():.3f}",
            "-" if result.accuracy is None else f"{result.accuracy:.3f}",
            f"{wrong_ng}/{count}",
            f"{wrong_ok}/{int(result.defective.sum())}",
            f"{result.actions:.2f}",
        )
    lines = [
        f"at {stated:.0%}, retries {on}: covered on {sum(r.covers for r in group)} of {len(group)} products"
        for stated in sorted({r.stated for r in results})
        for retries, on in ((False, "off"), (True, "on"))
        for group in [[r for r in results if r.stated == stated and r.retries is retries]]
    ]
    return Group(alarms, loop, Text("\n".join(lines)), render_mixed(report.mixed))


def render_mixed(results: list[MixedAlarms]) -> Table:
    """One line per product and rate."""
    from rich.table import Table

    table = Table("product", "refs", "stated", "false alarms over shuffles", title="good pictures shuffled")
    for result in results:
        rate = f"{result.alarms}/{result.trials} = {result.alarms / result.trials:.3f}"
        table.add_row(result.product, str(result.references), f"{result.stated:.0%}", rate)
    return table


def main() -> None:
    """Command line of this benchmark."""
    import sys

    from rich.console import Console

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--products", nargs="*")
    options = parser.parse_args()

    def tell(text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201

    Console(width=120).print(render(run_decisions(options.data, products=options.products, progress=tell)))


if __name__ == "__main__":
    with untouched_tests():
        main()
