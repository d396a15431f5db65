"""A product in memory: everything that an inspection needs to know about good parts and known defects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import ProductError
from .ad_expert.anomaly_map import grid_to_pixels, smooth_grid
from .ad_expert.calibration import MIN_REFERENCES, Calibration
from .ad_expert.evidence_gate import Gate, MapScale, cells_of, judge_map
from .ad_expert.expert import FittedExpert, Localisation
from .ad_expert.regions import FoundRegion, find_regions, place_in_words
from .ad_expert.text_guidance import TextGuidance
from .backbones import Backbone, VisualFeatures
from .defect_features import defect_feature, defect_weights, patch_matrix
from .defect_types import TypeModel
from .imaging import load_image
from .tiled import cell_grid, localise_tiles

SHORTLIST = 5
FULL_DEVIATION = 0.35
"""Share of the pixel threshold above it that counts as full deviation where nothing else says what does."""


@dataclass(frozen=True)
class PixelScale:
    """The product's own scale for anomaly_map values, from the references judged by each other.

    Attributes:
        threshold: good patches stay below it nearly everywhere.
        peak: highest value that most good parts reach.
        area_share: share of the picture that the largest area above the threshold has on most good parts.
    """

    threshold: float
    peak: float
    area_share: float


@dataclass(frozen=True)
class ProductModel:
    """A fitted product.

    Attributes:
        name: of the product.
        backbone: that made the tokens.
        expert: for whole pictures.
        fine: for windows of half the sides (zoom); None where pictures hold no more pixels than the first look uses.
        tiles: for tiles of pictures too large for one look; None for other products.
        calibration: leave-one-out scores per view.
        pixel_scale: for regions and overlays.
        reference_tokens: per owner, float16 (N, D) tokens and their grid.
        reference_names: file names as enrolled.
        reference_hashes: sha256 of the files.
        reference_files: stored pictures, for side-by-side views.
        left_out: names of exact copies that were not used.
        rotate: whether quarter turns were learnt too.
        value_range: fixed grey range for 16-bit and float pictures.
        types: defect types, None without examples.
        type_examples: examples per type.
        false_alarm: rate stated at enrolment, None when none was.
        fingerprint: hash over the product's files, recorded in reports.
        reference_pictures: uint8 pictures, only right after fitting.
        text: what words add; None for backbones without a text tower, and for a single reference.
        map_scale: what of the map a language model is shown; None for a single reference and where an earlier version
            enrolled the product (see ``shown_scale``).
        head_sha256: of the trained head that whole pictures are scored with, None without one.
    """

    name: str
    backbone: Backbone
    expert: FittedExpert
    fine: FittedExpert | None
    tiles: FittedExpert | None
    calibration: Calibration
    pixel_scale: PixelScale
    reference_tokens: dict[int, tuple[NDArray[np.float16], tuple[int, int]]]
    reference_names: tuple[str, ...]
    reference_hashes: tuple[str, ...]
    reference_files: tuple[str, ...]
    left_out: tuple[str, ...]
    rotate: bool
    value_range: tuple[float, float] | None
    types: TypeModel | None
    type_examples: dict[str, int]
    false_alarm: float | None
    fingerprint: str
    reference_pictures: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False)
    text: TextGuidance | None = None
    map_scale: MapScale | None = None
    head_sha256: str | None = None

    @property
    def shown_scale(self) -> MapScale:
        """How the map reads to a language model.

        An earlier version kept no such scale. Then the pixel scale stands in: it is stricter, since its threshold is a
        higher quantile of the same residuals and its area is that of all deviating patches together.
        """
        if self.map_scale is not None:
            return self.map_scale
        scale = self.pixel_scale
        return MapScale(scale.threshold, (1.0 + FULL_DEVIATION) * scale.threshold, scale.area_share)

    def gate(self, anomaly_map: NDArray[np.float32], grid: tuple[int, int]) -> Gate:
        """Whether a map may speak for a defect.

        Args:
            anomaly_map: float32 (H, W), of `localise`.
            grid: (h, w) of its patches; for tiles it is formed anew.
        """
        if self.tiles is not None:
            grid = cell_grid(anomaly_map.shape[0], anomaly_map.shape[1], self.tiles.config.short_side_px)
        calibrated = len(self.reference_names) >= MIN_REFERENCES
        return judge_map(cells_of(anomaly_map, grid), self.shown_scale, calibrated=calibrated)

    @property
    def pixel_threshold(self) -> float:
        """Lower end of the overlay's colours."""
        return self.pixel_scale.threshold

    def typical(self, view: str) -> float | None:
        """Median raw score of the references under a view; None for a single reference or a view not calibrated."""
        if view not in self.calibration.views or not len(self.calibration.scores):
            return None
        return float(np.median(self.calibration.scores[:, self.calibration.views.index(view)]))

    def reference_path(self, name: str) -> str:
        """The stored picture of a reference.

        Raises:
            ProductError: there is no reference of that name.
        """
        try:
            return self.reference_files[self.reference_names.index(name)]
        except ValueError:
            raise ProductError(f"the product {self.name} has no reference {name}.") from None

    def reference_picture(self, owner: int, max_pixels: int) -> NDArray[np.uint8]:
        """A reference, uint8 (H, W, 3): kept from fitting, or its file decoded.

        Args:
            owner: its place among the references.
            max_pixels: larger files are refused.

        Raises:
            InputError: the file cannot be read.
        """
        if self.reference_pictures:
            return self.reference_pictures[owner]
        return load_image(self.reference_files[owner], value_range=self.value_range, max_pixels=max_pixels).rgb

    def localise(self, features: VisualFeatures, rgb: NDArray[np.uint8]) -> Localisation:
        """Compare a picture's features with the good references; the map has the picture's pixels."""
        height, width = rgb.shape[:2]
        found = self.expert.localise(features, height, width)
        if self.text is not None:
            words = self.text.look(features, height, width)
            joined = smooth_grid(self.text.joined(found.patch_scores, words.patch_scores))
            found = replace(found, anomaly_map=grid_to_pixels(joined, height, width), text_score=words.image_score)
        if self.tiles is None:
            return found
        anomaly_map, score = localise_tiles(self.tiles, self.backbone, rgb)
        return replace(found, anomaly_map=anomaly_map, tile_score=score)

    def regions(self, anomaly_map: NDArray[np.float32]) -> list[FoundRegion]:
        """Suspicious areas on the product's own scale."""
        scale = self.pixel_scale
        return find_regions(
            anomaly_map, scale.threshold, min_area_px=1.5 * scale.area_share * anomaly_map.size, min_peak=scale.peak
        )

    def place_of_alarm(
        self, anomaly_map: NDArray[np.float32], patch_scores: NDArray[np.float32], image_score: float
    ) -> FoundRegion:
        """Where an alarm lies that no remarkable region explains.

        Returns:
            The whole picture when its look raised the score more than its patches did; else the strongest area above
            the pixel threshold, however small, or at last the surroundings of the highest value.
        """
        height, width = anomaly_map.shape
        y, x = (int(v) for v in np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape))
        peak = float(anomaly_map[y, x])
        look = self.expert.appearance
        local = self.expert.local_score(patch_scores)
        usual_look = look.typical_added if look else 0.0
        usual_local = (self.typical("whole") or 0.0) - usual_look
        if (image_score - local) - usual_look > max(local - usual_local, 0.0):
            return FoundRegion((0, 0, width, height), height * width, peak, (x, y), "whole picture")
        small = find_regions(anomaly_map, self.pixel_scale.threshold, min_area_px=0, min_peak=0, max_regions=1)
        if small:
            return small[0]
        h, w = max(1, height // 16), max(1, width // 16)
        box = (max(0, x - w), max(0, y - h), min(width, x + w + 1), min(height, y + h + 1))
        area = (box[2] - box[0]) * (box[3] - box[1])
        return FoundRegion(box, area, peak, (x, y), place_in_words(box, width, height))

    def name_type(self, features: VisualFeatures, patch_scores: NDArray[np.float32]) -> dict[str, Any] | None:
        """Compare the suspicious patches with the examples of defect types.

        Returns:
            ``name``, ``posterior``, ``candidates`` (at most SHORTLIST), ``entropy`` in [0, 1] and ``source``; None when
            no examples are known.
        """
        if self.types is None:
            return None
        feature = defect_feature(patch_matrix(features), defect_weights(patch_scores))
        posterior = self.types.posterior(feature)
        shares = np.array([share for _, share in posterior])
        positive = shares[shares > 0]
        entropy = float(-(positive * np.log(positive)).sum() / math.log(len(shares))) if len(shares) > 1 else 0.0
        return {
            "name": posterior[0][0],
            "posterior": posterior[0][1],
            "candidates": [{"name": name, "posterior": share} for name, share in posterior[:SHORTLIST]],
            "entropy": min(1.0, max(0.0, entropy)),
            "source": f"examples of {self.name}",
        }
