"""Train CLIP's text prompts, perhaps with HSP, on pictures with masks; both towers stay frozen.

The recipe is AnomalyCLIP's (Zhou et al. 2024): cross-entropy of the picture plus four times, for each layer's map,
focal and dice losses, Adam at 1e-3, 15 epochs, batches of 8. HSP adds 0.1 of its own loss (ADSeeker, equation 9) and a
cross-entropy that teaches the stages' heads which patches are significant; its visual prompts enter the image tower
once those heads have been trained for WARM_EPOCHS.

Without HSP the image tower is not touched by training and every picture passes it once. With HSP it must run in every
step, so pictures are fed one by one, each in its own shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ..agent.errors import InputError
from ..benchmarks.datasets import ProductData, load_mask
from ..benchmarks.detection_metrics import image_auroc
from ..tools.ad_expert.anomaly_map import top_fraction_mean
from ..tools.ad_expert.picture_prompts import ClipPrompts
from ..tools.ad_expert.trained_prompts import ABNORMAL, FORMAT, MADE_FOR, NORMAL, Prompt
from ..tools.backbones import VisualFeatures
from ..tools.backbones.clip import ClipBackbone
from ..tools.imaging import load_image
from .card import describe_data, environment, fingerprint_of, write_card
from .checkpoint import state_sha256, write_tensors
from .loop import LoopConfig, Trained, fit, seed_everything
from .losses import zero_shot_loss
from .samples import patch_target
from .synthetic import add_defect

PROMPTS_FILE = "prompts.safetensors"
DEFAULT_LOOP = LoopConfig(epochs=15, batch=8, learning_rate=1e-3, weight_decay=0.0, betas=(0.5, 0.999), patience=4)
TEMPERATURE = 0.07
WARM_EPOCHS = 2
UPSAMPLE = 4
"""Maps are compared with masks at so many points per side of a patch."""
TOP_FRACTION = 0.01
Report = Callable[[str, int, int], None]
Products = Sequence[tuple[ProductData, str]]


@dataclass(frozen=True)
class PromptConfig:
    """A whole run.

    Attributes:
        prompt: ``none``, ``sparse`` (HSP), ``lista`` (HSP with learnt iterations) or ``dense`` (as large as ``sparse``,
            lambda 0).
        loop: how weights are fitted.
        real: whether labelled test pictures are learnt from; good ones with made defects always are.
        synthetic: made defects a good picture.
        max_pictures: labelled, and good, pictures a product.
        hsp_dim: width of the sparse prompts.
        hsp_atoms: atoms a stage.
        n_ctx: learnt vectors of each text prompt.
    """

    prompt: Prompt = "none"
    loop: LoopConfig = DEFAULT_LOOP
    real: bool = True
    synthetic: int = 1
    max_pictures: int = 200
    hsp_dim: int = 768
    hsp_atoms: int = 64
    n_ctx: int = 12


@dataclass(frozen=True)
class PromptSample:
    """A picture to learn from: pixels, mask (None where nobody drew the defect), label, product."""

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    defective: bool
    product: str


class LearningPrompts(ClipPrompts):
    """What is learnt, and how long it has been."""

    def __init__(self, backbone: ClipBackbone, config: PromptConfig, warm_steps: int) -> None:
        super().__init__(
            backbone, prompt=config.prompt, hsp_dim=config.hsp_dim, hsp_atoms=config.hsp_atoms, n_ctx=config.n_ctx
        )
        self.warm_steps = warm_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def after_step(self) -> None:
        """Unit atoms; the visual prompts are let in after the warm-up."""
        self.steps += 1
        if self.sparse is not None:
            self.sparse.hsp.normalise_atoms()
            if int(self.steps) >= self.warm_steps and not self.sparse.visual_open:
                self.sparse.open_visual()


class PromptTask:
    """See ``loop.Task``.

    Args:
        samples: to train on.
        held_out: to judge by.
        backbone: CLIP; its weights are frozen here.
        config: of the run.
    """

    def __init__(
        self,
        samples: Sequence[PromptSample],
        held_out: Sequence[PromptSample],
        backbone: ClipBackbone,
        config: PromptConfig,
    ) -> None:
        if not samples:
            raise InputError("there is nothing to train on.", hint="Give products with good and defective pictures.")
        self.samples, self.held_out, self.backbone = samples, held_out, backbone
        self.size = len(samples)
        backbone.model.requires_grad_(False)
        warm_steps = WARM_EPOCHS * -(-len(samples) // config.loop.batch)
        self.module = LearningPrompts(backbone, config, warm_steps).to(backbone.device)
        self._seen: dict[int, VisualFeatures] = {}

    def loss(self, indices: Sequence[int]) -> torch.Tensor:
        """Mean over the pictures of ``zero_shot_loss``; a defect that nobody drew teaches its label alone."""
        losses = []
        anchors = self._anchors(None) if self.module.sparse is None else None
        for index in indices:
            sample = self.samples[index]
            logits, maps, extra = self._look(sample, anchors)
            label = torch.tensor([int(sample.defective)], device=logits.device)
            with torch.autocast(logits.device.type, enabled=False):
                logits = logits.float()
                if sample.mask is None:
                    losses.append(functional.cross_entropy(logits, label))
                    continue
                pairs = [(1 - abnormal, abnormal) for abnormal in (m.float() for m in maps)]
                mask = _resized(sample.mask, (maps[0].shape[1], maps[0].shape[2])).to(logits.device)[None]
                loss = zero_shot_loss(logits, label, pairs, mask, extra.hsp if extra else None)
                losses.append(loss + extra.significance if extra else loss)
        return torch.stack(losses).mean()

    def _anchors(self, offset: torch.Tensor | None) -> torch.Tensor:
        """Normal and abnormal text feature, (2, D)."""
        features: torch.Tensor = self.module.anchors(self.backbone, offset)
        return features

    def _look(
        self, sample: PromptSample, anchors: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, list[torch.Tensor], _Extra | None]:
        """Image logits (1, 2), per layer the abnormal probability (1, 4 h, 4 w), and what HSP adds to the loss."""
        tokens, whole, grid, extra, offset = self._see(sample)
        anchors = self._anchors(offset) if anchors is None else anchors
        logits = whole @ anchors.T / TEMPERATURE
        maps = []
        for layer in tokens:
            probability = (layer @ anchors.T / TEMPERATURE).softmax(dim=-1)[..., 1].reshape(1, 1, *grid)
            size = (UPSAMPLE * grid[0], UPSAMPLE * grid[1])
            maps.append(functional.interpolate(probability, size=size, mode="bilinear", align_corners=False)[:, 0])
        return logits, maps, extra

    def _see(
        self, sample: PromptSample
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, tuple[int, int], _Extra | None, torch.Tensor | None]:
        """Patch tokens per layer (1, N, D), global feature (1, D), grid, HSP's losses and its text offset."""
        device, sparse = self.backbone.device, self.module.sparse
        if sparse is None:
            seen = self._seen.get(id(sample))
            if seen is None:
                seen = self._seen[id(sample)] = self.backbone.encode_image(sample.rgb[None])
            layers = tuple(torch.from_numpy(layer).to(device) for layer in seen.patch_tokens)
            return layers, torch.from_numpy(seen.global_features).to(device), seen.grid, None, None
        look = self.module.see(self.backbone, sample.rgb)
        extra = _extra(look.run, sample, look.grid)
        return look.patch_tokens, look.global_features, look.grid, extra, look.text_offset

    def after_step(self) -> None:
        """See ``LearningPrompts.after_step``."""
        self.module.after_step()

    def held_out_score(self) -> float | None:
        """Image AUROC averaged over held-out products; None without any."""
        scores = []
        anchors = self._anchors(None) if self.module.sparse is None else None
        for sample in self.held_out:
            logits, maps, _ = self._look(sample, anchors)
            highest = top_fraction_mean(torch.stack(maps).mean(dim=0).float().cpu().numpy(), TOP_FRACTION)
            scores.append(0.5 * float(logits.float().softmax(dim=-1)[0, 1]) + 0.5 * highest)
        found = []
        for product in sorted({sample.product for sample in self.held_out}):
            rows = [i for i, sample in enumerate(self.held_out) if sample.product == product]
            found.append(image_auroc([scores[i] for i in rows], [self.held_out[i].defective for i in rows]))
        known = [value for value in found if value is not None]
        return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class _Extra:
    """What HSP adds to the loss of one picture: its own, and that of its significance heads."""

    hsp: torch.Tensor
    significance: torch.Tensor


