"""What the AD Expert finds in the labelled pictures of a data set, as prior tokens and prompts are made from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..agent.reasoner.composing import Prior, PriorBox, text_grid
from ..agent.vision_language.prior import patch_input
from ..benchmarks.datasets import LabelledPicture
from ..tools.ad_expert.calibration import MIN_REFERENCES, percentile, smallest_rate
from ..tools.backbones import Backbone, VisualFeatures
from ..tools.enrolment import fit_product
from ..tools.imaging import load_image
from ..tools.product_model import ProductModel
from .features import FeatureCache
from .retriever_pairs import Source

__all__ = ["PictureEvidence", "Source", "look_at_picture", "look_at_products"]

FALSE_ALARM = 0.05
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class PictureEvidence:
    """What was found in a picture.

    Attributes:
        anomaly_map: float16 (H, W), calibrated to [0, 1].
        patch_tokens: float16 (N, D) of `patch_input`.
        grid: (h, w) of the patch tokens.
        prior: the same in plain values, for prompts in words.
    """

    anomaly_map: NDArray[np.float16]
    patch_tokens: NDArray[np.float16]
    grid: tuple[int, int]
    prior: Prior


def look_at_picture(product: ProductModel, features: VisualFeatures, rgb: NDArray[np.uint8]) -> PictureEvidence:
    """Judge a picture by a product's good references.

    Args:
        product: with enough references to be calibrated.
        features: of the picture.
        rgb: uint8 (H, W, 3).
    """
    found = product.localise(features, rgb)
    shown = product.shown_scale.calibrate(found.anomaly_map)
    gate = product.gate(found.anomaly_map, features.grid)
    count = len(product.reference_names)
    rate = max(FALSE_ALARM, smallest_rate(count))
    decision = product.calibration.decide({"whole": found.image_score}, rate)
    boxes = tuple(
        PriorBox(region.box, region.place, region.area_px / shown.size, f"R{number}")
        for number, region in enumerate(product.regions(found.anomaly_map), start=1)
    )
    prior = Prior(
        score=decision.score,
        threshold=decision.threshold,
        percentile=None if decision.p_value is None else percentile(decision.p_value, count),
        probability=decision.probability,
        admitted=gate.admitted,
        calibrated=gate.calibrated,
        boxes=boxes,
        grid=text_grid(shown),
    )
    tokens = patch_input(features).astype(np.float16)
    return PictureEvidence(shown.astype(np.float16), tokens, features.grid, prior)


def look_at_products(
    sources: Sequence[Source],
    backbone: Backbone,
    cache: Path,
    *,
    references: int,
    max_pictures: int,
    seed: int,
    report: Report | None = None,
) -> dict[Path, PictureEvidence]:
    """Judge labelled pictures of products; those with too few good references to be calibrated are passed over.

    Args:
        sources: the products.
        backbone: of the expert.
        cache: where features are kept.
        references: good pictures that the expert compares with, at most; the first by name.
        max_pictures: labelled pictures a product, drawn.
        seed: of the draw.
        report: told (what, done, in all).

    Returns:
        By the picture's path.

    Raises:
        InputError: a picture cannot be read.
    """
    found: dict[Path, PictureEvidence] = {}
    for source in sources:
        given = [str(path) for path in source.product.references[:references]]
        if len(given) < MIN_REFERENCES:
            continue
        product = fit_product(source.product.name, given, backbone, progress=report)
        features = FeatureCache(cache, backbone, product.expert.config)
        chosen = _draw(source.product.tests, max_pictures, seed, source.product.name)
        for done, picture in enumerate(chosen):
            if report:
                report(f"looking at {source.product.name}", done, len(chosen))
            rgb = load_image(picture.path, value_range=product.value_range).rgb
            found[picture.path] = look_at_picture(product, features.features(rgb), rgb)
    return found


def _draw(pictures: Sequence[LabelledPicture], count: int, seed: int, name: str) -> list[LabelledPicture]:
    """So many of them, in their order."""
    order = np.random.default_rng([seed, *name.encode()]).permutation(len(pictures))[:count]
    return [pictures[int(index)] for index in sorted(order)]
