"""What else the good references show: the same part moved, turned or mirrored, where that is a good part too.

A part that lies at any angle is learnt at quarter turns when its enrolment asks for it. Mirror images are tried without
being asked for: if a mirrored reference resembles the other references as much as it does itself unmirrored, the
product does not know left from right (or top from bottom), and each reference is worth more pictures than it is.

Few references are also learnt half a patch aside: the next part will not lie on their grid of patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..backbones import Backbone, VisualFeatures
from .appearance import picture_statistics
from .expert import STRIDE_PX, ExpertConfig, ReferenceFit, expert_tokens
from .memory_bank import MemoryBank, Progress

NATURAL = 1.05
"""Mean distance of mirrored references to the others, against unmirrored ones, up to which the mirror image is good.
Measured: 0.99 to 1.05 where a product has no such side, 1.07 to 1.35 where it has."""
PROBES = 6
"""References that are mirrored to find out."""
FEW = 8
"""From so many references on they show the grid in enough positions by themselves, and copies crowd the memory_bank."""


def fit_references(
    pictures: Sequence[NDArray[np.uint8]],
    features: Sequence[VisualFeatures],
    backbone: Backbone,
    config: ExpertConfig,
    *,
    rotate: bool = False,
    progress: Progress | None = None,
) -> ReferenceFit:
    """The expert of a set of whole pictures, with every good view that they give.

    Args:
        pictures: prepared references, uint8 (H, W, 3) each.
        features: of each.
        backbone: for the other views.
        config: of the expert.
        rotate: the part lies at any angle: learn quarter turns, and let places mean nothing.
        progress: told about each stage.

    Raises:
        ProductError: there is no reference.
    """
    tokens = [expert_tokens(seen) for seen in features]
    grids = [seen.grid for seen in features]
    tell = progress or (lambda what, done, total: None)
    more = (_turned if rotate else _mirrored)(pictures, tokens, backbone, tell)
    if len(pictures) < FEW:
        more += [(owner, _encode(backbone, moved_aside(picture))) for owner, picture in enumerate(pictures)]
    return ReferenceFit(
        [*tokens, *(expert_tokens(seen) for _, seen in more)],
        [*range(len(tokens)), *(owner for owner, _ in more)],
        config,
        grids=None if rotate else [*grids, *(seen.grid for _, seen in more)],
        statistics=np.stack([picture_statistics(seen) for seen in features]) if features else None,
        progress=progress,
    )


def _turned(
    pictures: Sequence[NDArray[np.uint8]], tokens: Sequence[NDArray[np.float32]], backbone: Backbone, tell: Progress
) -> list[tuple[int, VisualFeatures]]:
    """Quarter turns of all references, each with its owner."""
    found = []
    for owner, picture in enumerate(pictures):
        tell("turning the references", owner, len(pictures))
        found += [(owner, _encode(backbone, np.rot90(picture, turn))) for turn in (1, 2, 3)]
    tell("turning the references", len(pictures), len(pictures))
    return found


def _mirrored(
    pictures: Sequence[NDArray[np.uint8]], tokens: Sequence[NDArray[np.float32]], backbone: Backbone, tell: Progress
) -> list[tuple[int, VisualFeatures]]:
    """Mirror images of all references about each axis for which they are good parts, each with its owner."""
    found = []
    for axis in (1, 0) if len(pictures) > 1 else ():  # a single reference cannot say what is good
        tell("mirroring the references", 0, len(pictures))
        seen = [_encode(backbone, np.flip(picture, axis)) for picture in pictures[:PROBES]]
        if is_natural(tokens, [expert_tokens(features) for features in seen]):
            for owner, picture in enumerate(pictures[PROBES:], start=PROBES):
                tell("mirroring the references", owner, len(pictures))
                seen.append(_encode(backbone, np.flip(picture, axis)))
            found += list(enumerate(seen))
        tell("mirroring the references", len(pictures), len(pictures))
    return found


def moved_aside(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture, uint8 (H, W, 3), moved half a patch to the left and up; what comes in at the borders is mirrored."""
    half = STRIDE_PX // 2
    padded = np.pad(picture, ((0, half), (0, half), (0, 0)), mode="symmetric")
    return np.asarray(padded[half:, half:])


def _encode(backbone: Backbone, picture: NDArray[np.uint8]) -> VisualFeatures:
    return backbone.encode_image(np.ascontiguousarray(picture)[None])


def is_natural(tokens: Sequence[NDArray[np.float32]], changed: Sequence[NDArray[np.float32]]) -> bool:
    """Whether changed references are as near to the other references as they are unchanged.

    Args:
        tokens: float32 (N, D) per reference, unit rows.
        changed: of the first references, changed.
    """
    as_is, as_changed = 0.0, 0.0
    for owner, view in enumerate(changed):
        others = np.concatenate([other for number, other in enumerate(tokens) if number != owner])
        bank = MemoryBank(others, np.zeros(len(others), np.int32))
        as_is += float(bank.distances(tokens[owner]).mean())
        as_changed += float(bank.distances(view).mean())
    return as_changed <= NATURAL * as_is
