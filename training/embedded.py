"""Train the reference head on any products in the MVTec layout (and the others that ``benchmarks.datasets`` reads)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..agent.errors import InputError
from ..benchmarks.datasets import ProductData
from ..benchmarks.detection_metrics import image_auroc
from ..tools.ad_expert.anomaly_map import top_fraction_mean
from ..tools.ad_expert.expert import ExpertConfig
from ..tools.backbones import Backbone
from .card import describe_data, environment, fingerprint_of, write_card
from .checkpoint import state_sha256
from .features import FeatureCache
from .head import HeadBatch, Prompt, TorchReferenceHead, export_head
from .loop import LoopConfig, Trained, fit, seed_everything
from .losses import HSP_WEIGHT, MAP_WEIGHT, dice_loss, focal_loss
from .samples import EpisodeConfig, HeadSample, build_samples, real_samples

HEAD_FILE = "head.npz"
IMAGE_WEIGHT = 0.5
HELD_OUT_SHOTS, HELD_OUT_SEED = 4, 7
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class HeadConfig:
    """A whole run.

    Attributes:
        hidden: width of the hidden layer.
        prompt: ``none``, ``sparse`` (HSP) or ``dense`` (the same size with lambda 0).
        expert: the untrained expert that the head starts from.
        episodes: how samples are made.
        loop: how weights are fitted.
    """

    hidden: int = 8
    prompt: Prompt = "none"
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


class HeadTask:
    """The head on samples that are held in memory; see ``loop.Task``.

    Args:
        samples: to train on.
        held_out: of products that are not trained on; empty for none.
        config: of the run.
        device: where to compute.
    """

    def __init__(
        self, samples: Sequence[HeadSample], held_out: Sequence[HeadSample], config: HeadConfig, device: str = "cpu"
    ) -> None:
        if not samples:
            raise InputError("there is nothing to train on.", hint="Give products with good and defective pictures.")
        self.samples, self.held_out, self.config, self.device = samples, held_out, config, device
        self.size = len(samples)
        pictures = np.stack([sample.picture for sample in samples])
        dims = [layer.shape[1] for layer in samples[0].residuals]
        self.module = TorchReferenceHead(
            dims,
            hidden=config.hidden,
            prompt=config.prompt,
            centre=torch.from_numpy(pictures.mean(axis=0)),
            scale=torch.from_numpy(pictures.std(axis=0) + 1e-3),
        ).to(device)

    def loss(self, indices: Sequence[int]) -> torch.Tensor:
        """Focal and dice loss of the drawn patches, cross-entropy of the pictures, and the prompts' own loss."""
        by_size: dict[int, list[HeadSample]] = {}
        for index in indices:
            sample = self.samples[index]
            by_size.setdefault(len(sample.distances), []).append(sample)
        total = torch.zeros((), device=self.device)
        for group in by_size.values():
            logits, hsp = self.module(batch_of(group, self.device))
            with torch.autocast(torch.device(self.device).type, enabled=False):
                part = sum((self._picture_loss(row, s) for row, s in zip(logits, group, strict=True)), total * 0)
                total = total + part + (HSP_WEIGHT * len(group) * hsp.total if hsp is not None else 0.0)
        return total / len(indices)

    def _picture_loss(self, logits: torch.Tensor, sample: HeadSample) -> torch.Tensor:
        count = max(1, round(self.config.expert.top_fraction * len(logits)))
        label = torch.tensor(float(sample.defective), device=self.device)
        loss = IMAGE_WEIGHT * functional.binary_cross_entropy_with_logits(logits.topk(count).values.mean(), label)
        if sample.target is None:
            return loss
        probability = logits.sigmoid()[None]
        target = torch.from_numpy(sample.target).to(self.device)[None]
        loss = loss + MAP_WEIGHT * focal_loss(probability, target)
        return loss + dice_loss(probability, target) if sample.defective else loss

    def after_step(self) -> None:
        """Unit atoms."""
        self.module.after_step()

    def held_out_score(self) -> float | None:
        """Image AUROC averaged over held-out products; None without any."""
        judged = judge(self.module, self.held_out, self.config.expert.top_fraction, self.device)
        aurocs = []
        for product in sorted({sample.product for sample in self.held_out}):
            rows = [i for i, sample in enumerate(self.held_out) if sample.product == product]
            aurocs.append(image_auroc([judged[i] for i in rows], [self.held_out[i].defective for i in rows]))
        known = [value for value in aurocs if value is not None]
        return float(np.mean(known)) if known else None


