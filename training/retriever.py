"""Train key and lock projections by a symmetric contrastive loss while the backbone stays as it is.

The loss is InfoNCE in both directions (van den Oord et al. 2018; CLIP, Radford et al. 2021), the locked backbone is
LiT's principle (Zhai et al. 2022), and what it aligns are the key and lock features of ADSeeker's Q2K RAG
(arXiv 2508.03088). Pictures of the same general type are no negatives of each other, nor is a picture of several
defects its own. Beside other pictures of its product and type, each picture is to find the drawing of its general type
among all drawings.

With the weights comes the answer to whether they help: for each product in turn, projections are trained without it and
asked for its pages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ..agent.errors import InputError
from ..agent.home import write_atomically
from ..benchmarks.retrieval_judge import K
from ..benchmarks.retriever_seek import SCOPES, Row, Seek, compare, seek_pages, share_out
from ..tools.backbones import Backbone
from ..tools.knowledge.features import LockSpace
from ..tools.knowledge.retriever import CANVAS, FORMAT, MADE_FOR, PARTS, SIDES, Projection, canvas_of
from ..tools.knowledge.schema import KnowledgeDocument
from .card import describe_data, environment, fingerprint_of, write_card
from .checkpoint import state_sha256
from .loop import LoopConfig, Trained, fit, seed_everything
from .retriever_pairs import LabelledPart, Report, Source, by_label, describe_drawings, describe_pictures

RETRIEVER_FILE = "retriever.safetensors"
MIN_LABELS = 2


@dataclass(frozen=True)
class RetrieverConfig:
    """A whole run.

    Attributes:
        hidden: width of the hidden layer.
        temperature: cosines are divided by it.
        drawings_weight: of the loss that asks for the drawing of the general type.
        loop: how weights are fitted; all epochs are run.
    """

    hidden: int = 64
    temperature: float = 0.07
    drawings_weight: float = 1.0
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(epochs=10, batch=64, learning_rate=1e-3, weight_decay=1e-2, patience=0)
    )


class TorchTower(nn.Module):  # type: ignore[misc]
    """``tools.knowledge.retriever.Tower`` with gradients; it changes nothing before the first step."""

    def __init__(self, depth: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(hidden, depth))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.up = nn.Parameter(torch.zeros(depth, hidden))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5.0))

    def forward(self, visual: torch.Tensor) -> torch.Tensor:
        """(B, D) of unit length to the same."""
        hidden = functional.silu(visual @ self.down.T + self.bias)
        return functional.normalize(visual + hidden @ self.up.T, dim=-1)


class TorchProjection(nn.Module):  # type: ignore[misc]
    """Both towers and the standardisation that belongs to them."""

    def __init__(self, space: LockSpace, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(space.mean.copy()))
        self.register_buffer("spread", torch.from_numpy(space.spread.copy()))
        self.key = TorchTower(len(space.mean), hidden)
        self.lock = TorchTower(len(space.mean), hidden)


class RetrieverTask:
    """See ``loop.Task``.

    Args:
        parts: pictures.
        drawings: image part of each general type's drawing.
        config: of the run.

    Raises:
        InputError: there are fewer than two labels.
    """

    def __init__(
        self, parts: Sequence[LabelledPart], drawings: Mapping[str, NDArray[np.float32]], config: RetrieverConfig
    ) -> None:
        groups = by_label(parts)
        if len(groups) < MIN_LABELS:
            raise InputError(
                f"there are {len(groups)} labels with pictures; a retriever needs {MIN_LABELS} to tell apart."
            )
        self.config = config
        ordered = [part for group in groups.values() for part in group]
        self.size = len(ordered)
        names = list(drawings)
        matrix = np.stack([part.part for part in ordered])
        drawn = np.stack(list(drawings.values())) if names else np.zeros((0, matrix.shape[1]), np.float32)
        space = LockSpace.fit(np.concatenate([matrix, drawn]))
        self.module = TorchProjection(space, config.hidden)
        self._visual, self._drawn = _standardised(matrix, space), _standardised(drawn, space)
        labels = list(groups)
        self._members = [[i for i, p in enumerate(ordered) if p.label == label] for label in labels]
        self._label = torch.tensor([labels.index(part.label) for part in ordered])
        types = sorted({part.canonical or part.label for part in ordered})
        self._type = torch.tensor([types.index(part.canonical or part.label) for part in ordered])
        pictures = {place: i for i, place in enumerate(dict.fromkeys((p.product, p.name) for p in ordered))}
        self._picture = torch.tensor([pictures[p.product, p.name] for p in ordered])
        self._drawing = torch.tensor([names.index(p.canonical) if p.canonical in names else -1 for p in ordered])

    def loss(self, indices: Sequence[int]) -> torch.Tensor:
        """InfoNCE both ways between pictures and other pictures of their label, plus that against all drawings."""
        keys = torch.tensor(list(indices))
        query = self.module.key(self._visual[keys])
        total = query.sum() * 0.0  # a batch may have neither partners nor drawings
        partners = [self._partner(int(i)) for i in keys]
        paired = torch.tensor([partner >= 0 for partner in partners])
        if int(paired.sum()) > 1:
            chosen = torch.tensor(partners)[paired]
            logits = query[paired] @ self.module.lock(self._visual[chosen]).T / self.config.temperature
            alike = self._type[keys[paired]][:, None] == self._type[chosen][None]
            alike |= self._picture[keys[paired]][:, None] == self._picture[chosen][None]
            logits = logits.masked_fill(alike & ~torch.eye(len(chosen), dtype=torch.bool), float("-inf"))
            target = torch.arange(len(chosen))
            both = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
            total = total + 0.5 * both
        drawn = self._drawing[keys] >= 0
        if self.config.drawings_weight and bool(drawn.any()):
            logits = query[drawn] @ self.module.lock(self._drawn).T / self.config.temperature
            wanted = self._drawing[keys[drawn]]
            total = total + self.config.drawings_weight * functional.cross_entropy(logits, wanted)
        return total

    def _partner(self, index: int) -> int:
        """Another picture of the label, by torch's generator, whose state is in the checkpoint; -1 without one."""
        others = [other for other in self._members[int(self._label[index])] if other != index]
        return others[int(torch.randint(len(others), ()))] if others else -1

    def after_step(self) -> None:
        """Nothing must hold."""

    def held_out_score(self) -> float | None:
        """No product decides when to stop, so that those left out stay unseen."""
        return None


