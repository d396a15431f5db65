"""The AD Expert without references: each patch is compared with words for good and for damaged parts.

ADSeeker (arXiv 2508.03088, Eq. 2) locates by the ratio of two cosines; AnomalyCLIP (Zhou et al., ICLR 2024, section 3)
by a softmax over them. ``loc_mode`` chooses: ``softmax`` is the default, since cosines of CLIP differ by hundredths and
their ratio stays within hundredths of one half; ``paper`` is the ratio with both cosines raised by one, as the printed
one is undefined where they are negative or cancel out. Both put a patch on the same side of one half.

Everything is numpy on a backbone's features, so the scorer serves any backbone whose patch tokens lie in the joint
space of its text tower. Scores are in [0, 1] and no picture is scaled by itself, but neither is any of it calibrated:
one half is where the words balance, not where good parts end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import BackendError
from ..backbones import Backbone, VisualFeatures
from .anomaly_map import grid_to_pixels, smooth_grid, top_fraction_mean
from .calibration import MAD_TO_SIGMA
from .prompt_ensemble import ensemble_anchors
from .text_anchors import GENERIC, TextAnchors

if TYPE_CHECKING:
    from .anchor_source import TypePrompts
    from .type_centroids import TypeMatch

LocMode = Literal["softmax", "paper"]
SMOOTHING_SHARE = 4.0 / 518.0
"""Sigma of the map's Gaussian as a share of the picture's longer side: 4 px at 518, whatever the picture's size."""
STANDS_OUT_SIGMA = 3.0
"""Robust standard deviations above a picture's median patch from which on an area stands out of that picture."""
REMARKABLE_SIGMA = 6.0
"""Likewise for an area smaller than a patch."""
LEAST_RISE = 0.02
"""Rise above the median that counts as anything at all: flat pictures spread by less."""


@dataclass(frozen=True)
class ZeroShotConfig:
    """How cosines become scores.

    Attributes:
        loc_mode: ``softmax`` or ``paper``.
        temperature: of the softmax, and of the soft maximum over defect types.
        top_fraction: share of the map that makes the local half of the image_score.
    """

    loc_mode: LocMode = "softmax"
    temperature: float = 0.07
    top_fraction: float = 0.01

    def __post_init__(self) -> None:
        if self.loc_mode not in ("softmax", "paper") or not 0.0 < self.temperature < np.inf:
            raise BackendError(f"no way to score: loc_mode {self.loc_mode!r}, temperature {self.temperature}.")


@dataclass(frozen=True)
class ZeroShotLook:
    """What the words say of a picture. Nothing here is calibrated.

    Attributes:
        anomaly_map: float32 (H, W), pixels of the given picture, in [0, 1].
        image_score: half the whole picture's score, half the mean of the map's highest values; in [0, 1].
        patch_scores: float32 (h, w) on the patch grid, before smoothing.
        global_score: what the picture's global feature alone says, in [0, 1].
        anchors: the words that were compared with.
        types: the defect types that they name; None when they name none.
    """

    anomaly_map: NDArray[np.float32]
    image_score: float
    patch_scores: NDArray[np.float32]
    global_score: float
    anchors: TextAnchors
    types: TypeMatch | None = None


@dataclass(frozen=True)
class StandOut:
    """Levels of a map relative to the picture itself, for pictures that nothing else can be compared with.

    Attributes:
        median: of the smoothed patches.
        threshold: areas above it stand out of this picture.
        peak: what an area smaller than a patch must reach.
    """

    median: float
    threshold: float
    peak: float


class PromptedSight(Protocol):
    """Trained prompts that depend on the picture (``picture_prompts.PicturePrompts``).

    Attributes:
        kind: ``sparse``, ``dense`` or ``lista``.
        sha256: of their file.
    """

    kind: str
    sha256: str

    def see(self, rgb: NDArray[np.uint8]) -> tuple[VisualFeatures, TextAnchors]:
        """Features of a picture (H, W, 3) seen with its prompts, and the words that it is compared with."""
        ...


