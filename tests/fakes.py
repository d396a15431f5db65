"""Cheap stand-ins: a backbone of a few patch statistics, and reasoners that answer what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flawscope.agent.reasoner import DraftReport, EvidenceBundle, ReasonerReply
from flawscope.tools.backbones import VisualFeatures
from flawscope.tools.backbones.onnx_lite import fit_to_stride

STRIDE_PX = 16


class PatchStatistics:
    """Colour, spread and gradients of each 16 px patch, projected: sees a square on a texture, costs a millisecond."""

    name = "patch-statistics"
    weights_sha256 = "0" * 64
    has_text = False
    image_size_px = None

    def __init__(self, loaded: object = None) -> None:
        """A loader of the registry itself: it needs none of the settings."""

    def encode_image(self, batch: NDArray[np.uint8]) -> VisualFeatures:
        pictures = fit_to_stride(batch).astype(np.float32) / 127.5 - 1.0
        b, height, width, _ = pictures.shape
        h, w = height // STRIDE_PX, width // STRIDE_PX
        grey = pictures.mean(axis=3)
        dx = np.abs(np.diff(grey, axis=2, append=grey[:, :, -1:]))
        dy = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
        planes = np.concatenate([pictures, grey[..., None] ** 2, dx[..., None], dy[..., None]], axis=3)
        pooled = planes.reshape(b, h, STRIDE_PX, w, STRIDE_PX, -1).mean(axis=(2, 4)).reshape(b, h * w, -1)
        rng = np.random.default_rng(0)
        layers = tuple(
            np.asarray(pooled @ rng.normal(size=(pooled.shape[2], depth)) + 0.1, np.float32) for depth in (6, 10)
        )
        return VisualFeatures(layers, np.concatenate([t.mean(axis=1) for t in layers], axis=1), (h, w))

    def encode_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        raise NotImplementedError


class ColourWords:
    """A backbone with a text tower: red patches lie near sentences of damage, all others near sentences without it.

    Its joint space has 8 dimensions: what all pictures and sentences share, the state, and a little that tells patches
    and words apart. Layers deeper down see the state more clearly.
    """

    name = "colour-words"
    weights_sha256 = "1" * 64
    has_text = True
    image_size_px = None
    dim = 8
    damage = ("damage", "broken", "fault", "defect")
    denials = ("without", "no ", "not ")

    def __init__(self) -> None:
        self.embedded = 0

    def encode_image(self, batch: NDArray[np.uint8]) -> VisualFeatures:
        pictures = fit_to_stride(batch).astype(np.float32) / 255.0
        b, height, width, _ = pictures.shape
        h, w = height // STRIDE_PX, width // STRIDE_PX
        pooled = pictures.reshape(b, h, STRIDE_PX, w, STRIDE_PX, 3).mean(axis=(2, 4)).reshape(b, h * w, 3)
        redness = pooled[..., 0] - 0.5 * (pooled[..., 1] + pooled[..., 2])
        layers = tuple(self._joint(clarity * (redness - 0.2), pooled) for clarity in (0.6, 1.0))
        means = pooled.mean(axis=1)
        return VisualFeatures(layers, self._joint(redness.max(axis=1) - 0.2, means), (h, w))

    def _joint(self, state: NDArray[np.float32], colour: NDArray[np.float32]) -> NDArray[np.float32]:
        vectors = np.zeros((*state.shape, self.dim), np.float32)
        vectors[..., 0], vectors[..., 1], vectors[..., 2:5] = 1.0, state, 0.1 * colour
        return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)

    def encode_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded += len(prompts)
        rows = np.zeros((len(prompts), self.dim), np.float32)
        for row, prompt in zip(rows, prompts, strict=True):
            damaged = any(word in prompt for word in self.damage) and not any(word in prompt for word in self.denials)
            row[0], row[1], row[5 + len(prompt) % 3] = 1.0, 0.5 if damaged else -0.5, 0.1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


class FunctionReasoner:
    """Answers with whatever ``answer`` makes of the bundle; remembers the bundles."""

    name = "function"

    def __init__(self, answer: Callable[[EvidenceBundle], ReasonerReply]) -> None:
        self.answer = answer
        self.seen: list[EvidenceBundle] = []

    def reason(self, evidence: EvidenceBundle, images: Sequence[Any], schema: type[DraftReport]) -> ReasonerReply:
        self.seen.append(evidence)
        return self.answer(evidence)


def texture(seed: int, side_px: int = 96) -> NDArray[np.uint8]:
    """A woven, unevenly lit surface; no two seeds give the same picture, all look alike, place by place."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side_px, :side_px] / side_px
    phase = rng.uniform(0, 2 * np.pi, 2)
    weave = 18 * np.sin(40 * x + phase[0]) * np.sin(40 * y + phase[1])
    light = np.stack([90 + 50 * x, 110 + 50 * y, 150 - 40 * x], axis=2) + rng.normal(0, 1.0, 3)
    picture = light + weave[..., None] + rng.normal(0, 4, (side_px, side_px, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)


def enlarged(picture: NDArray[np.uint8], factor: int = 5) -> NDArray[np.uint8]:
    """Each pixel ``factor`` times as large: 480 px hold more than the first look sees, so zooming is offered."""
    return np.ascontiguousarray(picture.repeat(factor, axis=0).repeat(factor, axis=1))


def with_square(
    picture: NDArray[np.uint8], x0: int = 12, y0: int = 14, side_px: int = 20, colour: tuple[int, ...] = (235, 60, 40)
) -> NDArray[np.uint8]:
    """The picture with a square that does not belong there."""
    marked = picture.copy()
    marked[y0 : y0 + side_px, x0 : x0 + side_px] = colour
    return marked


def with_scratch(picture: NDArray[np.uint8], row: int = 60) -> NDArray[np.uint8]:
    """The picture with a bright line across it."""
    marked = picture.copy()
    marked[row : row + 3, 8:88] = (250, 250, 245)
    return marked
