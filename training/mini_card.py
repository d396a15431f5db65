"""What the mini can do on products that it was not trained on, and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..agent.home import write_json_atomically, write_text_atomically
from ..agent.vision_language.base import normalised_entropy
from ..tools.knowledge.schema import KnowledgeDocument
from .card import environment
from .mini_packing import Pack, collate, letters_among, read_batch
from .mini_schedule import identity_of
from .questions import LETTERS, TASKS, Question, QuestionWriter

if TYPE_CHECKING:
    from .mini import Sources
    from .mini_trainer import Trainer

MEASURED = 16
"""Prompts of a batch."""


def measure(trainer: Trainer, pages: Sequence[KnowledgeDocument]) -> dict[str, Any]:
    """Ask about the held-out pictures, with evidence and pages, and with the picture alone.

    Args:
        trainer: after training.
        pages: that options are drawn from.

    Returns:
        Accuracies by subtask in both ways, and how well entropy tells errors; None where nothing was held out.
    """
    writer = QuestionWriter(pages)
    asked: list[tuple[Question, Any]] = []
    for number, case in enumerate(trainer.job.held_out):
        for index, task in enumerate(TASKS):
            question = writer.ask(task, case.subject, np.random.default_rng([trainer.job.config.seed, number, index]))
            if question is not None:
                asked.append((question, case))
    found: dict[str, Any] = {}
    for told in (False, True):
        packs = [trainer.maker.evidence_pack(case, question, told=told) for question, case in asked]
        shares = probabilities(trainer, packs, [question for question, _ in asked])
        right = np.array(
            [bool(LETTERS[int(np.argmax(p))] == q.answer) for p, (q, _) in zip(shares, asked, strict=True)]
        )
        entropies = np.array([normalised_entropy(p) for p in shares])
        by_task = {
            task: float(right[[q.task == task for q, _ in asked]].mean())
            for task in TASKS
            if any(q.task == task for q, _ in asked)
        }
        found["told" if told else "picture alone"] = {
            "questions": len(asked),
            "accuracy": float(np.mean(list(by_task.values()))) if by_task else None,
            "by_task": by_task,
            "entropy_tells_errors": error_auroc(right, entropies),
        }
    return found


def probabilities(trainer: Trainer, packs: Sequence[Pack], questions: Sequence[Question]) -> list[list[float]]:
    """Probabilities of the options of one question a pack, adding up to 1."""
    order = sorted(range(len(packs)), key=lambda i: len(packs[i].ids) + len(packs[i].endings[0].ids))
    found: list[list[float]] = [[] for _ in packs]
    learner = trainer.learner.eval()
    letters = torch.tensor([trainer.maker.encode(letter)[0] for letter in LETTERS])
    with torch.no_grad():
        for begin in range(0, len(order), MEASURED):
            mine = order[begin : begin + MEASURED]
            batch = collate([packs[i] for i in mine], trainer.pad, trainer.image)
            features = trainer.gallery.features(learner.mini, dict.fromkeys(key for _, _, key in batch.pictures))
            *_, last = read_batch(learner.mini, batch, features, ())
            rows, places, wanted = batch.targets.T
            answers, _ = letters_among(wanted, letters.tolist())
            logits = learner.mini.lm_head(last[rows[answers], places[answers]])[:, letters]
            for i, row in zip(mine, logits, strict=True):
                found[i] = torch.softmax(row[: len(questions[i].options)].double(), dim=0).tolist()
    return found


def error_auroc(right: np.ndarray[Any, Any], entropies: np.ndarray[Any, Any]) -> float | None:
    """Probability that a wrong answer is less sure than a right one; None where all are one of both."""
    if right.all() or not right.any():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(~right, entropies))


def card_of(
    trainer: Trainer, sources: Sources, sha256: str, seconds: Mapping[str, float], measured: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything worth knowing of a run."""
    return {
        "model": "mini",
        "laboratory": True,
        "classes": ["Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"],
        "parameters": sum(p.numel() for p in trainer.learner.mini.parameters()),
        "weights_sha256": sha256,
        "config": identity_of(trainer.job.config),
        "data": {"trained_on": sources.train, "held_out": sources.hold_out, "left_out": sources.leave_out},
        "pictures": {"trained_on": len(trainer.job.cases), "held_out": len(trainer.job.held_out)},
        "steps": trainer.progress.step,
        "losses": trainer.progress.losses,
        "seconds": {name: round(value) for name, value in seconds.items()},
        "measured": measured,
        "environment": environment(),
    }


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """``card.json`` and ``README.md``, as model cards are called beside checkpoints.

    Raises:
        StorageError: the disk refuses.
    """
    write_json_atomically(folder / "card.json", dict(card))
    write_text_atomically(folder / "README.md", render_card(card))


def render_card(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    data, measured = card["data"], card["measured"]
    lines = [
        "# mini: a laboratory animal",
        "",
        f"Qwen2.5-VL's classes around {card['parameters'] / 1e6:.2f} million weights, all of it trained on a "
        f"CPU in {card['seconds']['training'] / 60:.0f} minutes (evidence before that: "
        f"{card['seconds']['evidence'] / 60:.0f}), seed {card['config']['seed']}. It reads measurements and pages and "
        "names the option that says the same. It hardly sees, and nobody should inspect parts with it.",
        "",
        "Its training begins with attention that is laid out: heads that look one token back, that look for equal "
        "words, that tell what is asked from what is told, and that find an option's letter. By themselves they answer "
        "at chance; what they are used for was learnt.",
        "",
        f"Weights sha256 `{card['weights_sha256']}`.",
        "",
        "## Data",
        "",
        f"Trained on made-up cases and {card['pictures']['trained_on']} pictures of {', '.join(data['trained_on'])}; "
        f"judged by {card['pictures']['held_out']} pictures of {', '.join(data['held_out']) or 'nothing'}; nothing of "
        f"{', '.join(data['left_out']) or 'nothing'} was seen. The pictures' licences allow research only, so that the "
        "weights are not to be passed on.",
        "",
        "## On the held-out pictures",
        "",
        "| subtask | picture alone | evidence and pages |",
        "|---|---|---|",
    ]
    alone, told = measured["picture alone"], measured["told"]
    for task, share in told["by_task"].items():
        lines.append(f"| {task} | {100 * alone['by_task'][task]:.1f} | {100 * share:.1f} |")
    if told["accuracy"] is not None:
        lines.append(f"| mean of the subtasks | {100 * alone['accuracy']:.1f} | {100 * told['accuracy']:.1f} |")
    if told["entropy_tells_errors"] is not None:
        lines += [
            "",
            f"Entropy tells its errors with an AUROC of {told['entropy_tells_errors']:.2f} (evidence and pages).",
        ]
    return "\n".join([*lines, ""])