class ZeroShotExpert:
    """Scores pictures by words alone.

    Args:
        backbone: one whose patch tokens lie in the joint space of its text tower.
        anchors: what patches are compared with; the generic prompt ensemble when None, embedded on first use.
        config: how cosines become scores.
        type_prompts: chooses words for the likely types after a first look; None compares with ``anchors`` alone.
        prompted: sees and words the first look at each picture anew, in place of ``anchors``; None for fixed words.

    Raises:
        BackendError: the backbone has no text tower.
    """

    def __init__(
        self,
        backbone: Backbone,
        anchors: TextAnchors | None = None,
        config: ZeroShotConfig | None = None,
        type_prompts: TypePrompts | None = None,
        prompted: PromptedSight | None = None,
    ) -> None:
        if not backbone.has_text:
            raise BackendError(f"the backbone {backbone.name} has no text tower.", hint="Use the profile paper.")
        self.backbone = backbone
        self.config = config or ZeroShotConfig()
        self.type_prompts = type_prompts
        self.prompted = prompted
        self._anchors = anchors

    @property
    def anchors(self) -> TextAnchors:
        """The text anchors that do not depend on the picture, made once."""
        if self._anchors is None:
            self._anchors = ensemble_anchors(self.backbone)
        return self._anchors

    def score(self, rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        """Judge a picture.

        Args:
            rgb: uint8 (H, W, 3); the backbone brings it into its own frame.

        Returns:
            The image_score in [0, 1], and the anomaly_map, float32 (H, W).
        """
        found = self.localise(None if self._sees_alone else self.backbone.encode_image(rgb[None]), rgb)
        return found.image_score, found.anomaly_map

    def localise(self, features: VisualFeatures | None, rgb: NDArray[np.uint8]) -> ZeroShotLook:
        """Judge a picture that has been through the backbone.

        Args:
            features: of one or more pictures; the first is used. None where trained prompts see the picture by
                themselves and no types are looked for.
            rgb: uint8 (H, W, 3), the picture; its pixels are the map's.
        """
        height, width = rgb.shape[:2]
        first, words = self._first_look(features, rgb)
        if self.type_prompts is not None and features is not None:
            patches = patch_scores_of(first, words, self.config)[0]
            anchors, types = self.type_prompts.choose(self.backbone, features, patches)
            if types.names:  # their words are CLIP's own, and so are the features they are compared with
                return replace(look(features, anchors, self.config, height, width), types=types)
        return look(first, words, self.config, height, width)

    @property
    def _sees_alone(self) -> bool:
        return self.prompted is not None and self.type_prompts is None

    def _first_look(
        self, features: VisualFeatures | None, rgb: NDArray[np.uint8]
    ) -> tuple[VisualFeatures, TextAnchors]:
        if self.prompted is not None:
            return self.prompted.see(rgb)
        assert features is not None  # noqa: S101 - only prompts that see by themselves do without
        return features, self.anchors

    def describe(self) -> dict[str, Any]:
        """What its scores depend on beside the backbone, as JSON values."""
        types_sha256 = self.type_prompts.sha256 if self.type_prompts else None
        words: dict[str, Any]
        if self.prompted is not None:
            first = self.prompted.sha256
            words = {"prompts_sha256": first, "anchors": [GENERIC], "loc_mode": self.config.loc_mode}
        else:
            first = self.anchors.prompts_sha256
            words = describe_anchors(self.anchors, self.config)
        # It chooses the types, so it counts where a second look has other words.
        return {**words, "types_sha256": types_sha256, "first_prompts_sha256": first}


def look(
    features: VisualFeatures, anchors: TextAnchors, config: ZeroShotConfig, height: int, width: int
) -> ZeroShotLook:
    """Judge a picture by its features; see ``ZeroShotExpert.localise``."""
    patch_scores = patch_scores_of(features, anchors, config)[0]
    anomaly_map = smooth_map(patch_scores, height, width)
    global_score = float(scores_of(features.global_features[:1], anchors, config)[0])
    local_score = top_fraction_mean(anomaly_map, config.top_fraction)
    image_score = 0.5 * global_score + 0.5 * local_score
    return ZeroShotLook(anomaly_map, image_score, patch_scores, global_score, anchors)


def patch_scores_of(features: VisualFeatures, anchors: TextAnchors, config: ZeroShotConfig) -> NDArray[np.float32]:
    """Score of every patch, averaged over the layers, float32 (B, h, w) in [0, 1]."""
    layers = [scores_of(tokens, anchors, config) for tokens in features.patch_tokens]
    return np.asarray(np.mean(layers, axis=0), np.float32).reshape(-1, *features.grid)


def scores_of(vectors: NDArray[np.float32], anchors: TextAnchors, config: ZeroShotConfig) -> NDArray[np.float64]:
    """Score of vectors of the joint space.

    Args:
        vectors: (..., D), of any length; zero is as near to one state as to the other.
        anchors: of the same D.
        config: mode and temperature.

    Returns:
        float64 (...), in [0, 1]; above one half where the abnormal words are nearer.

    Raises:
        BackendError: the vectors are of another width than the anchors, or not finite.
    """
    if vectors.shape[-1] != anchors.dim:
        raise BackendError(
            f"features of width {vectors.shape[-1]} cannot be compared with text anchors of width {anchors.dim}."
        )
    rows = vectors.reshape(-1, anchors.dim).astype(np.float32, copy=False)
    lengths = np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
    if not np.isfinite(lengths).all():
        raise BackendError("the backbone returned features that are not finite.")
    texts = np.vstack([anchors.normal[None], anchors.abnormal])
    cosines = np.clip((rows @ texts.T).astype(np.float64) / lengths[:, None], -1.0, 1.0)
    normal, abnormal = cosines[:, 0], soft_maximum(cosines[:, 1:], config.temperature)
    scores = _RATIOS[config.loc_mode](normal, abnormal, config.temperature)
    return np.asarray(scores.reshape(vectors.shape[:-1]), np.float64)


def soft_maximum(cosines: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """``temperature * (logsumexp(cosines / temperature) - log T)`` over the last axis (T): one for many types.

    Between the mean and the largest; a single type stays as it is, to the bit.
    """
    largest = cosines.max(axis=-1)
    below = np.exp((cosines - largest[..., None]) / temperature)
    return np.asarray(largest + temperature * np.log(below.mean(axis=-1)), np.float64)


def _softmax(normal: NDArray[np.float64], abnormal: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Share of the abnormal state in the softmax of the two logits."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * (abnormal - normal) / temperature)), np.float64)  # never overflows


def _shifted_ratio(
    normal: NDArray[np.float64], abnormal: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """ADSeeker's Eq. 2 on cosines raised by one; one half where both are -1."""
    total = 2.0 + normal + abnormal
    return np.asarray(np.where(total > 1e-12, (1.0 + abnormal) / np.maximum(total, 1e-12), 0.5), np.float64)


_RATIOS: dict[str, Callable[..., NDArray[np.float64]]] = {"softmax": _softmax, "paper": _shifted_ratio}


def smooth_map(patch_scores: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear enlargement and Gaussian smoothing in one.

    Args:
        patch_scores: float32 (h, w); the grid covers the picture edge to edge.
        height: of the picture, px.
        width: of the picture, px.

    Returns:
        float32 (height, width) with values in [patch_scores.min(), patch_scores.max()].
    """
    sigma_px = SMOOTHING_SHARE * max(height, width)
    rows = _smooth_interpolation(patch_scores.shape[0], height, sigma_px)
    columns = _smooth_interpolation(patch_scores.shape[1], width, sigma_px)
    enlarged = rows @ patch_scores @ columns.T
    return np.asarray(np.clip(enlarged, patch_scores.min(), patch_scores.max()), np.float32)


@lru_cache(maxsize=8)
def _smooth_interpolation(cells: int, pixels: int, sigma_px: float) -> NDArray[np.float32]:
    """Weights along an axis, float32 (pixels, cells): the interpolation's, smoothed along the pixels.

    Enlarging and smoothing are both linear and separable, so smoothing this narrow matrix equals smoothing the map, and
    a picture of 12 million pixels costs no more than its enlargement.
    """
    from scipy.ndimage import gaussian_filter1d

    interpolation = grid_to_pixels(np.eye(cells, dtype=np.float32), pixels, cells)
    weights = np.asarray(gaussian_filter1d(interpolation, sigma_px, axis=0, mode="reflect"), np.float32)
    weights.flags.writeable = False  # shared by every caller
    return weights


def stand_out(patch_scores: NDArray[np.float32]) -> StandOut:
    """From which values on an area stands out of its own picture: median plus robust standard deviations."""
    smoothed = smooth_grid(patch_scores)
    median = float(np.median(smoothed))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(smoothed - median)))
    threshold = median + max(LEAST_RISE, STANDS_OUT_SIGMA * sigma)
    return StandOut(median, threshold, max(threshold, median + REMARKABLE_SIGMA * sigma))


def describe_anchors(anchors: TextAnchors, config: ZeroShotConfig) -> dict[str, Any]:
    """What a report must say about the words behind its numbers."""
    return {"prompts_sha256": anchors.prompts_sha256, "anchors": list(anchors.names), "loc_mode": config.loc_mode}