def _standardised(parts: NDArray[np.float32], space: LockSpace) -> torch.Tensor:
    visual = (parts - space.mean) / space.spread
    length = np.maximum(np.linalg.norm(visual, axis=1, keepdims=True), 1e-6)
    return torch.from_numpy(np.asarray(visual / length, np.float32))


def fit_projection(
    parts: Sequence[LabelledPart],
    drawings: Mapping[str, NDArray[np.float32]],
    config: RetrieverConfig,
    folder: Path,
    *,
    fingerprint: str,
    resume: bool = False,
    report: Report | None = None,
) -> tuple[Projection, Trained]:
    """Train one pair of towers; see ``loop.fit`` for the checkpoint in the folder and the errors."""
    seed_everything(config.loop.seed)
    task = RetrieverTask(parts, drawings, config)
    trained = fit(task, config.loop, folder, fingerprint=fingerprint, resume=resume, report=report)
    return Projection.of({name: value.numpy() for name, value in trained.state.items()}), trained


def train_retriever(
    sources: Sequence[Source],
    pages: Sequence[KnowledgeDocument],
    backbone: Backbone,
    folder: Path,
    cache_folder: Path,
    config: RetrieverConfig,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train on all products, after measuring on each what training without it does for it.

    Args:
        sources: labelled products.
        pages: the shipped ones.
        backbone: frozen.
        folder: of ``retriever.safetensors``, the card and the checkpoints; made when missing.
        cache_folder: of image parts.
        config: of the run.
        resume: continue a run that was killed.
        report: told (what, done, in all).

    Returns:
        The card.

    Raises:
        InputError: there is too little to learn from.
        WeightsError: a checkpoint belongs to another run.
        StorageError: the disk refuses.
    """
    parts = describe_pictures(sources, pages, backbone, cache_folder, report=report)
    drawings = describe_drawings(pages, backbone)
    used = {part.origin for part in parts}
    data = describe_data([(s.product, s.licence) for s in sources if s.product.name in used], [])
    fingerprint = fingerprint_of(data, asdict(config), backbone.weights_sha256, [page.content_hash() for page in pages])
    unseen = _leave_one_out(parts, drawings, pages, config, folder, fingerprint, resume, report)
    projection, trained = fit_projection(
        parts, drawings, config, folder, fingerprint=fingerprint, resume=resume, report=report
    )
    made = {
        "backbone": backbone.name,
        MADE_FOR: backbone.weights_sha256,
        CANVAS: canvas_of(backbone),
        "helps unseen products": helps(unseen) if unseen else None,
    }
    _save(projection, folder / RETRIEVER_FILE, {FORMAT: json.dumps(made, sort_keys=True)})
    card = _card(trained, data, config, backbone, unseen, len(parts))
    write_card(folder, card)
    return card


def _leave_one_out(
    parts: Sequence[LabelledPart],
    drawings: Mapping[str, NDArray[np.float32]],
    pages: Sequence[KnowledgeDocument],
    config: RetrieverConfig,
    folder: Path,
    fingerprint: str,
    resume: bool,
    report: Report | None,
) -> dict[str, Seek]:
    """What training without a product does for it by scope, over the products with pages; empty with fewer than two."""
    products = sorted({part.product for part in parts if part.page is not None})
    documents, queries = share_out([part for part in parts if part.page is not None], config.loop.seed)
    before: list[Row] = []
    unseen: list[Row] = []
    for done, product in enumerate(products):
        if report:
            report("leaving out a product", done, len(products))
        rest = [part for part in parts if part.product != product]
        own = [query for query in queries if query.product == product]
        if len(by_label(rest)) < MIN_LABELS or not own:
            continue
        place = folder / "left_out" / product
        projection, _ = fit_projection(
            rest, drawings, config, place, fingerprint=f"{fingerprint} without {product}", resume=resume
        )
        unseen += seek_pages(documents, own, pages, drawings, projection)
        before += seek_pages(documents, own, pages, drawings, None)
    compared = {scope: compare(before, unseen, scope) for scope in SCOPES}
    return {scope: seek for scope, seek in compared.items() if seek is not None}


def _save(projection: Projection, path: Path, header: dict[str, str]) -> None:
    from safetensors.numpy import save_file

    tensors = {"mean": projection.mean, "spread": projection.spread}
    for side in SIDES:
        tensors |= {f"{side}.{part}": getattr(getattr(projection, side), part) for part in PARTS}
    plain = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(plain, str(temporary), header))


def _card(
    trained: Trained,
    data: dict[str, Any],
    config: RetrieverConfig,
    backbone: Backbone,
    unseen: Mapping[str, Seek],
    pictures: int,
) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "pictures": pictures,
        "epochs": len(trained.progress.losses),
        "training loss of the last epoch": trained.progress.losses[-1],
    }
    for scope, seek in unseen.items():
        gain = f"{100 * (seek.after - seek.before):+.1f} ({100 * seek.low:+.1f} to {100 * seek.high:+.1f})"
        metrics[f"right page among {K} for products left out, {scope}, untrained"] = seek.before
        metrics[f"the same, {scope}, trained on the others"] = seek.after
        metrics[f"difference in points with its 95% interval, {scope}"] = gain
    if unseen:
        metrics["helps on products that it never saw"] = "yes" if helps(unseen) else "no"
    return {
        "model": "Flawscope retriever",
        "backbone": {"name": backbone.name, "sha256": backbone.weights_sha256},
        "seed": config.loop.seed,
        "weights_sha256": state_sha256(trained.state),
        "data": data,
        "metrics": metrics,
        "history": {"losses": trained.progress.losses},
        "unseen": {scope: asdict(seek) for scope, seek in unseen.items()},
        "config": asdict(config),
        "environment": environment(),
    }


def helps(unseen: Mapping[str, Seek]) -> bool:
    """Whether some way of asking gains more than chance, and none loses more than chance."""
    return any(seek.wins for seek in unseen.values()) and not any(seek.high < 0.0 for seek in unseen.values())


def with_options(config: RetrieverConfig, *, epochs: int | None, seed: int) -> RetrieverConfig:
    """The configuration with what the user chose."""
    return replace(config, loop=replace(config.loop, seed=seed, epochs=epochs or config.loop.epochs))
