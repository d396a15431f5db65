"""What each part of the default expert is worth: one changed at a time, the rest as it ships.

Same references, test pictures and metrics as ``bench fewshot``. A trained head and sparse prompts are judged by
``bench head``, other ways to compare pictures stand in the log of what was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import ConfigError
from ..tools.ad_expert import reference_views
from ..tools.ad_expert.expert import FittedExpert, prepare
from ..tools.backbones import VisualFeatures, load_backbone
from ..tools.blas import single_blas_thread
from ..tools.imaging import load_image
from .datasets import ProductData, load_dataset, load_mask
from .detection_metrics import image_auroc
from .fewshot import MIN_GOOD_TESTS, Progress, StageBackbone, draw_references
from .fewshot_variants import SHIPPED, JoinedStages, Scored, Tiles, Variant, decided, variants
from .pixel_curve import PixelCurve

if TYPE_CHECKING:
    from rich.table import Table

TILED, AVERAGED = "tiles alone", "mean of tiles and whole"


def run_product(
    product: ProductData,
    backbone: StageBackbone,
    shots: int,
    draws: int,
    wanted: Sequence[Variant],
    progress: Progress | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Every variant on one product: image AUROC and, where every defect has a mask, AUPRO, a value a draw."""
    available = len(product.references)
    chosen = [draw_references(available, shots, draw) for draw in range(draws if shots < available else 1)]
    pictures = {i: load_image(product.references[i]).rgb for i in sorted({i for drawn in chosen for i in drawn})}
    eyes: dict[float, Any] = {v.fine: JoinedStages(backbone, v.fine) if v.fine else backbone for v in wanted}
    experts = {v.name: [_fitted(v, [pictures[i] for i in drawn], eyes[v.fine]) for drawn in chosen] for v in wanted}
    tiled = [Tiles([pictures[i] for i in drawn], backbone) for drawn in chosen]
    names = [*experts, TILED, AVERAGED]
    scores: dict[tuple[str, int], list[float]] = {(name, d): [] for name in names for d in range(len(chosen))}
    curves = {key: PixelCurve() for key in scores} if product.has_masks else {}
    for number, test in enumerate(product.tests):
        if progress and number % 20 == 0:
            progress(f"{product.name}: picture {number + 1} of {len(product.tests)}")
        rgb = load_image(test.path).rgb
        mask = load_mask(test, *rgb.shape[:2]) if product.has_masks else None
        for key, (score, anomaly_map) in _judged(rgb, wanted, eyes, experts, tiled).items():
            scores[key].append(score)
            if mask is not None:
                curves[key].update(anomaly_map, mask)
    return {
        name: {
            "image_auroc": [_known(image_auroc(scores[name, d], product.labels)) for d in range(len(chosen))],
            "aupro": [_known(curves[name, d].aupro()) for d in range(len(chosen))] if curves else [],
        }
        for name in names
    }


def _fitted(variant: Variant, pictures: Sequence[NDArray[np.uint8]], eye: Any) -> FittedExpert:
    prepared = [prepare(rgb, variant.config) for rgb in pictures]
    with decided(variant.swaps):
        encoded = [eye.encode_image(framed[None]) for framed in prepared]
        fit = reference_views.fit_references(prepared, encoded, eye, variant.config, rotate=variant.rotate)
    return fit.expert


def _judged(
    rgb: NDArray[np.uint8],
    wanted: Sequence[Variant],
    eyes: dict[float, Any],
    experts: dict[str, list[FittedExpert]],
    tiled: Sequence[Tiles],
) -> dict[tuple[str, int], Scored]:
    """What each variant of each draw says of a picture."""
    seen: dict[tuple[int, float | None, float], VisualFeatures] = {}
    found: dict[tuple[str, int], Scored] = {}
    for variant in wanted:
        if variant.frame not in seen:
            seen[variant.frame] = eyes[variant.fine].encode_image(prepare(rgb, variant.config)[None])
        with decided(variant.swaps):
            for draw, expert in enumerate(experts[variant.name]):
                look = expert.localise(seen[variant.frame], *rgb.shape[:2])
                found[variant.name, draw] = look.image_score, look.anomaly_map
    for draw, tiles in enumerate(tiled):
        score, anomaly_map = found[TILED, draw] = tiles.judge(rgb)
        whole = found[wanted[0].name, draw]
        found[AVERAGED, draw] = (score + whole[0]) / 2, np.float32(0.5) * (anomaly_map + whole[1])
    return found


