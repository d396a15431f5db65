"""Trained heads for the cheap backbone, made without training: a few numbers and a network of three hidden units."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from fakes import PatchStatistics
from numpy.typing import NDArray

from flawscope.tools.ad_expert.expert import ExpertConfig
from flawscope.tools.ad_expert.reference_head import ReferenceHead, picture_width

DIMS = (6, 10)


def tiny_weights(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Weights that read both layers and move a picture by what its scores say."""
    rng = np.random.default_rng(seed)
    width, hidden = picture_width(len(DIMS)), 3
    found = {
        "gains": np.array([0.2, 0.7, 0.5, 1.0, 2.0]) + 0.1 * rng.random(5),
        "centre": 0.1 * rng.normal(size=width),
        "scale": 0.5 + rng.random(width),
        "first.weight": 0.1 * rng.normal(size=(hidden, width)),
        "first.bias": 0.1 * rng.normal(size=hidden),
        "last.weight": 0.2 * rng.normal(size=(1, hidden)),
        "last.bias": np.array([-0.5]),
    }
    return {name: value.astype(np.float32) for name, value in found.items()}


def sparse_weights(seed: int = 0, dim: int = 4, atoms: int = 5) -> dict[str, NDArray[Any]]:
    """The same with a sparse prompt, which takes part in the move; its file says ``prompt``: sparse."""
    rng = np.random.default_rng([seed, 1])
    width = picture_width(len(DIMS))
    found = {
        "prompt.gate": np.array(0.3),
        "prompt.to_features.weight": 0.2 * rng.normal(size=(width, 2 * dim)),
        "prompt.to_features.bias": 0.1 * rng.normal(size=width),
    }
    for stage, depth in enumerate(DIMS):
        name = f"prompt.hsp.stages.{stage}."
        found[name + "query.weight"] = rng.normal(size=(dim, depth))
        found[name + "query.bias"] = 0.1 * rng.normal(size=dim)
        rows = rng.normal(size=(atoms, dim))
        found[name + "solver.dictionary"] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    weights = {name: value.astype(np.float32) for name, value in found.items()}
    rhos = {f"prompt.hsp.stages.{stage}.solver.rho": np.array(0.1 + 0.1 * stage) for stage in range(len(DIMS))}
    return {**tiny_weights(seed), **weights, **rhos}


def untrained_weights() -> dict[str, NDArray[Any]]:
    """As training begins: only the untrained expert's standardised score counts, and nothing moves."""
    still = {name: np.zeros_like(tiny_weights()[name]) for name in ("first.weight", "last.weight", "last.bias")}
    return {**tiny_weights(), **still, "gains": np.eye(5, dtype=np.float32)[len(DIMS) - 1]}


def tiny_config(**changed: Any) -> dict[str, Any]:
    """What a head's file says of it."""
    return {
        "backbone": PatchStatistics.name,
        "backbone_sha256": PatchStatistics.weights_sha256,
        "expert": asdict(ExpertConfig()),
        "layer_dims": list(DIMS),
        "prompt": "none",
        **changed,
    }


def save_head(path: Path, weights: dict[str, NDArray[Any]] | None = None, **changed: Any) -> Path:
    """Write a head's file."""
    ReferenceHead(tiny_weights() if weights is None else weights, tiny_config(**changed)).save(path)
    return path
