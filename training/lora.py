"""Fine-tune a vision-language model by LoRA, for comparison only.

ADSeeker (arXiv 2508.03088) found that its instruction data, learnt this way, cost the model what it could do before:
retrieval and the expert's evidence beat it at 5 epochs and by far at 20. So nothing that is trained here is used unless
it is asked for by name; ``flawscope bench forgetting`` shows what it does, epoch by epoch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..agent.errors import InputError
from ..agent.home import write_atomically
from ..agent.vision_language.adapter import ADAPTER_FILE, CONFIG_FILE, FORMAT, stored_name
from ..agent.vision_language.identity import checkpoint_sha256
from ..agent.vision_language.qwen import QwenModel
from .answer_loss import answer_losses, teach
from .card import describe_data, environment, fingerprint_of, write_card
from .checkpoint import state_sha256, write_tensors
from .conversations import Conversation
from .loop import LoopConfig, fit, seed_everything
from .retriever_pairs import Source

CONVERSATIONS_FILE = "conversations.jsonl"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
"""Of the language model; the picture encoder names its own otherwise, so it stays as it is."""
DEFAULT_LOOP = LoopConfig(epochs=5, batch=8, learning_rate=2e-4, warm_up=0.03, weight_decay=0.0, patience=0)
Report = Callable[[str, int, int], None]
AfterEpoch = Callable[[int], None]
"""Told how many epochs are done; must be repeatable, since a killed run may end an epoch twice."""


@dataclass(frozen=True)
class LoraRun:
    """A whole run; the paper gives none of these values but the epochs.

    Attributes:
        loop: how weights are fitted; every epoch is run, since the point is what many of them do.
        rank: r.
        alpha: scale of the update, alpha / r.
        max_pictures: labelled pictures a product.
        shown: good pictures that a prompt shows.
    """

    loop: LoopConfig = DEFAULT_LOOP
    rank: int = 16
    alpha: int = 32
    max_pictures: int = 120
    shown: int = 1


class Adapter(nn.Module):  # type: ignore[misc]
    """What is learnt, and how many epochs it has seen; the model's own weights are no part of it.

    Args:
        matrices: by their names in the model, which they stay in too.
    """

    def __init__(self, matrices: dict[str, nn.Parameter]) -> None:
        super().__init__()
        # a name with a dot would be a path of modules
        self.matrices = nn.ParameterDict({name.replace(".", "/"): value for name, value in matrices.items()})
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def stored(self) -> dict[str, torch.Tensor]:
        """By the names that PEFT stores them under."""
        return {stored_name(name.replace("/", ".")): value for name, value in self.matrices.items()}


class LoraTask:
    """See ``loop.Task``. What is stored are the adapter's matrices; the model's own weights stay as they are.

    Args:
        conversations: to learn from.
        held_out: to judge by.
        model: gets the adapter, which does nothing at first.
        run: of the run.
        after_epoch: called with the number of epochs done, 1 after the first.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        held_out: Sequence[Conversation],
        model: QwenModel,
        run: LoraRun,
        after_epoch: AfterEpoch | None = None,
    ) -> None:
        if not conversations:
            raise InputError("there is nothing to train on.", hint="Give products with labelled pictures.")
        from peft import LoraConfig, inject_adapter_in_model

        self.conversations, self.held_out, self.model = conversations, held_out, model
        self.size, self.after_epoch = len(conversations), after_epoch
        self.config = LoraConfig(r=run.rank, lora_alpha=run.alpha, lora_dropout=0.0, target_modules=list(TARGETS))
        network = model.checkpoint.model
        inject_adapter_in_model(self.config, network)  # in place: the model has it from now on
        network.eval()
        self.module = Adapter({name: value for name, value in network.named_parameters() if value.requires_grad})

    def loss(self, indices: Sequence[int]) -> torch.Tensor:
        """Mean over the conversations of the loss of their answers."""
        return self.losses([self.conversations[index] for index in indices]).mean()

    def losses(self, conversations: Sequence[Conversation]) -> torch.Tensor:
        """Mean negative log-likelihood of the tokens of each answer, float32 (B,)."""
        taught = [teach(self.model, each.messages(), each.answer) for each in conversations]
        return answer_losses(self.model, taught, [self.model.encoder.embeddings(one.encoded) for one in taught])

    def after_step(self) -> None:
        """Nothing has to hold."""

    def held_out_score(self) -> float | None:
        """Minus the mean loss on held-out products; None without any. Called at the end of an epoch."""
        self.module.epochs += 1
        if self.after_epoch is not None:
            self.after_epoch(int(self.module.epochs))
        return self.score()

    def score(self) -> float | None:
        """Minus the mean loss on held-out products; None without any."""
        if not self.held_out:
            return None
        with torch.no_grad():
            parts = [self.losses(self.held_out[i : i + 8]) for i in range(0, len(self.held_out), 8)]
        return -float(torch.cat(parts).mean())


def train_lora(
    sources: Sequence[Source],
    held_out: Sequence[Source],
    conversations: Sequence[Conversation],
    judged_by: Sequence[Conversation],
    model: QwenModel,
    folder: Path,
    run: LoraRun,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train, and write ``adapter_model.safetensors``, ``adapter_config.json``, the card and the checkpoint.

    Args:
        sources: products that the conversations are about, for the card.
        held_out: likewise of ``judged_by``.
        conversations: to learn from.
        judged_by: of products that are not learnt from.
        model: gets the adapter.
        folder: of the results.
        run: of the run.
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
    model_sha256 = checkpoint_sha256(model.checkpoint.folder)
    seed_everything(run.loop.seed)
    task = LoraTask(conversations, judged_by, model, run)
    with torch.no_grad():
        before = {} if not judged_by else {"held-out loss, untrained": -float(task.score() or 0.0)}
    said = [[each.id, each.answer] for each in (*conversations, *judged_by)]
    fingerprint = fingerprint_of(data, asdict(run), model_sha256, said)
    progress = fit(task, run.loop, folder, fingerprint=fingerprint, resume=resume, report=report).progress
    save_adapter(task, folder, model_sha256)
    card = {
        "model": "Flawscope LoRA adapter, for comparison only",
        "backbone": {"name": model.name, "sha256": model_sha256},
        "seed": run.loop.seed,
        "weights_sha256": state_sha256(task.module.stored()),
        "data": data,
        "metrics": {
            **before,
            **({"held-out loss, last epoch": -float(progress.scores[-1] or 0.0)} if judged_by else {}),
            "training loss of the last epoch": progress.losses[-1],
            "epochs": len(progress.losses),
            "conversations": len(conversations),
            "held-out conversations": len(judged_by),
        },
        "history": {"losses": progress.losses, "held_out": progress.scores},
        "config": {**asdict(run), "targets": list(TARGETS)},
        "environment": environment(),
    }
    write_card(folder, card)
    return card


def save_adapter(task: LoraTask, folder: Path, model_sha256: str) -> None:
    """Write the adapter as PEFT keeps it, so that other programs read it too.

    Args:
        task: whose.
        folder: made if absent.
        model_sha256: of the checkpoint that it was trained on.

    Raises:
        StorageError: the disk refuses.
    """
    header = {"format": FORMAT, "model": task.model.name, "model_sha256": model_sha256}
    write_tensors(folder / ADAPTER_FILE, task.module.stored(), header)
    config = task.config.to_dict()
    config = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    config |= {"base_model_name_or_path": task.model.name, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=str)
    write_atomically(folder / CONFIG_FILE, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