def _known(value: float | None) -> float:
    if value is None:
        raise ConfigError("a product without good and defective test pictures has no areas under curves.")
    return value


def run_fewshot_parts(
    data: Path,
    shots: int = 4,
    draws: int = 3,
    products: Sequence[str] | None = None,
    progress: Progress | None = None,
    backbone: StageBackbone | None = None,
    wanted: Sequence[Variant] | None = None,
) -> dict[str, Any]:
    """Each part of the default expert changed alone, on every product that a rate means something on.

    Args:
        data: folder of products in the MVTec layout.
        shots: references.
        draws: random choices of them; one for a product that gives all its references.
        products: only these.
        progress: told a line now and then.
        backbone: with stages; the embedded one by default.
        wanted: the shipped expert and what it is compared with; all variants by default.

    Returns:
        Plain data: ``shots`` and ``products``: name -> variant -> metric -> values over draws.

    Raises:
        ConfigError: shots or draws below one, or no product has enough good test pictures.
        InputError: the data folder or a picture cannot be used.
    """
    if shots < 1 or draws < 1:
        raise ConfigError(f"shots {shots} and draws {draws} must be positive.", hint="Try --shots 4.")
    judged = [p for p in load_dataset(data, products) if int((~p.labels).sum()) >= MIN_GOOD_TESTS]
    judged = [p for p in judged if len(p.references) >= shots]
    if not judged:
        raise ConfigError(
            f"no product of {data} has {MIN_GOOD_TESTS} good test pictures and {shots} references.",
            hint="Name another folder, or fewer shots.",
        )
    if backbone is None:
        embedded: Any = load_backbone("efficientnet-lite2")
        backbone = embedded
    with single_blas_thread():  # as in an inspection
        rows = {p.name: run_product(p, backbone, shots, draws, wanted or variants(), progress) for p in judged}
    return {"shots": shots, "products": rows}


def render(result: dict[str, Any]) -> Table:
    """A row a variant: image AUROC of each product and their mean, AUPRO where there are masks; percent over draws."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    products = result["products"]
    masked = [name for name, rows in products.items() if next(iter(rows.values()))["aupro"]]
    title = f"{result['shots']} references, {_draws(products)}: image AUROC in %, behind it AUPRO"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("one part changed")
    for heading in (*products, "macro", *(f"{name} AUPRO" for name in masked)):
        table.add_column(heading, justify="right")
    shipped = None
    for name in next(iter(products.values())):
        means = [float(np.mean(rows[name]["image_auroc"])) for rows in products.values()]
        macro = float(np.mean(means))
        shipped = macro if shipped is None else shipped
        told = f"{100 * macro:.1f}" if name == SHIPPED else f"{100 * macro:.1f} ({100 * (macro - shipped):+.1f})"
        pixels = [f"{100 * float(np.mean(products[product][name]['aupro'])):.1f}" for product in masked]
        table.add_row(name, *(f"{100 * mean:.1f}" for mean in means), told, *pixels)
    return table


def _draws(products: dict[str, Any]) -> str:
    """How often references were drawn, by the values that there are, and for which products less often."""
    made = {product: len(next(iter(rows.values()))["image_auroc"]) for product, rows in products.items()}
    most = max(made.values())
    told = f"{most} draw{'s' if most > 1 else ''}"
    fewer = [f"{count} of {product}" for product, count in made.items() if count < most]
    return f"{told} ({', '.join(fewer)})" if fewer else told
