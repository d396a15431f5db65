"""Train the tokenizers of prior tokens (E_c of ADSeeker) against a frozen language model.

A sample is a question about a labelled picture; the loss is that of the answer's letter, and its gradient reaches the
tokenizers through the frozen model alone. Half of the prompts also say the evidence in words and quote pages, as
prompts in use do: tokens that never stood beside the words would disturb their reading.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..agent.errors import InputError
from ..agent.reasoner.composing import prior_lines
from ..agent.vision_language.identity import checkpoint_sha256
from ..agent.vision_language.messages import Message, Slot
from ..agent.vision_language.prior import FORMAT, PRIOR_TOKENS, TOKENS_FILE
from ..agent.vision_language.qwen import QwenModel
from ..tools.ad_expert.evidence_tokens import EvidenceTokenizer, rescale_to
from ..tools.backbones import Backbone
from ..tools.knowledge.schema import KnowledgeDocument
from .answer_loss import answer_losses, teach
from .card import describe_data, environment, fingerprint_of, write_card
from .checkpoint import state_sha256, write_tensors
from .conversations import pixels
from .loop import LoopConfig, Trained, fit, seed_everything
from .picture_evidence import PictureEvidence, Source, look_at_products
from .questions import PRIOR_TASKS, TASKS, Question, compose_question, knowledge_lines, picture_questions

DEFAULT_LOOP = LoopConfig(epochs=2, batch=8, learning_rate=1e-4, warm_up=0.03, patience=1)
TOLD_SHARE = 0.5
"""Prompts that also say the evidence in words, and quote pages."""
QUOTED = 4
"""Pages of the product in such a prompt, drawn: as many as an inspection finds."""
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TokensConfig:
    """A whole run.

    Attributes:
        loop: how weights are fitted.
        references: good pictures of a product that its expert compares with, at most.
        shown: of them that a prompt shows.
        max_pictures: labelled pictures a product.
    """

    loop: LoopConfig = DEFAULT_LOOP
    references: int = 16
    shown: int = 1
    max_pictures: int = 120


@dataclass(frozen=True, eq=False)
class TokenSample:
    """A question and what its prompt holds.

    Attributes:
        question: about a picture.
        evidence: what the expert found in it.
        told: whether the prompt says it in words too.
        pages: quoted with the words.
    """

    question: Question
    evidence: PictureEvidence
    told: bool
    pages: tuple[KnowledgeDocument, ...] = ()

    def messages(self, *, tokens: bool = True) -> list[Message]:
        """The prompt.

        Args:
            tokens: whether it has the place for prior tokens.
        """
        assert self.question.picture is not None  # noqa: S101  # picture_questions gives every question one
        task = self.question.task
        return compose_question(
            self.question,
            query=pixels(self.question.picture),
            references=[pixels(path) for path in self.question.references],
            knowledge_lines=knowledge_lines(task, self.pages) if self.told else (),
            prior_lines=prior_lines(self.evidence.prior, PRIOR_TASKS[task]) if self.told else (),
            prior_slot=Slot("prior", PRIOR_TOKENS) if tokens else None,
        )


class TokenTask:
    """See ``loop.Task``. The language model is frozen here and no part of what is stored.

    Args:
        samples: to train on.
        held_out: to judge by.
        model: the frozen model.
        patch_dim: D, of the backbone's deepest layer.
    """

    def __init__(
        self, samples: Sequence[TokenSample], held_out: Sequence[TokenSample], model: QwenModel, patch_dim: int
    ) -> None:
        if not samples:
            raise InputError("there is nothing to train on.", hint="Give products with good references and defects.")
        self.samples, self.held_out, self.model = samples, held_out, model
        self.size = len(samples)
        model.checkpoint.model.eval().requires_grad_(False)
        self.module: nn.Module = EvidenceTokenizer(patch_dim, model.width).to(model.checkpoint.device)

    def loss(self, indices: Sequence[int]) -> torch.Tensor:
        """Mean over the samples of the loss of their answers."""
        return self.losses([self.samples[index] for index in indices]).mean()

    def losses(self, samples: Sequence[TokenSample], *, tokens: bool = True) -> torch.Tensor:
        """Mean negative log-likelihood of each answer's letter, float32 (B,).

        Args:
            samples: B of them.
            tokens: False leaves the prior tokens out of the prompts.
        """
        taught = [
            teach(self.model, sample.messages(tokens=tokens), sample.question.answer, ends=False) for sample in samples
        ]
        encoder = self.model.encoder
        embeds = [
            encoder.embeddings(one.encoded, {"prior": self.vectors(sample.evidence)} if tokens else None)
            for one, sample in zip(taught, samples, strict=True)
        ]
        return answer_losses(self.model, taught, embeds)

    def vectors(self, evidence: PictureEvidence) -> torch.Tensor:
        """Prior tokens of a picture, (17, d), as long as the model's own embeddings; gradients flow from them."""
        device = self.model.checkpoint.device
        anomaly_map = torch.from_numpy(evidence.anomaly_map.astype(np.float32)).to(device)[None]
        patches = torch.from_numpy(evidence.patch_tokens.astype(np.float32)).to(device)[None]
        found: torch.Tensor = rescale_to(self.module(anomaly_map, patches, evidence.grid), self.model.median_row_norm)
        return found[0]

    def after_step(self) -> None:
        """Nothing has to hold."""

    def held_out_score(self) -> float | None:
        """Minus the mean loss on held-out products; None without any."""
        return None if not self.held_out else -self.mean_loss(self.held_out)

    def mean_loss(self, samples: Sequence[TokenSample], *, tokens: bool = True, batch: int = 8) -> float:
        """Mean loss of samples, in nats a token.

        Args:
            samples: which.
            tokens: see `losses`.
            batch: samples in a forward pass.
        """
        with torch.no_grad():
            parts = [self.losses(samples[i : i + batch], tokens=tokens) for i in range(0, len(samples), batch)]
        return float(torch.cat(parts).mean())


