"""The pictures of the type benchmark, described as an inspection would: by the anomaly map, never by a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..tools.ad_expert.expert import ExpertConfig, FittedExpert, ReferenceFit, expert_tokens, prepare
from ..tools.backbones import Backbone, VisualFeatures
from ..tools.defect_features import defect_feature, defect_weights, patch_matrix
from ..tools.imaging import load_image

DRAWN_VARIANTS = 6

Features = NDArray[np.float32]
Labels = NDArray[np.str_]

GENERAL_TYPE: dict[str, dict[str, str]] = {
    "steel_types": {
        "crazing": "crazing",
        "inclusion": "inclusion",
        "patches": "patches",
        "pitted_surface": "pitting",
        "rolled-in_scale": "rolled_in_scale",
        "scratches": "scratch",
    },
    "transistor": {
        "bent_lead": "bent",
        "cut_lead": "cut",
        "damaged_case": "broken",
        "misplaced": "misplacement",
    },
    "magnetic_tile": {
        "blowhole": "porosity",
        "break": "chip",
        "crack": "crack",
        "fray": "wear",
        "uneven": "uneven_surface",
    },
}
"""The products of this benchmark, and which general type each of their types is."""


def describe_product(folder: Path, backbone: Backbone) -> tuple[Features, Labels]:
    """One feature (K,) per defective test picture, as at inspection, and its type.

    Args:
        folder: of the product.
        backbone: the feature extractor.
    """
    references = _pictures(folder, "train/good/*")
    config = ExpertConfig()

    def encode(path: Path) -> VisualFeatures:
        return backbone.encode_image(prepare(load_image(path).rgb, config)[None])

    fitted: FittedExpert | None = None
    if references:
        tokens = [expert_tokens(encode(path)) for path in references]
        fitted = ReferenceFit(tokens, range(len(tokens)), config).expert
    pictures = [path for path in _pictures(folder, "test/*/*") if path.parent.name != "good"]
    features = [_describe(encode(path), fitted) for path in pictures]
    return np.stack(features), np.array([path.parent.name for path in pictures])


def _pictures(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))


def _describe(features: VisualFeatures, fitted: FittedExpert | None) -> Features:
    weights = defect_weights(fitted.score_grid(features)) if fitted else None
    return defect_feature(patch_matrix(features), weights)


def describe_drawings(backbone: Backbone) -> tuple[Features, list[str]]:
    """Features of the drawn general types, weighted by their difference to the same drawing without the defect."""
    from ..tools.knowledge.drawings import DRAWN_TYPES, draw_defect

    features, labels = [], []
    for name in DRAWN_TYPES:
        for variant in range(DRAWN_VARIANTS):
            drawing = draw_defect(name, variant=variant, size=320)
            seen = backbone.encode_image(np.stack([drawing.image, drawing.clean]))
            tokens, clean = patch_matrix(seen, 0), patch_matrix(seen, 1)
            features.append(defect_feature(tokens, defect_weights(np.linalg.norm(tokens - clean, axis=1))))
            labels.append(name)
    return np.stack(features), labels
