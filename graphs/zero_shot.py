"""The graph's way without references: words locate, and a person decides.

The scores of words are not calibrated on this part, so they carry no probability: every such inspection ends in REVIEW.
What they are good for is told: where the picture stands out of itself, and by how much.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tools import views
from ..tools.ad_expert.evidence_gate import UNCALIBRATED_WEIGHT
from ..tools.ad_expert.regions import find_regions
from ..tools.ad_expert.zero_shot import describe_anchors, stand_out
from . import evidence as ev

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..agent.inspector import InspectionDeps
    from ..tools.ad_expert.type_centroids import TypeMatch
    from ..tools.backbones import VisualFeatures
    from .state import InspectionState

Update = dict[str, Any]


def localise(features: VisualFeatures, rgb: NDArray[Any], picture: dict[str, Any], deps: InspectionDeps) -> Update:
    """Compare a picture with words, if the backbone has any.

    Args:
        features: of the picture.
        rgb: uint8 (H, W, 3).
        picture: the state's entry.
        deps: for the expert and the artifact store.

    Returns:
        The change of state.
    """
    expert = deps.zero_shot
    if expert is None:
        return {"expert": {"regions": []}, "note": "no references"}
    seen = expert.localise(features, rgb)
    levels = stand_out(seen.patch_scores)
    patch_px = seen.anomaly_map.size / seen.patch_scores.size
    found = find_regions(seen.anomaly_map, levels.threshold, min_area_px=patch_px, min_peak=levels.peak)
    regions = views.original_regions(found, picture)
    put = deps.artifacts.put
    return {
        "expert": {
            "anomaly_map": put(seen.anomaly_map),
            "patch_scores": put(seen.patch_scores),
            "regions": regions,
            "peak_px": views.peak_of(seen.anomaly_map),
            "levels": {"median": levels.median, "threshold": levels.threshold},
            "zero_shot": {
                "global_score": seen.global_score,
                "map_peak": float(seen.anomaly_map.max()),
                "types": _shares(seen.types) if regions else [],
                **expert.describe(),
                **describe_anchors(seen.anchors, expert.config),
            },
        },
        "scores": {"whole": seen.image_score},
        "evidence": ev.region_evidence(regions, calibrated=False),
        "note": f"words alone, score {seen.image_score:.4g}, {len(regions)} regions",
    }


def _shares(types: TypeMatch | None) -> list[list[Any]]:
    return [] if types is None else [list(pair) for pair in zip(types.names, types.shares, strict=True)]


def shortlist(state: InspectionState) -> dict[str, Any] | None:
    """The defect types that the words of the second look name, with what is left over as one further kind.

    Returns:
        As ``ProductModel.name_type``; None when nothing stands out or no type is likely.
    """
    named = state["expert"]["zero_shot"]["types"]
    if not named:
        return None
    shares = np.array([*(share for _, share in named), max(0.0, 1.0 - sum(share for _, share in named))])
    positive = shares[shares > 0]
    return {
        "name": named[0][0],
        "posterior": named[0][1],
        "candidates": [{"name": name, "posterior": share} for name, share in named],
        "entropy": min(1.0, max(0.0, float(-(positive * np.log(positive)).sum() / math.log(len(shares))))),
        "source": "names and examples of defect types",
    }


def judge(state: InspectionState) -> Update:
    """No decision, and the reason: the score of words has no threshold that good parts gave it."""
    facts = {"score": None, "threshold": None, "probability": None, "p_value": None}
    return {
        "decision": {**facts, "basis": "uncalibrated", "references": 0},
        "evidence": ev.zero_shot_evidence(state["scores"]["whole"], state["expert"]["zero_shot"], UNCALIBRATED_WEIGHT),
        "defect_type": None,
    }
