"""Ways to look at a picture. Each gives one raw score, and each is calibrated on the references (``calibrate_views``).

``whole`` is taken of every picture. The others are the retry loop's actions; they add evidence that the first look did
not have: more pixels (zoom), place by place comparison (reference), other pixel grids (self_consistency).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import ProductError
from .ad_expert.anomaly_map import smooth_grid
from .ad_expert.expert import ExpertConfig, FittedExpert, expert_tokens, prepare
from .ad_expert.token_frame import NEIGHBOURHOOD, same_place_share
from .backbones import Backbone, VisualFeatures

if TYPE_CHECKING:
    from .product_model import ProductModel

COMPARED = 3
"""Most similar references that the reference view looks at."""
JITTERS = ((5, 3, 1.0), (-3, 5, 0.97), (3, -5, 1.03), (-5, -3, 1.0))
"""Shift in x and y (model px) and gain of the copies that the self-consistency view scores."""
SAME_PLACE_SHARE = 0.3
"""Share of nearest neighbours at the same place from which on parts are pictured in the same pose (measured: aligned
products 0.48 and 0.84, textures and mixed crops at most 0.15)."""


@dataclass(frozen=True)
class ViewScore:
    """One look.

    Attributes:
        score: raw, on the scale of its own calibration column.
        note: what was seen, one sentence.
        values: the numbers in the note.
    """

    score: float
    note: str
    values: dict[str, Any] = field(default_factory=dict)


def encode(backbone: Backbone, product: ProductModel | None, rgb: NDArray[np.uint8]) -> VisualFeatures:
    """The forward pass that localising, retrieving and naming share; uint8 (H, W, 3) in."""
    if product is not None:
        return product.expert.encode(backbone, rgb)
    if backbone.image_size_px is not None:
        return backbone.encode_image(rgb[None])
    return backbone.encode_image(prepare(rgb, ExpertConfig())[None])


def window_around(size: tuple[int, int], centre: tuple[int, int]) -> tuple[int, int, int, int]:
    """A window of half the picture's sides around a point, moved inside the picture.

    Args:
        size: (height, width), px.
        centre: (x, y), px.

    Returns:
        XYXY half-open, px.
    """
    height, width = size
    h, w = max(1, (height + 1) // 2), max(1, (width + 1) // 2)
    x0 = min(max(0, centre[0] - w // 2), width - w)
    y0 = min(max(0, centre[1] - h // 2), height - h)
    return x0, y0, x0 + w, y0 + h


def tiles_of(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Four quarters and the middle, each of half the sides: where the zoom view learns good parts."""
    height, width = size
    centres = [(0, 0), (width, 0), (0, height), (width, height), (width // 2, height // 2)]
    return [window_around(size, centre) for centre in centres]


def peak_of(anomaly_map: NDArray[np.float32]) -> list[int]:
    """(x, y) of the highest value, px of the map."""
    y, x = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    return [int(x), int(y)]


def zoom(
    product: ProductModel, rgb: NDArray[np.uint8], features: VisualFeatures | None, peak_px: tuple[int, ...]
) -> ViewScore:
    """Inspect a window of half the sides around the peak, at twice the resolution, against windows of good parts.

    Raises:
        ProductError: the product was learnt from pictures without more pixels.
    """
    fine = product.fine
    if fine is None:
        raise ProductError(f"pictures of {product.name} hold no more pixels than the first look used.")
    x0, y0, x1, y1 = window_around((rgb.shape[0], rgb.shape[1]), (peak_px[0], peak_px[1]))
    grid = fine.score_grid(fine.encode(product.backbone, rgb[y0:y1, x0:x1]))
    score = fine.local_score(grid)
    typical = product.typical("zoom")
    note = (
        f"At twice the resolution the suspicious window scores {score:.3g}; {beside('windows of good parts', typical)}."
    )
    return ViewScore(score, note, {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "typical": typical})


def reference(
    product: ProductModel, rgb: NDArray[np.uint8], features: VisualFeatures, peak_px: tuple[int, ...] | None
) -> ViewScore:
    """Compare each place with the same place of the most similar references."""
    grid, nearest = placewise_distances(expert_tokens(features), features.grid, product.reference_tokens)
    score = product.expert.untrained.image_score(grid, features)  # a trained head reads other distances
    typical, name = product.typical("reference"), product.reference_names[nearest]
    note = f"Place by place against the most similar references it scores {score:.3g}; {beside('good parts', typical)}."
    return ViewScore(score, note, {"typical": typical, "reference": name})


def self_consistency(
    product: ProductModel, rgb: NDArray[np.uint8], features: VisualFeatures, peak_px: tuple[int, ...]
) -> ViewScore:
    """Mean score of shifted and slightly dimmed or brightened copies."""
    copies = jittered(prepare(rgb, product.expert.config))
    scores = [interior_score(product.expert, product.backbone.encode_image(copy[None])) for copy in copies]
    score, typical = float(np.mean(scores)), product.typical("self_consistency")
    note = (
        f"{len(scores)} shifted copies score {score:.3g} on average, between {min(scores):.3g} and {max(scores):.3g}; "
        f"{beside('copies of good parts', typical)}."
    )
    values = {"typical": typical, "lowest": min(scores), "highest": max(scores), "copies": len(scores)}
    return ViewScore(score, note, values)


VIEWS: dict[str, Callable[..., ViewScore]] = {
    "zoom": zoom,
    "reference": reference,
    "self_consistency": self_consistency,
}


def beside(what: str, typical: float | None) -> str:
    """What good parts score, or that it is not known (a single reference, or a view that was not calibrated)."""
    return f"what {what} score is not known" if typical is None else f"{what} score {typical:.3g}"


def interior_score(expert: FittedExpert, features: VisualFeatures) -> float:
    """Image score without the outermost ring of patches, which see the mirrored borders of a shifted copy."""
    grid = expert.score_grid(features)
    return expert.image_score(grid[1:-1, 1:-1] if min(grid.shape) > 4 else grid, features)


def has_more_pixels(size: tuple[int, int], config: ExpertConfig) -> bool:
    """Whether a picture (height, width) holds detail that the first look reduced away: only then zooming adds any."""
    return min(size) > config.short_side_px


def same_pose(tokens: Sequence[NDArray[np.float32]], grids: Sequence[tuple[int, int]]) -> bool:
    """Whether the references show their parts in one pose; place by place, textures would only lose references.

    Args:
        tokens: float32 (N, D) per reference, unit rows.
        grids: their (h, w).
    """
    return same_place_share(tokens, grids) > SAME_PLACE_SHARE


def jittered(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Copies of a prepared picture, shifted with mirrored borders and with a small gain."""
    margin = max(max(abs(dx), abs(dy)) for dx, dy, _ in JITTERS)
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    copies = []
    for dx, dy, gain in JITTERS:
        moved = padded[margin + dy : margin + dy + height, margin + dx : margin + dx + width]
        brightened = np.clip(moved.astype(np.float32) * gain, 0, 255).round().astype(np.uint8)
        copies.append(np.ascontiguousarray(brightened))
    return copies


def placewise_distances(
    tokens: NDArray[np.float32],
    grid: tuple[int, int],
    references: dict[int, tuple[NDArray[np.float16], tuple[int, int]]],
    skip: int | None = None,
) -> tuple[NDArray[np.float32], int]:
    """Distance of each patch to the best match near its own place in the most similar references.

    Args:
        tokens: float32 (N, D), unit rows.
        grid: (h, w) of the picture.
        references: per owner number, float16 tokens (N', D) and grid.
        skip: owner that must not be used (leave-one-out).

    Returns:
        float32 (h, w), and the owner of the most similar reference.
    """
    h, w = grid
    ranked = nearest_references(tokens, grid, references, skip)
    query = tokens.reshape(h, w, -1)
    best = np.full((h, w), -1.0, np.float32)
    for owner in ranked[:COMPARED]:
        other = _on_grid(*references[owner], grid)
        padded = np.pad(other, ((NEIGHBOURHOOD,) * 2, (NEIGHBOURHOOD,) * 2, (0, 0)), mode="edge")
        for dy in range(2 * NEIGHBOURHOOD + 1):
            for dx in range(2 * NEIGHBOURHOOD + 1):
                cosines = np.einsum("hwd,hwd->hw", query, padded[dy : dy + h, dx : dx + w])
                np.maximum(best, cosines, out=best)
    return np.sqrt(np.maximum(2.0 - 2.0 * best, 0.0), dtype=np.float32), ranked[0]


def nearest_references(
    tokens: NDArray[np.float32],
    grid: tuple[int, int],
    references: dict[int, tuple[NDArray[np.float16], tuple[int, int]]],
    skip: int | None = None,
) -> list[int]:
    """Owners of the references by likeness as a whole, most similar first; those of the same grid, if there are any.

    Args:
        tokens: float32 (N, D), unit rows.
        grid: (h, w) of the picture.
        references: per owner number, float16 tokens (N', D) and grid.
        skip: owner that must not be used (leave-one-out).
    """
    mean = tokens.mean(axis=0)
    usable = [owner for owner in references if owner != skip]
    same = [owner for owner in usable if references[owner][1] == grid]
    likeness = {o: float(mean @ references[o][0].mean(axis=0, dtype=np.float32)) for o in same or usable}
    return sorted(likeness, key=lambda owner: (-likeness[owner], owner))


def _on_grid(tokens: NDArray[np.float16], own: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.float32]:
    """A reference's tokens on another grid, nearest patch; references of other shapes remain comparable that way."""
    picture = tokens.astype(np.float32).reshape(*own, -1)
    rows = (np.arange(grid[0]) * own[0]) // grid[0]
    columns = (np.arange(grid[1]) * own[1]) // grid[1]
    return np.asarray(picture[rows][:, columns])


def original_regions(regions: Any, picture: dict[str, Any]) -> list[dict[str, Any]]:
    """Regions as plain data in pixels of the original picture (a tiny picture was enlarged before inspection)."""
    sx, sy = picture["scale"]
    width, height = picture["original_size_px"]
    plain = []
    for number, region in enumerate(regions, start=1):
        x0, y0, x1, y1 = region.box
        box = [int(x0 / sx), int(y0 / sy), min(width, -int(-x1 // sx)), min(height, -int(-y1 // sy))]
        plain.append(
            {
                "id": f"R{number}",
                "box": box,
                "area_px": max(1, round(region.area_px / (sx * sy))),
                "peak": region.peak,
                "place": region.place,
            }
        )
    return plain


def peak_px_of_grid(patch_scores: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int]:
    """(x, y) of the smoothed peak of a patch grid in pixels of a picture of ``size`` (height, width)."""
    smoothed = smooth_grid(patch_scores)
    row, column = np.unravel_index(int(smoothed.argmax()), smoothed.shape)
    h, w = smoothed.shape
    return int((column + 0.5) * size[1] / w), int((row + 0.5) * size[0] / h)
