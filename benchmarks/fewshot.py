"""How well good parts are told from defective ones after seeing 1, 4 or 16 good references.

The default expert runs beside a plain nearest-neighbour memory on the same references and pictures. References are
drawn at random, three times; the draws of more shots contain those of fewer. Pictures are encoded once.

Run: ``python -m flawscope.benchmarks.fewshot --data DIR --shots 1,4,16``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import ConfigError
from ..tools.ad_expert.anomaly_map import grid_to_pixels, smooth_grid, top_fraction_mean
from ..tools.ad_expert.expert import ExpertConfig, FittedExpert, prepare, resize_to_frame
from ..tools.ad_expert.reference_views import fit_references
from ..tools.backbones import Backbone, VisualFeatures, load_backbone
from ..tools.imaging import load_image
from .datasets import ProductData, load_dataset, load_mask
from .detection_metrics import image_auroc
from .pixel_curve import PixelCurve
from .untouched import untouched_tests

if TYPE_CHECKING:
    from rich.console import Group

MIN_GOOD_TESTS = 20
"""With fewer good test pictures a rate means little; such a product is shown but left out of the macro mean."""
BASELINE_SHORT_SIDE_PX = 320
BASELINE_TOP_FRACTION = 0.01
METRICS = ("image_auroc", "pixel_auroc", "aupro")
METHODS = ("default", "baseline")

Progress = Callable[[str], None]
Tokens = NDArray[np.float32]
Setting = tuple[int, int]
"""(shots, draw)."""


class StageBackbone(Backbone, Protocol):
    """What the comparison needs: the expert's tokens and, for the baseline, the raw stages."""

    def run_stages(self, batch: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[np.float32]]:
        """See ``EfficientNetLite2.run_stages``."""
        ...


def draw_references(count: int, shots: int, draw: int) -> tuple[int, ...]:
    """Indices of the references of a draw: the first ``shots`` of a permutation that depends on the draw alone."""
    return tuple(int(i) for i in np.random.default_rng(draw).permutation(count)[:shots])


