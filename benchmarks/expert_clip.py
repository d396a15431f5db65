"""The expert on CLIP ViT-L/14 at 336 px, beside its own tower: times only, on random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..tools.ad_expert.anomaly_map import smooth_grid
from ..tools.ad_expert.appearance import picture_statistics
from ..tools.ad_expert.calibration import Calibration
from ..tools.ad_expert.expert import ReferenceFit, config_for, expert_tokens, prepare
from ..tools.ad_expert.text_anchors import TextAnchors
from ..tools.ad_expert.text_guidance import TextGuidance, align
from ..tools.ad_expert.zero_shot import ZeroShotConfig, ZeroShotExpert, patch_scores_of
from ..tools.backbones import VisualFeatures
from ..tools.imaging import load_image
from ..tools.product_model import PixelScale, ProductModel
from .expert_parts import (
    BatchRow,
    Forward,
    Judge,
    Picture,
    ProductJudge,
    Sample,
    WholeRow,
    WordsJudge,
    batch_row,
    time_batch,
    time_whole,
    whole_row,
)
from .random_clip import LABEL, random_anchors

if TYPE_CHECKING:
    from ..tools.backbones.clip import ClipBackbone

CLIP_AIM = 1.15
BATCH_REPEATS = 3
GOOD_SHARE = 0.995
"""Of the references' patches that lie below the pixel threshold, as at enrolment."""


def centre_square(rgb: Picture) -> Picture:
    """The middle of a picture, so that every forward pass has the same number of patches."""
    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])


def bare_clip(backbone: ClipBackbone, batch: Picture) -> dict[str, Forward]:
    """The vision tower on a picture that lies ready as a tensor: as this project runs it, and as open_clip does.

    Args:
        backbone: on the CPU.
        batch: uint8 (1, H, W, 3), square.

    Returns:
        ``forward``, with the second path that gives patch tokens, and ``plain``, without it.
    """
    import torch

    from ..tools.backbones.clip_tower import vision_forward

    visual = backbone.model.visual
    pixels, valid, _ = backbone.letterbox(batch)

    def forward() -> object:
        with torch.inference_mode():
            return vision_forward(visual, pixels, layers=backbone.layers, valid=valid)

    def plain() -> object:
        with torch.inference_mode():
            return visual(pixels)

    return {"forward": forward, "plain": plain}


def time_clip(
    backbone: ClipBackbone,
    references: Sequence[Path],
    tests: Sequence[Path],
    rounds: int,
    tell: Callable[[str], None],
) -> tuple[list[WholeRow], BatchRow]:
    """Words alone and references with words, against the tower; and a batch of half the references against each alone.

    Args:
        backbone: with random weights.
        references: of one product, an even number.
        tests: pictures of the same product.
        rounds: times that each picture is judged.
        tell: progress.
    """
    config = config_for(backbone)
    size = len(references) // 2
    prepared = np.stack([prepare(centre_square(load_image(path).rgb), config) for path in references])
    tell("CLIP: warming up")
    backbone.encode_image(prepared[:1])
    tell(f"CLIP: {size} references one by one, {size} as a batch")
    halves = (prepared[:size], prepared[size : 2 * size])
    alone, together, first = time_batch(backbone, *halves, batch_first=False)
    times = [first]
    for repeat in range(1, BATCH_REPEATS):
        tell(f"CLIP: the same with halves and order exchanged, {repeat + 1} of {BATCH_REPEATS}")
        given = halves if repeat % 2 == 0 else (halves[1], halves[0])
        times.append(time_batch(backbone, *given, batch_first=repeat % 2 == 1)[2])
    seen = [*alone, *(_nth(together, number) for number in range(size))]

    anchors = random_anchors(together.global_features.shape[1])
    product = timing_product(backbone, seen, anchors)
    judges: list[Judge] = [WordsJudge(ZeroShotExpert(backbone, anchors)), ProductJudge(product)]
    taken: list[list[Sample]] = [[] for _ in judges]
    for number in range(rounds):
        for place, path in enumerate(tests):
            tell(f"CLIP: round {number + 1} of {rounds}, picture {place + 1} of {len(tests)}")
            samples = time_whole(
                path,
                backbone,
                config,
                judges,
                lambda batch: bare_clip(backbone, batch),
                bare_first=(number + place) % 2 == 0,
                frame=centre_square,
            )
            for own, sample in zip(taken, samples, strict=True):
                own.append(sample)
    names = ("zero-shot", f"{len(seen)} refs")
    rows = [
        whole_row(name if base == "forward" else f"{name}, plain", samples, base, CLIP_AIM)
        for base in ("forward", "plain")
        for name, samples in zip(names, taken, strict=True)
    ]
    return rows, batch_row(f"CLIP ({LABEL})", size, times)


def _nth(features: VisualFeatures, number: int) -> VisualFeatures:
    one = slice(number, number + 1)
    layers = tuple(layer[one] for layer in features.patch_tokens)
    return VisualFeatures(layers, features.global_features[one], features.grid)


def timing_product(backbone: ClipBackbone, seen: Sequence[VisualFeatures], anchors: TextAnchors) -> ProductModel:
    """A product of references that were seen already, with words; no further views, as these cost many forward passes.

    Args:
        backbone: that saw them.
        seen: features of each reference.
        anchors: of the joint space.
    """
    tokens, grids = [expert_tokens(one) for one in seen], [one.grid for one in seen]
    looks = np.stack([picture_statistics(one) for one in seen])
    fit = ReferenceFit(tokens, range(len(seen)), config_for(backbone), grids=grids, statistics=looks)
    distances = [fit.without(owner).score_grid(one) for owner, one in enumerate(seen)]
    words = [patch_scores_of(one, anchors, ZeroShotConfig())[0] for one in seen]
    text = TextGuidance(anchors, ZeroShotConfig(), *align(distances, words))
    joined = np.stack([smooth_grid(text.joined(*pair)) for pair in zip(distances, words, strict=True)])
    threshold = float(np.quantile(joined, GOOD_SHARE))
    return ProductModel(
        name="timing",
        backbone=backbone,
        expert=fit.expert,
        fine=None,
        tiles=None,
        calibration=Calibration(("whole",), np.zeros((0, 1))),
        pixel_scale=PixelScale(threshold, max(threshold, float(joined.max())), float((joined >= threshold).mean())),
        reference_tokens={},
        reference_names=(),
        reference_hashes=(),
        reference_files=(),
        left_out=(),
        rotate=False,
        value_range=None,
        types=None,
        type_examples={},
        false_alarm=None,
        fingerprint="",
        text=text,
    )
