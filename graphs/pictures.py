"""What a reasoner that looks at pictures is shown; for any other none of this is done.

The gate and the text grid are plain data and go into the state; the pictures do not: they are made of what the state
refers to, whenever a model is asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..agent.reasoner.composing import BOXES, text_grid
from ..agent.vision_language.messages import Picture, Slot
from ..tools import views
from ..tools.ad_expert.calibration import MIN_REFERENCES
from ..tools.ad_expert.evidence_gate import SPREADS, UNCALIBRATED_WEIGHT, MapScale, cells_of, judge_map
from ..tools.ad_expert.expert import expert_tokens
from ..tools.overlay import tinted
from .judging import features_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..agent.inspector import InspectionDeps
    from ..agent.reasoner import EvidenceBundle
    from ..tools.product_model import ProductModel
    from .state import InspectionState

REFERENCES = 2
"""Good parts shown: the most similar one, and another, so that how much they differ can be seen."""
REFERENCE_SIDE_PX = 768
"""Longer side of a reference as shown; only the query itself is shown with all its pixels."""
CROP_SIDE_PX = 448
MARGIN = 0.5
"""Of a suspicious area's sides, shown around it on every side."""
LEAST_CROP_SHARE = 0.125
"""Of the picture's shorter side: smaller cuts would be enlarged to mere blur."""
WHOLE_SHARE = 0.5
"""A cut that covers more of the picture shows nothing new."""


def gate_of(state: InspectionState, deps: InspectionDeps, product: ProductModel | None) -> dict[str, Any]:
    """Whether the map may speak for a defect, and the calibrated map as text.

    Args:
        state: after localising.
        deps: for the map.
        product: None where words alone looked at the part; they are never admitted.

    Returns:
        ``admitted``, ``coherence``, ``limit``, ``calibrated``, ``weight`` and ``grid``; only the weight without a map.
    """
    seen = state.get("expert", {})
    if "anomaly_map" not in seen:
        return {"weight": UNCALIBRATED_WEIGHT}
    anomaly_map = deps.artifacts.get(seen["anomaly_map"])
    grid = (int(state["features"]["grid"][0]), int(state["features"]["grid"][1]))
    scale = _scale(state, product)
    if product is None:
        gate = judge_map(cells_of(anomaly_map, grid), scale, calibrated=False)
    else:
        gate = product.gate(anomaly_map, grid)
    return {
        "admitted": gate.admitted,
        "coherence": gate.coherence,
        "limit": gate.limit,
        "calibrated": gate.calibrated,
        "weight": gate.weight,
        "grid": text_grid(scale.calibrate(anomaly_map)),
    }


def prior_slot_of(state: InspectionState, deps: InspectionDeps, product: ProductModel | None) -> Slot | None:
    """Prior tokens of a picture; None when none are set, or too few references say what its map means.

    Args:
        state: after localising.
        deps: for the map, the features and the tokenizers.
        product: None for a part without references.
    """
    tokens = deps.prior_tokens
    if tokens is None or product is None or "anomaly_map" not in state.get("expert", {}):
        return None
    if len(product.reference_names) < MIN_REFERENCES:  # the tokenizers learnt from calibrated maps alone
        return None
    return tokens.slot(_scale(state, product).calibrate(_map(state, deps)), features_of(state, deps))


def _map(state: InspectionState, deps: InspectionDeps) -> NDArray[np.float32]:
    return np.asarray(deps.artifacts.get(state["expert"]["anomaly_map"]), np.float32)


def _scale(state: InspectionState, product: ProductModel | None) -> MapScale:
    """The product's; without one where the map stands out of its own picture."""
    if product is not None:
        return product.shown_scale
    levels = state["expert"]["levels"]
    low = float(levels["threshold"])
    return MapScale(low, low + SPREADS * max(low - float(levels["median"]), 0.0), 0.0)


def shown(
    seen: EvidenceBundle, state: InspectionState, deps: InspectionDeps, product: ProductModel | None
) -> EvidenceBundle:
    """The evidence with everything that is made for a model: pictures, the calibrated map, prior tokens.

    Args:
        seen: of the state.
        state: after localising.
        deps: for arrays, settings and tokenizers.
        product: None for a part without references.
    """
    found = replace(seen, pictures=pictures_of(state, deps, product), prior_slot=prior_slot_of(state, deps, product))
    if "anomaly_map" not in state.get("expert", {}):
        return found
    return replace(found, expert_map=_scale(state, product).calibrate(_map(state, deps)))


def pictures_of(state: InspectionState, deps: InspectionDeps, product: ProductModel | None) -> tuple[Picture, ...]:
    """The query as it was inspected, the most similar references, enlarged areas, and the window of a zoom.

    Args:
        state: after localising.
        deps: for arrays and settings.
        product: None for a part without references.
    """
    rgb = deps.artifacts.get(state["picture"]["rgb"])
    shown = [Picture(rgb, "query"), *(Picture(good, "reference") for good in _references(state, deps, product))]
    expert = state.get("expert", {})
    if deps.settings.overlay and "anomaly_map" in expert:
        value = _scale(state, product).calibrate(deps.artifacts.get(expert["anomaly_map"]))
        shown.append(Picture((tinted(rgb, value) + 0.5).astype(np.uint8), "overlay"))
    scale = tuple(state["picture"]["scale"])
    for region in expert.get("regions", [])[:BOXES]:
        box = crop_box(region["box"], scale, rgb.shape[:2])
        if box is not None:
            shown.append(Picture(reduced(_cut(rgb, box), CROP_SIDE_PX), f"crop {region['id']}"))
    if "zoom" in state.get("done", []):
        window = views.window_around(rgb.shape[:2], tuple(expert["peak_px"]))
        shown.append(Picture(reduced(_cut(rgb, window), REFERENCE_SIDE_PX), "zoom"))
    return tuple(shown)


def _references(state: InspectionState, deps: InspectionDeps, product: ProductModel | None) -> list[NDArray[np.uint8]]:
    if product is None:
        return []
    features = features_of(state, deps)
    owners = views.nearest_references(expert_tokens(features), features.grid, product.reference_tokens)[:REFERENCES]
    return [reduced(product.reference_picture(owner, deps.settings.max_pixels), REFERENCE_SIDE_PX) for owner in owners]


def crop_box(box: list[int], scale: tuple[float, float], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """What is cut out to show an area enlarged.

    Args:
        box: XYXY half-open, px of the original picture.
        scale: pixels of the inspected picture per original pixel, x and y.
        size: (height, width) of the inspected picture.

    Returns:
        XYXY half-open, px of the inspected picture, with a margin; None when it would show most of the picture.
    """
    height, width = size
    least = LEAST_CROP_SHARE * min(height, width)
    sides = []
    for low, high, factor, limit in ((box[0], box[2], scale[0], width), (box[1], box[3], scale[1], height)):
        centre, half = factor * (low + high) / 2, max((0.5 + MARGIN) * factor * (high - low), least / 2)
        start = min(max(0, int(centre - half)), limit - 1)
        sides.append((start, max(start + 1, min(limit, int(np.ceil(centre + half))))))
    (x0, x1), (y0, y1) = sides
    return None if (x1 - x0) * (y1 - y0) > WHOLE_SHARE * height * width else (x0, y0, x1, y1)


def _cut(rgb: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    x0, y0, x1, y1 = box
    return rgb[y0:y1, x0:x1]


def reduced(rgb: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """A picture whose longer side is at most so long; a smaller one stays as it is."""
    height, width = rgb.shape[:2]
    share = side_px / max(height, width)
    if share >= 1.0:
        return rgb
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))