def _extra(run: Any, sample: PromptSample, grid: tuple[int, int]) -> _Extra:
    hsp = run.loss().total
    judged = [code.significance for code in run.codes if code.significance is not None]
    if sample.mask is None or not judged:
        return _Extra(hsp, hsp.new_zeros(()))
    target = torch.from_numpy(patch_target(sample.mask, grid)).to(hsp.device).float()[None]
    losses = [functional.binary_cross_entropy_with_logits(logits.float(), target) for logits in judged]
    return _Extra(hsp, torch.stack(losses).mean())


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> torch.Tensor:
    """Mask (H, W) at another size, int64: a point counts when half of what it stands for is defective."""
    share = functional.interpolate(torch.from_numpy(mask.astype(np.float32))[None, None], size=size, mode="area")
    return (share[0, 0] >= 0.5).long()


def build_prompt_samples(
    products: Products, config: PromptConfig, *, labelled_only: bool = False
) -> list[PromptSample]:
    """Labelled pictures, good ones, and good ones with a made defect.

    Args:
        products: with their licences.
        config: of the run.
        labelled_only: only the labelled ones, for judging.

    Raises:
        InputError: a picture cannot be read.
    """
    samples: list[PromptSample] = []
    for number, (product, _) in enumerate(products):
        rng = np.random.default_rng((config.loop.seed, number))
        for index in rng.permutation(len(product.tests))[: config.max_pictures] if config.real or labelled_only else []:
            test = product.tests[index]
            rgb = load_image(test.path).rgb
            samples.append(PromptSample(rgb, load_mask(test, *rgb.shape[:2]), test.is_defective, product.name))
        for index in rng.permutation(len(product.references))[: 0 if labelled_only else config.max_pictures]:
            rgb = load_image(product.references[index]).rgb
            samples.append(PromptSample(rgb, np.zeros(rgb.shape[:2], dtype=bool), False, product.name))
            for _ in range(config.synthetic):
                made = add_defect(rgb, rng)
                samples.append(PromptSample(made.image, made.mask, True, product.name))
    return samples


