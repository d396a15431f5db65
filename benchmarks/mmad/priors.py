"""The expert's evidence about a picture as plain values: calibrated and gated, or raw as a detector without both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.inspector import InspectionDeps
from ...agent.reasoner.prior_lines import Prior, PriorBox
from ...agent.reasoner.text_grid import text_grid
from ...tools.ad_expert.calibration import percentile
from ...tools.ad_expert.regions import find_regions
from ...tools.enrolment import UNCALIBRATED_SCALE
from ...tools.product_model import ProductModel

MAP_PX = 64
"""Side of the map that think tokens are searched with."""


def calibrated_prior(state: Any, product: ProductModel, deps: InspectionDeps) -> Prior:
    """The expert's evidence on the scale of good parts, admitted for detection only where the gate lets it."""
    decision = state["decision"]
    count, p_value = decision["references"], decision["p_value"]
    anomaly_map = np.asarray(deps.artifacts.get(state["expert"]["anomaly_map"]), np.float32)
    gate = product.gate(anomaly_map, (int(state["features"]["grid"][0]), int(state["features"]["grid"][1])))
    return Prior(
        score=decision["score"],
        threshold=decision["threshold"],
        percentile=None if p_value is None else percentile(p_value, count),
        probability=decision["probability"],
        admitted=gate.admitted,
        calibrated=decision["probability"] is not None,
        boxes=_boxes(state["expert"]["regions"], state["picture"]["size_px"]),
        types=_types(state),
        grid=text_grid(product.shown_scale.calibrate(anomaly_map)),
    )


def raw_prior(state: Any, deps: InspectionDeps, size: tuple[int, int]) -> Prior:
    """The same look as a detector without calibration tells it: a raw score, areas above a value of other products."""
    scale = UNCALIBRATED_SCALE
    anomaly_map = np.asarray(deps.artifacts.get(state["expert"]["anomaly_map"]), np.float32)
    least = scale.area_share * anomaly_map.size
    regions = find_regions(anomaly_map, scale.threshold, min_area_px=least, min_peak=scale.peak)
    boxes = tuple(
        PriorBox(region.box, region.place, region.area_px / (size[0] * size[1]), f"R{number}")
        for number, region in enumerate(regions, start=1)
    )
    return Prior(state["scores"]["whole"], None, None, None, False, False, boxes, _types(state), None)


def shown_map(state: Any, product: ProductModel, deps: InspectionDeps) -> NDArray[np.float32]:
    """The anomaly_map on the scale of good parts, float32 (H, W) in [0, 1]."""
    return product.shown_scale.calibrate(np.asarray(deps.artifacts.get(state["expert"]["anomaly_map"]), np.float32))


def shrunk(anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map of at most MAP_PX a side; a cell is the highest value in it."""
    height, width = anomaly_map.shape
    rows = np.linspace(0, height, min(height, MAP_PX), endpoint=False).astype(int)
    columns = np.linspace(0, width, min(width, MAP_PX), endpoint=False).astype(int)
    return np.asarray(np.maximum.reduceat(np.maximum.reduceat(anomaly_map, rows, axis=0), columns, axis=1), np.float32)


def plain_prior(prior: Prior) -> dict[str, Any]:
    """As JSON values."""
    return dataclasses.asdict(prior)


def prior_from(plain: Mapping[str, Any]) -> Prior:
    """Back from JSON values."""
    boxes = tuple(PriorBox(**{**box, "box": tuple(box["box"])}) for box in plain["boxes"])
    return Prior(**{**plain, "boxes": boxes, "types": tuple((name, share) for name, share in plain["types"])})


def _boxes(regions: Any, size_px: Any) -> tuple[PriorBox, ...]:
    whole = max(1, size_px[0] * size_px[1])
    return tuple(PriorBox(tuple(r["box"]), r["place"], min(1.0, r["area_px"] / whole), r["id"]) for r in regions)


def _types(state: Any) -> tuple[tuple[str, float], ...]:
    kind = state.get("defect_type")
    return tuple((c["name"], c["posterior"]) for c in kind["candidates"]) if kind else ()