def batch_of(samples: Sequence[HeadSample], device: str = "cpu") -> HeadBatch:
    """Samples of one number of patches as float32 tensors."""

    def stack(arrays: Sequence[Any]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(device).float()

    residuals = zip(*(sample.residuals for sample in samples), strict=True)
    return HeadBatch(
        stack([sample.patches for sample in samples]),
        stack([sample.picture for sample in samples]),
        tuple(stack(layer) for layer in residuals),
        stack([sample.distances for sample in samples]),
    )


def judge(
    module: TorchReferenceHead, samples: Sequence[HeadSample], top_fraction: float, device: str = "cpu"
) -> list[float]:
    """Image scores: mean of the highest logits."""
    scores = []
    for sample in samples:
        logits, _ = module(batch_of([sample], device))
        scores.append(top_fraction_mean(logits[0].cpu().numpy(), top_fraction))
    return scores


def train_head(
    products: Sequence[tuple[ProductData, str]],
    held_out: Sequence[tuple[ProductData, str]],
    backbone: Backbone,
    folder: Path,
    cache_folder: Path,
    config: HeadConfig,
    *,
    resume: bool = False,
    device: str = "cpu",
    report: Report | None = None,
) -> dict[str, Any]:
    """Train, and write ``head.npz``, ``card.json``, ``card.md`` and the checkpoint into a folder.

    Args:
        products: to train on, each with its licence as given.
        held_out: products whose labelled pictures decide when to stop; never trained on.
        backbone: frozen.
        folder: of the results; made when missing.
        cache_folder: of the features.
        config: of the run.
        resume: continue a run that was killed.
        device: torch device.
        report: told (what, done, in all).

    Returns:
        The card.

    Raises:
        InputError: a product cannot be trained on.
        WeightsError: the folder's checkpoint belongs to another run.
        StorageError: the disk refuses.
    """
    cache = FeatureCache(cache_folder, backbone, config.expert)
    data = describe_data(products, held_out)
    seed_everything(config.loop.seed)
    samples = build_samples([p for p, _ in products], cache, config.episodes, config.loop.seed, report)
    judged_by = [
        sample
        for product, _ in held_out
        for sample in real_samples(product, cache, config.episodes, HELD_OUT_SHOTS, HELD_OUT_SEED)
    ]
    task = HeadTask(samples, judged_by, config, device)
    fingerprint = fingerprint_of(data, asdict(config), backbone.weights_sha256)
    trained = fit(task, config.loop, folder, fingerprint=fingerprint, resume=resume, report=report)
    export_head(trained.state, head_config(task, backbone)).save(folder / HEAD_FILE)
    card = _card(trained, data, config, backbone)
    write_card(folder, card)
    return card


def head_config(task: HeadTask, backbone: Backbone) -> dict[str, Any]:
    """What ``ReferenceHead`` needs to know beside the weights."""
    return {
        "backbone": backbone.name,
        "backbone_sha256": backbone.weights_sha256,
        "expert": asdict(task.config.expert),
        "layer_dims": list(task.module.layer_dims),
        "prompt": task.config.prompt,
    }


def _card(trained: Trained, data: dict[str, Any], config: HeadConfig, backbone: Backbone) -> dict[str, Any]:
    progress = trained.progress
    score = progress.scores[progress.best_epoch]
    return {
        "model": "Flawscope reference head",
        "backbone": {"name": backbone.name, "sha256": backbone.weights_sha256},
        "seed": config.loop.seed,
        "weights_sha256": state_sha256(trained.state),
        "data": data,
        "metrics": {
            "epochs": len(progress.losses),
            "best epoch": progress.best_epoch + 1,
            "training loss of the last epoch": progress.losses[-1],
            f"held-out image AUROC at {HELD_OUT_SHOTS} references": score,
        },
        "history": {"losses": progress.losses, "held_out": progress.scores},
        "config": asdict(config),
        "environment": environment(),
    }