def train_prompts(
    products: Products,
    held_out: Products,
    backbone: ClipBackbone,
    folder: Path,
    config: PromptConfig,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train, and write ``prompts.safetensors``, the card and the checkpoint into a folder.

    Args:
        products: to train on, each with its licence as given.
        held_out: products that decide when to stop.
        backbone: CLIP, on the device that shall be used.
        folder: of the results.
        config: of the run.
        resume: go on with a run that was stopped.
        report: told (what, done, in all).

    Returns:
        The card.

    Raises:
        InputError: there is nothing to train on.
        WeightsError: the folder's checkpoint belongs to another run.
        StorageError: the disk refuses.
    """
    data = describe_data(products, held_out)
    seed_everything(config.loop.seed)
    judged_by = build_prompt_samples(held_out, config, labelled_only=True)
    task = PromptTask(build_prompt_samples(products, config), judged_by, backbone, config)
    fingerprint = fingerprint_of(data, asdict(config), backbone.weights_sha256, backbone.image_size_px)
    trained = fit(task, config.loop, folder, fingerprint=fingerprint, resume=resume, report=report)
    task.module.load_state_dict(trained.state)
    _save(task.module, folder / PROMPTS_FILE, backbone, config)
    card = _card(trained, data, config, backbone)
    write_card(folder, card)
    return card


def _save(module: LearningPrompts, path: Path, backbone: ClipBackbone, config: PromptConfig) -> None:
    header = {"format": FORMAT, "config": json.dumps(asdict(config)), MADE_FOR: backbone.weights_sha256}
    tensors = dict(module.state_dict())
    if module.sparse is None:  # else every picture has anchors of its own
        module.eval()
        with torch.no_grad():
            normal, abnormal = module.anchors(backbone, None).float().split(1)
        tensors |= {NORMAL: normal, ABNORMAL: abnormal}
    write_tensors(path, tensors, header)


def _card(trained: Trained, data: dict[str, Any], config: PromptConfig, backbone: ClipBackbone) -> dict[str, Any]:
    progress = trained.progress
    return {
        "model": "Flawscope prompts for CLIP",
        "backbone": {"name": f"{backbone.name} {backbone.model_name}", "sha256": backbone.weights_sha256},
        "seed": config.loop.seed,
        "weights_sha256": state_sha256(trained.state),
        "data": data,
        "metrics": {
            "epochs": len(progress.losses),
            "best epoch": progress.best_epoch + 1,
            "training loss of the last epoch": progress.losses[-1],
            "held-out image AUROC": progress.scores[progress.best_epoch],
        },
        "history": {"losses": progress.losses, "held_out": progress.scores},
        "config": asdict(config),
        "environment": environment(),
    }
