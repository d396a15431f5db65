"""Labelled defects of any data sets, described for the centroids of their types.

A defect is where its mask is, or where an anomaly map says. Queries have a map and never a mask, and centroids of masks
are then in another place of the feature space: see docs/type_prompts.md before choosing.

Source: MulA, the type-level data set of ADSeeker (arXiv 2508.03088), which is not published; this makes the like of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones import Backbone, VisualFeatures
from ..defect_features import defect_weights
from ..imaging import load_image
from ..knowledge.vocabulary import canonical, vocabulary
from .expert import ExpertConfig, FittedExpert, ReferenceFit, expert_tokens, prepare
from .prompt_ensemble import ensemble_anchors
from .type_centroids import defect_key, mask_weights
from .zero_shot import ZeroShotConfig, patch_scores_of

Progress = Callable[[str, int, int], None]
Weights = NDArray[np.float32]


@dataclass(frozen=True)
class TypeExample:
    """A picture of a defective part.

    Attributes:
        path: the file.
        product: whose picture.
        label: what the data set calls the defect.
        read_mask: the defective pixels, bool (H, W), of a picture of H x W px; None where nobody drew them.
        references: good pictures of the product.
    """

    path: Path
    product: str
    label: str
    read_mask: Callable[[int, int], NDArray[np.bool_] | None]
    references: tuple[Path, ...] = ()


Weighing = Callable[[TypeExample, VisualFeatures, int, int], "Weights | None"]
"""(example, its features, height, width of the picture) -> weight of each patch, None when it cannot be told."""


@dataclass(frozen=True)
class DescribedExamples:
    """What became of the examples.

    Attributes:
        keys: float32 (M, D), of those that could be described.
        labels: their canonical types.
        sources: per product and label: its type and how many pictures were described, as JSON values.
        left_out: likewise, with the reason: an unknown label, one that says no type, or no defect to be seen.
    """

    keys: NDArray[np.float32]
    labels: tuple[str, ...]
    sources: tuple[dict[str, Any], ...]
    left_out: tuple[dict[str, Any], ...]


def describe_examples(
    examples: Sequence[TypeExample], backbone: Backbone, weigh: Weighing, progress: Progress | None = None
) -> DescribedExamples:
    """Describe every example whose label is a specific type and whose defect can be seen.

    Args:
        examples: of any products.
        backbone: the feature extractor.
        weigh: :func:`weigh_by_mask`, or what :func:`weighing_by_map` returns.
        progress: told about each picture.

    Raises:
        InputError: a picture or a mask cannot be read.
    """
    keys: list[NDArray[np.float32]] = []
    labels: list[str] = []
    used: Counter[tuple[str, str, str]] = Counter()
    lost: Counter[tuple[str, str, str]] = Counter()
    for done, example in enumerate(examples, start=1):
        name = canonical(example.label, example.product)
        if name is None:
            lost[example.product, example.label, "unknown label"] += 1
        elif not vocabulary().types[name].is_specific:
            lost[example.product, example.label, "the label says no type"] += 1
        elif (key := _describe(example, backbone, weigh)) is None:
            lost[example.product, example.label, "no mask or map"] += 1
        else:
            keys.append(key)
            labels.append(name)
            used[example.product, example.label, name] += 1
        if progress is not None:
            progress("labelled defects", done, len(examples))
    return DescribedExamples(
        keys=np.stack(keys) if keys else np.zeros((0, 1), np.float32),
        labels=tuple(labels),
        sources=_rows(used, "type"),
        left_out=_rows(lost, "reason"),
    )


def weigh_by_mask(example: TypeExample, features: VisualFeatures, height: int, width: int) -> Weights | None:
    """The share of each patch that the mask covers; None without a mask or with an empty one."""
    mask = example.read_mask(height, width)
    return mask_weights(mask, features.grid) if mask is not None and mask.any() else None


def weighing_by_map(backbone: Backbone, folder: Path | None) -> Weighing:
    """Weigh patches as a query's are: by the map of words where the backbone has a text tower, else of references.

    Without a text tower, examples without references cannot be weighed.

    Args:
        backbone: the feature extractor.
        folder: where embedded prompts are kept between runs.

    Raises:
        StorageError: the prompts cannot be kept.
    """
    anchors = ensemble_anchors(backbone, folder=folder) if backbone.has_text else None
    experts: dict[tuple[Path, ...], FittedExpert] = {}

    def weigh(example: TypeExample, features: VisualFeatures, height: int, width: int) -> Weights | None:
        if anchors is not None:
            return defect_weights(patch_scores_of(features, anchors, ZeroShotConfig())[0])
        if not example.references:
            return None
        if example.references not in experts:
            experts.clear()  # examples come product by product, and a memory bank is large
            tokens = [expert_tokens(_look(path, backbone)[0]) for path in example.references]
            experts[example.references] = ReferenceFit(tokens, range(len(tokens)), ExpertConfig()).expert
        return defect_weights(experts[example.references].score_grid(features))

    return weigh


def _describe(example: TypeExample, backbone: Backbone, weigh: Weighing) -> NDArray[np.float32] | None:
    features, height, width = _look(example.path, backbone)
    weights = weigh(example, features, height, width)
    return None if weights is None else defect_key(features, weights, joint=backbone.has_text)


def _look(path: Path, backbone: Backbone) -> tuple[VisualFeatures, int, int]:
    """Features of a picture in the frame of an inspection, and the picture's height and width."""
    rgb = load_image(path).rgb
    # one with text brings pictures into the frame it was trained in by itself
    framed = rgb if backbone.has_text else prepare(rgb, ExpertConfig())
    return backbone.encode_image(framed[None]), rgb.shape[0], rgb.shape[1]


def _rows(counts: Mapping[tuple[str, str, str], int], third: str) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"product": product, "label": label, third: what, "pictures": number}
        for (product, label, what), number in sorted(counts.items())
    )
