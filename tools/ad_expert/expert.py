"""The AD Expert in reference mode: what differs from good parts, and where.

Patch tokens of the backbone's deepest layer, averaged over 3x3 patches and normalised, are compared with a memory_bank
of good references; the anomaly_map is the distance to the nearest of them, the image_score the mean of the highest two
percent (AnomalyDINO, Damm et al. 2024, averages one percent; PatchCore takes the maximum), plus what the look of the
whole part adds where good parts agree in it (``appearance``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...agent.errors import ProductError
from ..backbones import Backbone, VisualFeatures
from .alignment import Alignment, captures_differ
from .anomaly_map import grid_to_pixels, smooth_grid, top_fraction_mean
from .appearance import Appearance, appearance_gain, fit_appearance, picture_statistics
from .memory_bank import MemoryBank, Progress, greedy_coreset
from .token_frame import PLACE_WEIGHT, PLACED_SHARE, fit_frame, measure_rivals, rival_weights, same_place_share

STRIDE_PX = 16
MAX_ASPECT = 8
"""Longer pictures are squeezed to this aspect, so that a line scan cannot ask for a grid without end."""
MAX_GAIN = 3.0
"""A picture is brightened or darkened at most by this factor."""


@dataclass(frozen=True)
class ExpertConfig:
    """How the expert looks. Stored with each product, since its numbers hold only for these values.

    Attributes:
        short_side_px: model pixels of the picture's shorter side.
        bank_size: tokens kept in the memory bank.
        top_fraction: share of the patches that makes the image_score.
        mean_grey: brightness that every picture is brought to, 0 to 255; None leaves it.
        ignored: boxes that are not judged, XYXY as shares of the picture's sides.
        inspected: boxes that alone are judged; empty for everywhere.
    """

    short_side_px: int = 448
    bank_size: int = 3000
    top_fraction: float = 0.02
    mean_grey: float | None = 110.0
    ignored: Sequence[Sequence[float]] = ()
    inspected: Sequence[Sequence[float]] = ()

    @property
    def partial(self) -> bool:
        """Whether only parts of a picture are judged."""
        return bool(self.ignored or self.inspected)


@dataclass(frozen=True)
class Localisation:
    """Where a picture differs from good parts.

    Attributes:
        anomaly_map: float32 (H, W), pixels of the given picture; distances in [0, 2].
        image_score: mean of the highest patch scores.
        patch_scores: float32 (h, w) on the patch grid, before smoothing.
        tile_score: score of the strongest tile, None for pictures that are seen in one look.
        text_score: what the words say of the picture, None for backbones without a text tower.
    """

    anomaly_map: NDArray[np.float32]
    image_score: float
    patch_scores: NDArray[np.float32]
    tile_score: float | None = None
    text_score: float | None = None


def config_for(backbone: Backbone) -> ExpertConfig:
    """The default configuration; a backbone with a canvas of its own gets pictures that just fill it."""
    side = backbone.image_size_px
    if side is None:
        return ExpertConfig()
    return ExpertConfig(
        short_side_px=-(-side // STRIDE_PX) * STRIDE_PX, mean_grey=None
    )  # level light is unmeasured there


def prepare(rgb: NDArray[np.uint8], config: ExpertConfig) -> NDArray[np.uint8]:
    """Bring a picture to the model's frame and the model's brightness.

    Args:
        rgb: uint8 (H, W, 3).
        config: for the frame and the brightness.

    Returns:
        uint8 (H', W', 3), see ``resize_to_frame``.
    """
    if _is_grey(rgb):  # as many factory cameras see: half the time, the same values
        plane = _frame_and_level(np.ascontiguousarray(rgb[:, :, 0]), config)
        return np.stack([plane, plane, plane], axis=2)
    return _frame_and_level(rgb, config)


def _frame_and_level(picture: NDArray[np.uint8], config: ExpertConfig) -> NDArray[np.uint8]:
    framed = resize_to_frame(picture, config.short_side_px)
    return framed if config.mean_grey is None else level_light(framed, config.mean_grey)


def _is_grey(rgb: NDArray[np.uint8]) -> bool:
    """Whether all three channels are equal; few pixels rule most colour pictures out."""
    few, (red, green, blue) = rgb[::16, ::16], np.moveaxis(rgb, 2, 0)
    return not (few != few[:, :, :1]).any() and bool((red == green).all() and (green == blue).all())


def level_light(picture: NDArray[np.uint8], mean_grey: float) -> NDArray[np.uint8]:
    """Multiply a picture so that its mean is ``mean_grey``: a lamp that ages or a shutter that drifts is no defect.

    Args:
        picture: uint8 (H, W, 3) or (H, W).
        mean_grey: 0 to 255; reached unless that takes more than MAX_GAIN either way.

    Returns:
        uint8 of the same shape, not writeable; what gets brighter than white is white.
    """
    mean = float(picture[::4, ::4].mean())  # every 16th pixel says as much
    gain = min(MAX_GAIN, max(1.0 / MAX_GAIN, mean_grey / max(mean, 1.0)))
    table = np.clip(np.arange(256) * gain + 0.5, 0, 255).astype(np.uint8)
    levelled = picture.tobytes().translate(table.tobytes())  # two thirds of the time of np.take
    return np.frombuffer(levelled, np.uint8).reshape(picture.shape)


def resize_to_frame(picture: NDArray[np.uint8], short_side_px: int) -> NDArray[np.uint8]:
    """Resize: aspect kept (up to MAX_ASPECT), both sides multiples of 16, nothing cropped.

    Args:
        picture: uint8 (H, W, 3) or (H, W).
        short_side_px: wanted shorter side.

    Returns:
        uint8 (H', W', 3) or (H', W').
    """
    height, width = picture.shape[:2]
    scale = short_side_px / min(height, width)
    longest = short_side_px * MAX_ASPECT
    sides = [min(longest, side * scale) for side in (height, width)]
    h, w = (max(2, round(side / STRIDE_PX)) * STRIDE_PX for side in sides)
    if (h, w) == (height, width):
        return picture
    # Enlarging wants the smooth curve (textile loses 3 points without); reducing is an average either way, and half as
    # dear by straight lines. reducing_gap decimates by whole boxes first, a fraction of the time for large pictures.
    method = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(picture).resize((w, h), method, reducing_gap=3.0))


def unjudged_patches(grid: tuple[int, int], config: ExpertConfig) -> NDArray[np.bool_]:
    """Patches that an ignored box touches, and those that no inspected box touches where there are any.

    Args:
        grid: (h, w) of the patches, which cover the picture edge to edge.
        config: for the boxes.

    Returns:
        bool (h, w).
    """

    def touched(boxes: Sequence[Sequence[float]]) -> NDArray[np.bool_]:
        found = np.zeros(grid, np.bool_)
        for x0, y0, x1, y1 in boxes:
            top, bottom = math.floor(y0 * grid[0] + 1e-9), math.ceil(y1 * grid[0] - 1e-9)
            left, right = math.floor(x0 * grid[1] + 1e-9), math.ceil(x1 * grid[1] - 1e-9)
            found[top:bottom, left:right] = True
        return found

    ignored = touched(config.ignored)
    return ignored | ~touched(config.inspected) if config.inspected else ignored


def expert_tokens(features: VisualFeatures) -> NDArray[np.float32]:
    """Tokens that are compared: deepest layer, 3x3 average (edges repeated), unit length.

    Args:
        features: of one or more pictures; the first is used.

    Returns:
        float32 (N, D).
    """
    h, w = features.grid
    grid = features.patch_tokens[-1][0].reshape(h, w, -1)
    padded = np.pad(grid, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    pooled = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]).reshape(h * w, -1)
    norms = np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-6)
    return np.asarray(pooled / norms, dtype=np.float32)


class FittedExpert:
    """A memory bank and how to read it.

    Attributes:
        bank: the references.
        config: how pictures are prepared and scored.
        appearance: what the look of the whole part adds to the image_score; None for windows of parts.
        alignment: takes off what differs between captures; None for windows of parts, and where good parts agree.
    """

    def __init__(
        self,
        bank: MemoryBank,
        config: ExpertConfig,
        appearance: Appearance | None = None,
        alignment: Alignment | None = None,
    ) -> None:
        self.bank = bank
        self.config = config
        self.appearance = appearance
        self.alignment = alignment

    @property
    def untrained(self) -> FittedExpert:
        """This expert without a trained head; itself unless there is one."""
        return self

    def encode(self, backbone: Backbone, rgb: NDArray[np.uint8]) -> VisualFeatures:
        """One forward pass over a picture, uint8 (H, W, 3), in the frame that the bank was made in."""
        return backbone.encode_image(prepare(rgb, self.config)[None])

    def score_grid(self, features: VisualFeatures) -> NDArray[np.float32]:
        """Distance of each patch to the bank, float32 (h, w)."""
        grid = self.distances(expert_tokens(features), features.grid).reshape(features.grid)
        if self.config.partial:
            grid = np.where(unjudged_patches(features.grid, self.config), np.float32(0.0), grid)
        return grid

    def distances(self, tokens: NDArray[np.float32], grid: tuple[int, int] | None) -> NDArray[np.float32]:
        """Distance of each patch to the bank, once the picture is aligned with the references.

        Args:
            tokens: float32 (N, D) from ``expert_tokens``, all of one picture.
            grid: its (h, w); needed where places count.

        Returns:
            float32 (N,).
        """
        return self.bank.distances(tokens if self.alignment is None else self.alignment.apply(tokens), grid)

    def local_score(self, patch_scores: NDArray[np.float32]) -> float:
        """What the patches alone say of a picture or a window of it."""
        return top_fraction_mean(patch_scores, self.config.top_fraction)

    def image_score(self, patch_scores: NDArray[np.float32], features: VisualFeatures) -> float:
        """The score of a whole picture: its patches, and what its look as a whole adds or its capture takes off."""
        whole = self.appearance if not self.config.partial else None  # the look of the whole holds what is ignored
        added = whole.added_score(picture_statistics(features)) if whole else 0.0
        taken_off = self.alignment.background(patch_scores) if self.alignment else 0.0
        return self.local_score(patch_scores) + added - taken_off

    def localise(self, features: VisualFeatures, height: int, width: int) -> Localisation:
        """Judge a picture by its features.

        Args:
            features: from ``encode``.
            height: of the picture whose pixels the map shall have.
            width: likewise.
        """
        patch_scores = self.score_grid(features)
        anomaly_map = grid_to_pixels(smooth_grid(patch_scores), height, width)
        return Localisation(anomaly_map, self.image_score(patch_scores, features), patch_scores)


class ReferenceFit:
    """The memory bank of a set of references, and each reference judged by the others.

    A reference may come in several views (rotations, tiles); its views share an owner number and leave together. For
    the judgement the owner's tokens leave the bank, and of the tokens of other references that they stood for as many
    come back in: about the bank that the selection would have made without it.

    Args:
        tokens: per view, float32 (N, D) from ``expert_tokens``.
        owners: which reference each view belongs to; the first view of each is the reference as it is.
        config: stored with the result.
        grids: (h, w) of each view when it is a whole picture the right way up, so that places may count; None else.
        statistics: ``picture_statistics`` of each reference, float32 (n, K) in the order of owner numbers 0..n-1; None
            where views are not whole pictures.
        progress: told about the selection.

    Raises:
        ProductError: there is no reference.
    """

    def __init__(
        self,
        tokens: Sequence[NDArray[np.float32]],
        owners: Sequence[int],
        config: ExpertConfig,
        *,
        grids: Sequence[tuple[int, int]] | None = None,
        statistics: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> None:
        if not tokens:
            raise ProductError("there are no good references.", hint="Give at least one good picture.")
        owner_of = list(owners)
        firsts = [owner_of.index(owner) for owner in sorted(set(owner_of))]
        placed = grids and same_place_share([tokens[i] for i in firsts], [grids[i] for i in firsts]) > PLACED_SHARE
        shapes: Sequence[tuple[int, int] | None] = grids if grids else [None] * len(tokens)
        self._frame = fit_frame(np.concatenate(list(tokens)), PLACE_WEIGHT if placed else 0.0)
        self._tokens = np.concatenate(
            [self._frame.coordinates(view, shape) for view, shape in zip(tokens, shapes, strict=True)]
        )
        self._owners = np.repeat(np.asarray(owner_of, np.int32), [len(view) for view in tokens])
        self._kept, self._standing_for = greedy_coreset(self._tokens, config.bank_size, progress=progress)
        self._rivals = measure_rivals(self._tokens, self._owners, self._kept)
        apart = self._rivals.without(None)
        self._typical = float(np.median(apart[np.isfinite(apart)])) if np.isfinite(apart).any() else 1.0
        self._without: dict[int, tuple[NDArray[np.intp], NDArray[np.float32]]] = {}
        self._statistics = statistics
        self._means = np.stack([tokens[i].mean(axis=0) for i in firsts])
        self._aligned = statistics is not None and captures_differ(statistics)
        self.expert = FittedExpert(self._bank(self._kept, apart), config, alignment=self._alignment(self._means))
        if statistics is not None and len(statistics) > 1:
            local = [self._local_without(owner, tokens[i], shapes[i]) for owner, i in enumerate(firsts)]
            gain = appearance_gain(statistics, np.array(local, np.float64))
            self.expert.appearance = fit_appearance(statistics, gain)

    def _bank(self, rows: NDArray[np.intp], apart: NDArray[np.float32]) -> MemoryBank:
        weights = rival_weights(apart, self._typical)
        return MemoryBank(self._tokens[rows], self._owners[rows], self._frame, weights)

    def _local_without(self, owner: int, tokens: NDArray[np.float32], grid: tuple[int, int] | None) -> float:
        expert = self.without(owner)
        return expert.local_score(expert.distances(tokens, grid))

    def _alignment(self, means: NDArray[np.float32]) -> Alignment | None:
        return Alignment(means.mean(axis=0)) if self._aligned else None

    def without(self, owner: int) -> FittedExpert:
        """The expert that the other references make.

        Raises:
            ProductError: there is no other reference.
        """
        rows, apart = self._rows_without(owner)
        others = None
        if self._statistics is not None and self.expert.appearance is not None:
            others = fit_appearance(np.delete(self._statistics, owner, axis=0), self.expert.appearance.gain)
        alignment = self._alignment(np.delete(self._means, owner, axis=0))
        return FittedExpert(self._bank(rows, apart), self.expert.config, others, alignment)

    def _rows_without(self, owner: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Tokens that the bank has without a reference, and how far good parts are apart around each.

        Every view asks for them, so they are kept; rows, not tokens, since a product may have hundreds of references.
        """
        if owner not in self._without:
            kept_owners = self._owners[self._kept]
            stays = kept_owners != owner
            left = self._kept[stays]
            orphaned = np.flatnonzero((kept_owners[self._standing_for] == owner) & (self._owners != owner))
            # As many as left: with all of them the bank would be finest just where the left-out reference lies.
            returning = orphaned[greedy_coreset(self._tokens[orphaned], len(self._kept) - len(left))[0]]
            rivals = measure_rivals(self._tokens, self._owners, returning)
            apart = np.concatenate([self._rivals.without(owner)[stays], rivals.without(owner)])
            self._without[owner] = np.concatenate([left, returning]), apart
        return self._without[owner]