def build_samples(
    sources: Sequence[Source],
    evidence: dict[Path, PictureEvidence],
    pages: Sequence[KnowledgeDocument],
    config: TokensConfig,
) -> list[TokenSample]:
    """One sample for each question about a picture that the prior has something to say to.

    Args:
        sources: data sets and products.
        evidence: of their pictures.
        pages: of the knowledge base.
        config: of the run.
    """
    tasks = [task for task in TASKS if PRIOR_TASKS[task] != "object"]
    samples = []
    for source in sources:
        seed, name = config.loop.seed, source.product.name
        rng = np.random.default_rng([seed, *name.encode()])
        own = [page for page in pages if page.product == name]
        for question in picture_questions(
            source.dataset, source.product, pages, seed=seed, tasks=tasks, references=config.shown
        ):
            if question.picture not in evidence:
                continue
            quoted = tuple(own[int(index)] for index in rng.permutation(len(own))[:QUOTED])
            samples.append(TokenSample(question, evidence[question.picture], bool(rng.random() < TOLD_SHARE), quoted))
    return samples


def train_tokens(
    sources: Sequence[Source],
    held_out: Sequence[Source],
    backbone: Backbone,
    model: QwenModel,
    pages: Sequence[KnowledgeDocument],
    folder: Path,
    cache: Path,
    config: TokensConfig,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train, and write ``tokens.safetensors``, the card and the checkpoint into a folder.

    Args:
        sources: products to train on.
        held_out: products that decide when to stop.
        backbone: whose patch tokens are read.
        model: the language model, which stays as it is.
        pages: of the knowledge base, for the options of questions.
        folder: of the results.
        cache: where features of pictures are kept.
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
    data = describe_data(*([(s.product, s.licence) for s in part] for part in (sources, held_out)))
    seed_everything(config.loop.seed)
    found = look_at_products(
        [*sources, *held_out],
        backbone,
        cache,
        references=config.references,
        max_pictures=config.max_pictures,
        seed=config.loop.seed,
        report=report,
    )
    samples, judged_by = (build_samples(part, found, pages, config) for part in (sources, held_out))
    patch_dim = next(iter(found.values())).patch_tokens.shape[1] if found else 1
    torch.manual_seed(config.loop.seed)  # whatever the look at the pictures drew
    task = TokenTask(samples, judged_by, model, patch_dim)
    model_sha256 = checkpoint_sha256(model.checkpoint.folder)
    page_ids = sorted(page.doc_id for page in pages)
    fingerprint = fingerprint_of(data, asdict(config), backbone.weights_sha256, model_sha256, page_ids)
    before = _held_out_losses(task, "untrained")
    trained = fit(task, config.loop, folder, fingerprint=fingerprint, resume=resume, report=report)
    task.module.load_state_dict(trained.state)
    header = {
        "format": FORMAT,
        "backbone": backbone.name,
        "backbone_sha256": backbone.weights_sha256,
        "model": model.name,
        "model_sha256": model_sha256,
        "width": str(model.width),
        "patch_dim": str(patch_dim),
        "median_row_norm": repr(model.median_row_norm),
        "steps": str(trained.progress.step),
        "config": json.dumps(asdict(config)),
    }
    write_tensors(folder / TOKENS_FILE, task.module.state_dict(), header)
    metrics = {**before, **_held_out_losses(task, "trained")}
    card = _card(trained, data, config, backbone, header, metrics, len(samples), len(judged_by))
    write_card(folder, card)
    return card


def _held_out_losses(task: TokenTask, name: str) -> dict[str, float]:
    """Loss on held-out products with the present tokens; beside it without any."""
    if not task.held_out:
        return {}
    task.module.eval()
    found = {f"held-out loss, {name} tokens": task.mean_loss(task.held_out)}
    if name == "untrained":
        found["held-out loss, no tokens"] = task.mean_loss(task.held_out, tokens=False)
    return found


def _card(
    trained: Trained,
    data: dict[str, Any],
    config: TokensConfig,
    backbone: Backbone,
    header: dict[str, str],
    metrics: dict[str, float],
    samples: int,
    judged: int,
) -> dict[str, Any]:
    progress = trained.progress
    return {
        "model": "Flawscope prior tokens",
        "backbone": {"name": backbone.name, "sha256": backbone.weights_sha256},
        "language_model": {name: header[name] for name in ("model", "model_sha256", "width", "median_row_norm")},
        "seed": config.loop.seed,
        "weights_sha256": state_sha256(trained.state),
        "data": data,
        "metrics": {
            **metrics,
            "training loss of the last epoch": progress.losses[-1],
            "best epoch": progress.best_epoch + 1,
            "epochs": len(progress.losses),
            "steps": progress.step,
            "questions": samples,
            "held-out questions": judged,
        },
        "history": {"losses": progress.losses, "held_out": progress.scores},
        "config": {
            "language model": f"{header['model']} (frozen, sha256 {header['model_sha256'][:12]}…)",
            **asdict(config),
        },
        "environment": environment(),
    }