def baseline_tokens(stages: Sequence[NDArray[np.float32]]) -> Tokens:
    """Patch tokens of the plain baseline.

    Args:
        stages: float32 (1, C, h, w) of stride 8 and (1, C', h/2, w/2) of stride 16.

    Returns:
        float32 (h, w, C + C'): per stage 3x3 average, enlarged bilinearly to the finer grid, unit length; concatenated.
    """
    h, w = stages[0].shape[2:]
    layers = []
    for stage in stages:
        grid = np.pad(stage[0].transpose(1, 2, 0), ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = grid[:-2] + grid[1:-1] + grid[2:]
        pooled = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
        if pooled.shape[:2] != (h, w):
            pooled = _double(_double(pooled, 0), 1)
        layers.append(pooled / np.maximum(np.linalg.norm(pooled, axis=2, keepdims=True), 1e-6))
    return np.ascontiguousarray(np.concatenate(layers, axis=2), dtype=np.float32)


def _double(grid: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Bilinear enlargement by two along an axis, cell centres aligned, edges repeated."""
    size = grid.shape[axis]
    before = np.take(grid, np.maximum(np.arange(size) - 1, 0), axis)
    after = np.take(grid, np.minimum(np.arange(size) + 1, size - 1), axis)
    pair = np.stack([0.25 * before + 0.75 * grid, 0.75 * grid + 0.25 * after], axis=axis + 1)
    return pair.reshape(*grid.shape[:axis], 2 * size, *grid.shape[axis + 1 :])


def nearest_per_reference(tokens: Tokens, references: Sequence[Tokens]) -> NDArray[np.float32]:
    """Distance of each patch to the nearest patch of each reference.

    Args:
        tokens: float32 (h, w, D).
        references: arrays of the same kind.

    Returns:
        float32 (len(references), h, w). The memory of a set of references is the minimum over its rows.
    """
    flat = tokens.reshape(-1, tokens.shape[-1])
    squares = (flat**2).sum(axis=1)
    # One more column makes |b|^2 - 2 a.b a single product: the large table is written once and read once.
    query = np.column_stack([flat, np.ones(len(flat), np.float32)])
    out = np.empty((len(references), len(flat)), np.float32)
    for row, reference in enumerate(references):
        other = reference.reshape(-1, reference.shape[-1])
        nearest = (query @ np.column_stack([-2.0 * other, (other**2).sum(axis=1)]).T).min(axis=1)
        out[row] = np.sqrt(np.maximum(squares + nearest, 0.0))
    return out.reshape(len(references), *tokens.shape[:2])


class _Tally:
    """Image scores and streaming pixel curves of each method at each setting."""

    def __init__(self, product: ProductData, settings: Sequence[Setting]) -> None:
        self._labels = product.labels
        keys = [(method, setting) for method in METHODS for setting in settings]
        self._scores: dict[tuple[str, Setting], list[float]] = {key: [] for key in keys}
        self._curves = {key: PixelCurve() for key in keys} if product.has_masks else {}

    def add(
        self, method: str, setting: Setting, score: float, anomaly_map: Tokens | None, mask: NDArray[np.bool_] | None
    ) -> None:
        """One test picture, in the order of the product's tests."""
        self._scores[method, setting].append(score)
        if anomaly_map is not None and mask is not None:
            self._curves[method, setting].update(anomaly_map, mask)

    def figures(self, method: str, setting: Setting) -> dict[str, float | None]:
        """The metrics of one draw."""
        curve = self._curves.get((method, setting))
        return {
            "image_auroc": image_auroc(self._scores[method, setting], self._labels),
            "pixel_auroc": curve.auroc() if curve else None,
            "aupro": curve.aupro() if curve else None,
        }


def run_product(
    product: ProductData,
    backbone: StageBackbone,
    shots: Sequence[int],
    draws: int,
    config: ExpertConfig,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Both methods on one product.

    Args:
        product: with references, good and defective test pictures.
        backbone: the embedded one.
        shots: numbers of references; those above the number available are left out.
        draws: random choices of references; one when all are taken.
        config: of the default expert.
        progress: told a line now and then.

    Returns:
        ``product``, ``good``, ``defective``, ``in_macro`` and ``shots``: per number of shots and method, each metric's
        list over draws (empty without masks).
    """
    available = len(product.references)
    settings = [(n, d) for n in shots if n <= available for d in range(draws if n < available else 1)]
    chosen = {setting: draw_references(available, *setting) for setting in settings}
    used = sorted({index for indices in chosen.values() for index in indices})
    pictures = {index: load_image(product.references[index]).rgb for index in used}
    prepared = {index: prepare(rgb, config) for index, rgb in pictures.items()}
    encoded = {index: backbone.encode_image(framed[None]) for index, framed in prepared.items()}
    experts = {
        key: fit_references([prepared[i] for i in indices], [encoded[i] for i in indices], backbone, config).expert
        for key, indices in chosen.items()
    }
    memory = [_encode_baseline(backbone, pictures[index]) for index in used]
    rows = {key: [used.index(i) for i in indices] for key, indices in chosen.items()}

    tally = _Tally(product, settings)
    for number, test in enumerate(product.tests):
        if progress and number % 20 == 0:
            progress(f"{product.name}: picture {number + 1} of {len(product.tests)}")
        rgb = load_image(test.path).rgb
        height, width = rgb.shape[:2]
        mask = load_mask(test, height, width) if product.has_masks else None
        features = backbone.encode_image(prepare(rgb, config)[None])
        nearest = nearest_per_reference(_encode_baseline(backbone, rgb), memory)
        for key in settings:
            _add_default(tally, key, experts[key], features, mask, (height, width))
            grid = nearest[rows[key]].min(axis=0)
            enlarged = grid_to_pixels(smooth_grid(grid), height, width) if mask is not None else None
            tally.add("baseline", key, top_fraction_mean(grid, BASELINE_TOP_FRACTION), enlarged, mask)

    good = int((~product.labels).sum())
    return {
        "product": product.name,
        "good": good,
        "defective": len(product.tests) - good,
        "in_macro": good >= MIN_GOOD_TESTS and available >= max(shots),
        "shots": {
            n: _over_draws(tally, [key for key in settings if key[0] == n]) for n in {key[0] for key in settings}
        },
    }


def _encode_baseline(backbone: StageBackbone, rgb: NDArray[np.uint8]) -> Tokens:
    return baseline_tokens(
        backbone.run_stages(resize_to_frame(rgb, BASELINE_SHORT_SIDE_PX)[None], ("stride8", "stride16"))
    )


def _add_default(
    tally: _Tally,
    key: Setting,
    expert: FittedExpert,
    features: VisualFeatures,
    mask: NDArray[np.bool_] | None,
    size: tuple[int, int],
) -> None:
    found = expert.localise(features, *size)
    tally.add("default", key, found.image_score, found.anomaly_map if mask is not None else None, mask)


def _over_draws(tally: _Tally, keys: Sequence[Setting]) -> dict[str, dict[str, list[float]]]:
    figures = {method: [tally.figures(method, key) for key in keys] for method in METHODS}
    return {
        method: {metric: [draw[metric] for draw in rows if draw[metric] is not None] for metric in METRICS}  # type: ignore[misc]
        for method, rows in figures.items()
    }


def run_fewshot(
    data: Path,
    shots: Sequence[int] = (1, 4, 16),
    draws: int = 3,
    products: Sequence[str] | None = None,
    progress: Progress | None = None,
    backbone: StageBackbone | None = None,
    config: ExpertConfig | None = None,
) -> dict[str, Any]:
    """The default expert beside the baseline on every product of a data folder.

    Args:
        data: folder of products in the MVTec layout.
        shots: numbers of references.
        draws: random choices of references per number.
        products: only these.
        progress: told a line now and then.
        backbone: with stages; the embedded one by default.
        config: of the default expert; its defaults by default.

    Returns:
        Plain data: ``shots``, ``draws``, ``config``, ``products`` (see ``run_product``) and ``macro``: per number of
        shots and method, the image AUROC averaged over the products of the macro mean, a list over draws.

    Raises:
        ConfigError: shots or draws below one, or a number twice.
        InputError: the data folder or a picture cannot be used.
    """
    shots = tuple(shots)
    if not shots or min(shots) < 1 or len(set(shots)) < len(shots) or draws < 1:
        raise ConfigError(
            f"shots {shots} and draws {draws} must be positive and different.", hint="Try --shots 1,4,16."
        )
    if backbone is None:
        embedded: Any = load_backbone("efficientnet-lite2")
        backbone = embedded
    config = config or ExpertConfig()
    rows = [run_product(p, backbone, shots, draws, config, progress) for p in load_dataset(data, products)]
    counted = [row for row in rows if row["in_macro"]]
    macro = {n: {m: _mean_by_draw(counted, n, m) for m in METHODS} for n in shots} if counted else {}
    return {"shots": shots, "draws": draws, "config": vars(config), "products": rows, "macro": macro}


def _mean_by_draw(rows: Sequence[dict[str, Any]], shots: int, method: str) -> list[float]:
    lists = [row["shots"][shots][method]["image_auroc"] for row in rows]
    draws = max(len(values) for values in lists)  # a product that gives all its references has one draw: it repeats
    return [float(np.mean([values[min(draw, len(values) - 1)] for values in lists])) for draw in range(draws)]


def render(result: dict[str, Any]) -> Group:
    """The result as one table per number of shots, figures in percent, mean and spread over the draws."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    tables = []
    for n in result["shots"]:
        title = f"{n} good reference{'s' if n > 1 else ''}, areas under the curve in %"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))  # fits 80 columns
        table.add_column("product", no_wrap=True)
        for heading in ("image", "plain", "gain", "pixel", "plain", "AUPRO", "plain"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in result["products"]:
            figures = row["shots"].get(n)
            if figures is None:
                continue
            cells = [(figures["default"][metric], figures["baseline"][metric]) for metric in METRICS]
            name = row["product"] if row["in_macro"] else f"{row['product']} *"
            table.add_row(name, *_pair(*cells[0]), _difference(*cells[0]), *_pair(*cells[1]), *_pair(*cells[2]))
        if n in result["macro"]:
            means = (result["macro"][n]["default"], result["macro"][n]["baseline"])
            table.add_section()
            table.add_row("macro", *_pair(*means), _difference(*means), "", "", "", "", style="bold")
        tables.append(table)
    left_out = [row["product"] for row in result["products"] if not row["in_macro"]]
    note = f"* not in the macro mean: fewer than {MIN_GOOD_TESTS} good test pictures or too few references."
    return Group(*tables, *([note] if left_out else []))


def _pair(default: Sequence[float], baseline: Sequence[float]) -> tuple[str, str]:
    return _spread(default), _spread(baseline)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{100 * float(np.mean(values)):.1f}"
    return f"{mean}±{100 * float(np.std(values, ddof=1)):.1f}" if len(values) > 1 else mean


def _difference(default: Sequence[float], baseline: Sequence[float]) -> str:
    return f"{100 * (float(np.mean(default)) - float(np.mean(baseline))):+.1f}"


def command_line(description: str | None, shots: str, draws: int) -> argparse.ArgumentParser:
    """Options of a benchmark of few references, with its own defaults."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of products in the MVTec layout")
    parser.add_argument("--shots", default=shots, type=_whole_numbers, help="numbers of references, comma-separated")
    parser.add_argument("--draws", type=int, default=draws, help="random choices of references for each number")
    parser.add_argument("--products", type=lambda text: text.split(","), help="only these, separated by commas")
    return parser


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError("takes whole numbers separated by commas, such as 1,4,16") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this benchmark alone."""
    options = command_line(__doc__, "1,4,16", 3).parse_args(arguments)
    from rich.console import Console

    result = run_fewshot(
        options.data,
        options.shots,
        options.draws,
        options.products,
        lambda line: print(line, file=sys.stderr),  # noqa: T201
    )
    Console().print(render(result))


if __name__ == "__main__":
    with untouched_tests():
        main()
