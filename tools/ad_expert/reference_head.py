"""A small trained head beside the memory_bank: which of a patch's differences from good parts are defects.

For every patch the nearest patch of the references is looked up by the deepest layer. The head weighs the untrained
expert's score and the distances in every layer, and moves all patches of a picture up or down by what the picture's
scores say as a whole. The weights of the distances are not negative: a patch that lies farther from good parts is never
less suspicious, whatever few training products seem to say. Everything the head reads is relative to the references,
so that weights learnt on some products serve others (after Zhu & Pang 2024, InCTRL). Optionally the picture's
hierarchical sparse prompt takes part in the move.

Pure NumPy: trained weights are a small ``.npz`` file, and torch is only needed to make one (``flawscope.training``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError, WeightsError
from ..backbones import VisualFeatures
from .anomaly_map import top_fraction_mean
from .expert import FittedExpert, ReferenceFit, expert_tokens
from .memory_bank import assign, greedy_coreset
from .sparse_coding import hierarchical_prompt, sparse_codes

FORMAT = "flawscope-reference-head-1"
FIRST_SPREADS = 4.0
"""Even odds lie so many standard deviations from good patches, before the head moves them."""
QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.98)
MEDIAN = QUANTILES.index(0.5)
RESIDUAL_SCALE = 8.0
"""Brings the channel differences of unit vectors to the size of the other inputs."""
MIN_REFERENCES = 2
"""The spread of good patches needs a reference that is judged by another."""
HSP_PREFIX, HSP_STEPS = "prompt.hsp.", 100

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadMemory:
    """The references: the untrained expert that they make, their patches, and how far good patches lie from them.

    Attributes:
        expert: whose patch scores the head starts from.
        layers: per layer float32 (M, D_l), unit rows; row i of all layers is the same patch.
        centre: float32 (L,), mean distance per layer of a good patch judged by other references.
        spread: float32 (L,), its standard deviation.
    """

    expert: FittedExpert
    layers: tuple[Floats, ...]
    centre: Floats
    spread: Floats


@dataclass(frozen=True)
class HeadInputs:
    """What the head reads of one picture.

    Attributes:
        patches: float32 (N, 2 L + 1): per layer the distance in standard deviations of good patches, then as it is;
            last the deepest one's excess over the picture's median.
        picture: float32 (P,), ``picture_width`` numbers: quantiles of the scores; centre and spread of good patches.
        residuals: per layer float32 (N, D_l), |token - nearest good token| times RESIDUAL_SCALE.
        distances: float32 (N,), patch scores of the untrained expert.
        grid: (h, w).
    """

    patches: Floats
    picture: Floats
    residuals: tuple[Floats, ...]
    distances: Floats
    grid: tuple[int, int]


def require_references(count: int) -> None:
    """Refuse too few.

    Raises:
        ProductError: there are fewer than MIN_REFERENCES.
    """
    if count < MIN_REFERENCES:
        raise ProductError(f"the trained head needs {MIN_REFERENCES} good references.", hint="Give more good pictures.")


def layer_tokens(features: VisualFeatures) -> tuple[Floats, ...]:
    """``expert_tokens`` of every layer of the first picture, float32 (N, D_l) each."""
    return tuple(expert_tokens(replace(features, patch_tokens=(layer,))) for layer in features.patch_tokens)


class MemoryFit:
    """The memory of a set of references, and the memories that the others make without each of them.

    Args:
        fit: the untrained expert of the references, see ``reference_views.fit_references``.
        references: features of each, in the same order.

    Raises:
        ProductError: fewer than MIN_REFERENCES.
    """

    def __init__(self, fit: ReferenceFit, references: Sequence[VisualFeatures]) -> None:
        require_references(len(references))
        self._fit = fit
        tokens = [layer_tokens(features) for features in references]
        owners = np.repeat(np.arange(len(tokens)), [len(layers[-1]) for layers in tokens])
        layers = tuple(np.concatenate(parts) for parts in zip(*tokens, strict=True))
        kept, _ = greedy_coreset(layers[-1], fit.expert.config.bank_size)
        self._bank, self._owners = tuple(layer[kept] for layer in layers), owners[kept]
        self._judged: dict[int, Floats] = {}
        for number, (own, features) in enumerate(zip(tokens, references, strict=True)):
            if (self._owners != number).any():  # a coreset of few tokens may hold one reference only
                distances, _ = _compare(own, self._layers_without(number))
                distances[:, -1] = fit.without(number).score_grid(features).ravel()
                self._judged[number] = distances
        self.memory = self._memory(fit.expert, self._bank, list(self._judged.values()))

    def without(self, owner: int) -> HeadMemory:
        """The memory that the other references make: their tokens, and how far they lie from one another.

        Raises:
            ProductError: it would be empty.
        """
        judged = [distances for number, distances in self._judged.items() if number != owner]
        if owner not in self._judged or not judged:
            raise ProductError("one good reference alone fills the trained head's memory.", hint="Give other ones.")
        return self._memory(self._fit.without(owner), self._layers_without(owner), judged)

    def _layers_without(self, owner: int) -> tuple[Floats, ...]:
        others = self._owners != owner
        return tuple(layer[others] for layer in self._bank)

    @staticmethod
    def _memory(expert: FittedExpert, layers: tuple[Floats, ...], judged: Sequence[Floats]) -> HeadMemory:
        known = np.concatenate(judged)
        return HeadMemory(expert, layers, known.mean(axis=0), known.std(axis=0) + np.float32(1e-3))


def fit_memory(fit: ReferenceFit, references: Sequence[VisualFeatures]) -> HeadMemory:
    """Remember the references; see ``MemoryFit``.

    Raises:
        ProductError: fewer than MIN_REFERENCES.
    """
    return MemoryFit(fit, references).memory


def head_inputs(features: VisualFeatures, memory: HeadMemory) -> HeadInputs:
    """Compare the first picture of a batch with the references.

    Args:
        features: of the picture.
        memory: of the product's references.
    """
    distances, residuals = _compare(layer_tokens(features), memory.layers)
    distances[:, -1] = deepest = memory.expert.score_grid(features).ravel()
    standard = (distances - memory.centre) / memory.spread
    quantiles = np.quantile(deepest, QUANTILES).astype(np.float32)
    patches = np.concatenate([standard, distances, (deepest - quantiles[MEDIAN])[:, None]], axis=1)
    picture = np.concatenate([quantiles, memory.centre, memory.spread])
    return HeadInputs(patches.astype(np.float32), picture.astype(np.float32), residuals, deepest, features.grid)


def picture_width(layers: int) -> int:
    """P, the numbers in ``HeadInputs.picture``."""
    return len(QUANTILES) + 2 * layers


def _compare(tokens: tuple[Floats, ...], bank: tuple[Floats, ...]) -> tuple[Floats, tuple[Floats, ...]]:
    """Distances (N, L) and scaled residuals per layer to the patch that is nearest in the deepest layer."""
    nearest = assign(tokens[-1], bank[-1])
    differences = [np.abs(own - other[nearest]) for own, other in zip(tokens, bank, strict=True)]
    distances = np.stack([np.sqrt((d * d).sum(axis=1)) for d in differences], axis=1)
    return distances, tuple(np.asarray(d * RESIDUAL_SCALE, np.float32) for d in differences)


class ReferenceHead:
    """Trained weights, ready to judge.

    Args:
        weights: by the names of ``training.head.TorchReferenceHead.state_dict``.
        config: ``backbone`` (its name), ``backbone_sha256``, ``expert`` (its configuration), ``layer_dims``,
            ``prompt`` (``none``, ``sparse`` or ``dense``).
        sha256: of the file that they were read from; empty for weights that were never kept.

    Raises:
        WeightsError: a tensor is missing or of the wrong shape.
    """

    def __init__(self, weights: dict[str, NDArray[Any]], config: dict[str, Any], sha256: str = "") -> None:
        self.weights = weights
        self.config = config
        self.sha256 = sha256
        wanted = picture_width(len(config["layer_dims"]))
        found = weights["first.weight"].shape[1:] if "first.weight" in weights else ()
        if found != (wanted,) or (config["prompt"] != "none") != ("prompt.gate" in weights):
            raise WeightsError("the weights of the trained head do not fit its description.", hint="Train it again.")

    def inputs(self, features: VisualFeatures, memory: HeadMemory) -> HeadInputs:
        """What this head reads of a picture's features."""
        return head_inputs(features, memory)

    def logits(self, inputs: HeadInputs) -> Floats:
        """How likely each patch is defective, float32 (h, w), as log odds."""
        w = self.weights
        picture = (inputs.picture - w["centre"]) / w["scale"]
        if "prompt.gate" in w:
            picture = picture + self._prompt(inputs)
        hidden = w["first.weight"] @ picture + w["first.bias"]
        hidden = hidden * (0.5 + 0.5 * np.tanh(0.5 * hidden))  # SiLU, in a form that cannot overflow
        move = w["last.weight"] @ hidden + w["last.bias"] - FIRST_SPREADS
        return np.asarray((inputs.patches @ w["gains"] + move).reshape(inputs.grid), np.float32)

    def _prompt(self, inputs: HeadInputs) -> Floats:
        """What the picture's sparse prompt adds to its numbers, (P,); see ``hsp_features.FeatureSparsePrompts``."""
        prompt, residual = self._codes(inputs)
        pair = np.concatenate([prompt, residual], axis=1)[0]
        pair = (pair - pair.mean()) / np.sqrt(pair.var() + 1e-5)  # the layer norm of FeatureSparsePrompts
        added = self.weights["prompt.to_features.weight"] @ pair + self.weights["prompt.to_features.bias"]
        return np.asarray(self.weights["prompt.gate"] * added, np.float32)

    def _codes(self, inputs: HeadInputs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        hsp = {k.removeprefix(HSP_PREFIX): v for k, v in self.weights.items() if k.startswith(HSP_PREFIX)}
        significance = [inputs.distances[None]] * len(inputs.residuals)
        return hierarchical_prompt(hsp, [r[None] for r in inputs.residuals], significance, steps=HSP_STEPS)

    def support(self, inputs: HeadInputs) -> float:
        """Share of the last stage's atoms that a picture's prompt uses, in [0, 1].

        Raises:
            WeightsError: this head has no prompt.
        """
        if "prompt.gate" not in self.weights:
            raise WeightsError("this head was trained without a prompt.")
        prompt, residual = self._codes(inputs)
        last = f"{HSP_PREFIX}stages.{len(inputs.residuals) - 1}.solver."
        rho = float(self.weights[last + "rho"])
        codes = sparse_codes(prompt + residual, self.weights[last + "dictionary"], rho=rho, steps=HSP_STEPS)
        return float((codes != 0).mean())

    def save(self, path: Path) -> None:
        """Write the ``.npz`` file, atomically.

        Raises:
            StorageError: the disk refuses.
        """
        from ...agent.home import write_atomically

        header = np.frombuffer(json.dumps({"format": FORMAT, **self.config}, sort_keys=True).encode(), np.uint8)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                arrays: dict[str, Any] = {"header.json": header, **self.weights}
                np.savez(file, **arrays)

        write_atomically(path, write)


def head_scores(
    head: ReferenceHead, inputs: HeadInputs, memory: HeadMemory, look: float, top_fraction: float
) -> tuple[float, Floats]:
    """The head's image score and patch scores (h, w) of a picture, both as log odds.

    Args:
        head: trained.
        inputs: what it reads of the picture.
        memory: of the references.
        look: what the look of the whole part adds to the untrained score, in units of distance.
        top_fraction: share of the patches that makes the score.
    """
    grid = head.logits(inputs)
    return top_fraction_mean(grid, top_fraction) + look / float(memory.spread[-1]), grid
