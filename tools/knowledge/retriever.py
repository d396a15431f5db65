"""Trained key and lock projections: what a picture is turned into before it is compared with the documents' pictures.

ADSeeker (arXiv 2508.03088, section on Q2K RAG) maps the key features of a query and the lock features of documents into
an aligned space. Here that is one small residual network for each side, after the standardised image part:
``unit(x + up(silu(down(x) + bias)))``, where an untrained ``up`` is zero and changes nothing. Words are not projected.

``flawscope train retriever`` writes the file; it is read and run without torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import MissingExtraError, WeightsError
from ..array_files import ARRAY_DAMAGE

if TYPE_CHECKING:
    from ...agent.settings import Settings
    from ..backbones import Backbone

FORMAT = "flawscope-retriever-1"
"""Name of the only entry in the file's header, JSON: several would be written in an order that changes from run to run.
"""
MADE_FOR, CANVAS = "backbone_sha256", "canvas"
"""In that entry: hash of the backbone's weights, and the side of its canvas or ``none``."""
SIDES, PARTS = ("key", "lock"), ("down", "bias", "up")
_REMEDY = "Train it again: flawscope train retriever."
Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Tower:
    """The network of one side.

    Attributes:
        down: float32 (H, D).
        bias: float32 (H,).
        up: float32 (D, H).
    """

    down: Array
    bias: Array
    up: Array

    def __call__(self, visual: Array) -> Array:
        """Project standardised image parts of unit length, (..., D), to the same shape and length."""
        hidden = visual @ self.down.T + self.bias
        # x * sigmoid(x), by tanh since exp of a large negative number overflows
        moved = visual + (hidden * 0.5 * (1.0 + np.tanh(0.5 * hidden))) @ self.up.T
        length = np.linalg.norm(moved, axis=-1, keepdims=True)
        return np.asarray(moved / np.maximum(length, 1e-12), np.float32)


@dataclass(frozen=True, eq=False)
class Projection:
    """Both sides, and the standardisation of image parts that they were trained on.

    Attributes:
        mean, spread: float32 (D,), spread positive.
        key: for pictures under inspection.
        lock: for pictures of documents.
        sha256: of the file, empty before there is one.
    """

    mean: Array
    spread: Array
    key: Tower
    lock: Tower
    sha256: str = ""

    @classmethod
    def of(cls, tensors: dict[str, Array], sha256: str = "") -> Projection:
        """From tensors called mean, spread and ``key.down`` to ``lock.up``.

        Raises:
            ValueError: one is missing, not finite or of another shape.
        """
        names = ["mean", "spread", *(f"{side}.{part}" for side in SIDES for part in PARTS)]
        if missing := [name for name in names if name not in tensors]:
            raise ValueError(f"{missing[0]} is missing")
        arrays = {name: np.asarray(tensors[name], np.float32) for name in names}
        depth = arrays["mean"].size
        for side in SIDES:
            hidden = arrays[f"{side}.bias"].size
            shapes = {"down": (hidden, depth), "bias": (hidden,), "up": (depth, hidden)}
            if any(arrays[f"{side}.{part}"].shape != shape for part, shape in shapes.items()):
                raise ValueError(f"the tensors of {side} do not fit each other")
        if arrays["mean"].shape != arrays["spread"].shape or not (arrays["spread"] > 0).all():
            raise ValueError("mean and spread do not fit each other")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("a tensor is not finite")
        towers = {side: Tower(*(arrays[f"{side}.{part}"] for part in PARTS)) for side in SIDES}
        return cls(arrays["mean"], arrays["spread"], towers["key"], towers["lock"], sha256)


def configured_retriever(settings: Settings, backbone: Backbone) -> Projection | None:
    """What the setting ``retriever`` names; None when it is empty.

    Raises:
        MissingExtraError: safetensors is not installed.
        WeightsError: it cannot be used with this backbone.
    """
    return None if settings.retriever is None else load_retriever(settings.retriever, backbone)


def load_retriever(path: Path, backbone: Backbone) -> Projection:
    """Read trained projections.

    Args:
        path: ``retriever.safetensors``.
        backbone: that pictures will be embedded with.

    Raises:
        MissingExtraError: safetensors is not installed.
        WeightsError: there is no such file, it is damaged or of another kind, or it was made for other weights or
            another canvas.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("A trained retriever", "retriever") from error

    path = path.expanduser()
    if not path.is_file():
        raise WeightsError(f"there is no trained retriever at {path}.", hint="Name a retriever.safetensors.")
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="np") as file:
            made = (file.metadata() or {}).get(FORMAT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (*ARRAY_DAMAGE, SafetensorError) as error:
        raise WeightsError(f"the trained retriever {path} cannot be read.", hint=_REMEDY) from error
    if made is None:
        raise WeightsError(f"{path} is no trained retriever.", hint=_REMEDY)
    header = _header(path, made)
    if header.get(MADE_FOR) != backbone.weights_sha256 or header.get(CANVAS) != canvas_of(backbone):
        raise WeightsError(
            f"the trained retriever {path} was made for another backbone"
            f" ({header.get('backbone')}, {str(header.get(MADE_FOR))[:12]}…, canvas {header.get(CANVAS)})"
            f" than this ({backbone.name}, {backbone.weights_sha256[:12]}…, canvas {canvas_of(backbone)}).",
            hint="Train it again with this one, or leave the setting retriever empty.",
        )
    try:
        return Projection.of(tensors, sha256)
    except ValueError as error:
        raise WeightsError(f"the trained retriever {path} is damaged: {error}.", hint=_REMEDY) from error


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise WeightsError(f"the trained retriever {path} is damaged: its header is no JSON.", hint=_REMEDY)
    return header


def canvas_of(backbone: Backbone) -> str:
    """The side of the square that pictures are fitted into, px, or ``none``: other pictures give other features."""
    return "none" if backbone.image_size_px is None else str(backbone.image_size_px)
