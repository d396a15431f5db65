"""What fine-tuning by LoRA does to a vision-language model, epoch by epoch.

ADSeeker (arXiv 2508.03088, ablation) fine-tuned its base on instruction data and found both of its tasks better after 5
epochs, worse than untouched after 10 and broken after 20, while evidence and pages in the prompt cost nothing. Here the
same is asked of any checkpoint: it learns the questions of some products, and after each epoch it is examined on

- held out: the same kinds of questions about products that it never saw, nothing else in the prompt;
- with evidence: the same questions with the expert's evidence and the product's pages in the prompt;
- general: questions about made-up products, which can only be answered by reading what the prompt says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..agent.home import write_json_atomically
from ..agent.reasoner.composing import prior_lines
from ..tools.knowledge.schema import GOOD, KnowledgeDocument
from ..training.questions import PRIOR_TASKS, compose_question, picture_questions
from ..training.questions.simulated import Simulator, simulated_questions

if TYPE_CHECKING:
    from ..agent.vision_language import Message
    from ..agent.vision_language.qwen import QwenModel
    from ..tools.backbones import Backbone
    from ..training.lora import LoraRun
    from ..training.retriever_pairs import Source

LOG_FILE = "accuracy.json"
GENERAL_SEED = 7_000_003
QUOTED = 4
BATCH = 8
EXAMS = ("held out", "with evidence", "general")
PAPER_PLAIN = (76.6, 67.1)
PAPER_FULL = (82.8, 71.4)
PAPER_LORA = {5: (80.0, 71.0), 10: (72.8, 59.7), 20: (40.9, 33.2)}
"""ADSeeker's two tasks: the base alone, with retrieval and the AD Expert, and fine-tuned for so many epochs."""
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Asked:
    """A question of an exam: how its prompt is made, its options and the right one."""

    messages: Callable[[], list[Message]]
    letters: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Epoch:
    """What the model knew after so many epochs.

    Attributes:
        number: 0 is before training.
        loss: mean training loss of the epoch, nats a token; None before.
        accuracy: by exam, in [0, 1].
    """

    number: int
    loss: float | None
    accuracy: dict[str, float]


@dataclass(frozen=True)
class ForgettingResult:
    """What was measured.

    Attributes:
        model: name of the checkpoint.
        learnt: products, and how many conversations about them.
        held_out: products.
        questions: by exam.
        chance: accuracy of guessing, by exam.
        epochs: in order.
    """

    model: str
    learnt: tuple[tuple[str, ...], int]
    held_out: tuple[str, ...]
    questions: dict[str, int]
    chance: dict[str, float]
    epochs: tuple[Epoch, ...]


def run_forgetting(
    sources: Sequence[Source],
    held_out: Sequence[Source],
    backbone: Backbone,
    model: QwenModel,
    pages: Sequence[KnowledgeDocument],
    folder: Path,
    cache: Path,
    run: LoraRun,
    *,
    questions: int = 200,
    resume: bool = False,
    report: Report | None = None,
) -> ForgettingResult:
    """Fine-tune a model and examine it after each epoch.

    Args:
        sources: products to learn.
        held_out: products to examine on.
        backbone: of the expert that gives the evidence.
        model: gets the adapter.
        pages: of the knowledge base.
        folder: of the checkpoint and the accuracies.
        cache: where features of pictures are kept.
        run: of the training.
        questions: of each exam, at most.
        resume: go on with a run that was stopped.
        report: told (what, done, in all).

    Raises:
        InputError: there is nothing to train on.
        WeightsError: the folder's checkpoint belongs to another run.
        StorageError: the disk refuses.
    """
    from ..agent.vision_language.identity import checkpoint_sha256
    from ..training.card import fingerprint_of
    from ..training.conversations import question_conversations
    from ..training.loop import fit, seed_everything
    from ..training.lora import LoraTask

    seed = run.loop.seed
    exams = build_exams(held_out, backbone, pages, cache, run, questions, report)
    learnt = list(question_conversations(sources, pages, seed=seed, shown=run.shown, max_pictures=run.max_pictures))
    said = [[each.id, each.answer] for each in learnt]
    fingerprint = fingerprint_of(
        said, asdict(run), questions, checkpoint_sha256(model.checkpoint.folder), [s.product.name for s in held_out]
    )
    log = _Log(folder / LOG_FILE, fingerprint, resume)

    def examine_all(epoch: int) -> None:
        log.add(epoch, {name: examine(model, asked, name, report) for name, asked in exams.items()})

    if 0 not in log.epochs:
        examine_all(0)
    seed_everything(seed)
    task = LoraTask(learnt, [], model, run, after_epoch=examine_all)
    progress = fit(task, run.loop, folder, fingerprint=fingerprint, resume=resume, report=report).progress
    return ForgettingResult(
        model.name,
        (tuple(source.product.name for source in sources), len(learnt)),
        tuple(source.product.name for source in held_out),
        {name: len(asked) for name, asked in exams.items()},
        {name: float(np.mean([1 / len(one.letters) for one in asked])) for name, asked in exams.items()},
        tuple(
            Epoch(number, progress.losses[number - 1] if number else None, log.epochs[number])
            for number in range(len(progress.losses) + 1)
        ),
    )


def build_exams(
    held_out: Sequence[Source],
    backbone: Backbone,
    pages: Sequence[KnowledgeDocument],
    cache: Path,
    run: LoraRun,
    questions: int,
    report: Report | None = None,
) -> dict[str, list[Asked]]:
    """The three exams; those about held-out products ask the same questions.

    Args:
        held_out: products to examine on.
        backbone: of the expert.
        pages: of the knowledge base.
        cache: where features are kept.
        run: of the training, for its seed and the references that a prompt shows.
        questions: of each exam, at most.
        report: told (what, done, in all).
    """
    from ..training.picture_evidence import look_at_products
    from ..training.tokens import TokenSample

    seed = run.loop.seed
    evidence = look_at_products(
        held_out, backbone, cache, references=16, max_pictures=run.max_pictures, seed=seed, report=report
    )
    plain: list[Asked] = []
    told: list[Asked] = []
    for source in held_out:
        own = tuple(page for page in pages if page.product == source.product.name and page.defect_type != GOOD)
        for question in picture_questions(source.dataset, source.product, pages, seed=seed, references=run.shown):
            if question.picture not in evidence:
                continue
            found = evidence[question.picture]
            for exam, sample in (
                (plain, TokenSample(question, found, told=False)),
                (told, TokenSample(question, found, told=True, pages=own[:QUOTED])),
            ):
                exam.append(Asked(partial(sample.messages, tokens=False), question.letters, question.answer))
    order = np.random.default_rng(seed).permutation(len(plain))[:questions]
    return {
        "held out": [plain[int(index)] for index in order],
        "with evidence": [told[int(index)] for index in order],
        "general": list(islice(general_questions(pages), questions)),
    }


def general_questions(pages: Sequence[KnowledgeDocument], count: int = 10_000) -> Iterable[Asked]:
    """Questions about made-up products, of a seed that no training uses.

    Args:
        pages: whose sentences they are made of.
        count: at most so many.
    """
    for case, question in simulated_questions(Simulator(pages), GENERAL_SEED, count):
        lines = () if case.prior is None else prior_lines(case.prior, PRIOR_TASKS[question.task])
        messages = compose_question(question, knowledge_lines=case.knowledge(question.task), prior_lines=lines)
        yield Asked(partial(list, messages), question.letters, question.answer)


def examine(model: QwenModel, asked: Sequence[Asked], name: str = "", report: Report | None = None) -> float:
    """Share of right answers.

    Args:
        model: whom to ask.
        asked: the questions.
        name: of the exam, for the report.
        report: told (what, done, in all).
    """
    from ..agent.vision_language.batching import choose_many

    right = 0
    for begin in range(0, len(asked), BATCH):
        some = asked[begin : begin + BATCH]
        answers = choose_many(model, [one.messages() for one in some], [one.letters for one in some])
        right += sum(answer.letter == one.answer for answer, one in zip(answers, some, strict=True))
        if report:
            report(f"examining: {name}", begin + len(some), len(asked))
    return right / len(asked) if asked else float("nan")


class _Log:
    """Accuracies by epoch, in a file that outlives the process; an epoch that is examined again replaces itself."""

    def __init__(self, path: Path, fingerprint: str, resume: bool) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.epochs: dict[int, dict[str, float]] = {}
        if resume and path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["fingerprint"] == fingerprint:
                self.epochs = {int(number): accuracy for number, accuracy in found["epochs"].items()}

    def add(self, epoch: int, accuracy: dict[str, float]) -> None:
        self.epochs[epoch] = accuracy
        stored = {str(number): known for number, known in sorted(self.epochs.items())}
        write_json_atomically(self.path, {"fingerprint": self.fingerprint, "epochs": stored})


def render(result: ForgettingResult) -> str:
    """A Markdown table, the paper's figures in the same rows, in per cent."""
    learnt, count = result.learnt
    lines = [
        f"{result.model}: LoRA on {count} conversations about {', '.join(learnt)}; examined on"
        f" {', '.join(result.held_out)}. Accuracy in per cent; questions and guessing: "
        + ", ".join(f"{name} {result.questions[name]}, {100 * result.chance[name]:.1f}" for name in EXAMS)
        + ".",
        "",
        "| epochs | training loss | held out | with evidence | general | the paper's two tasks |",
        "|---|---|---|---|---|---|",
    ]
    for epoch in result.epochs:
        paper = PAPER_LORA.get(epoch.number, PAPER_PLAIN if epoch.number == 0 else None)
        cells = [f"{100 * epoch.accuracy[name]:.1f}" for name in EXAMS]
        loss = "–" if epoch.loss is None else f"{epoch.loss:.3f}"
        theirs = "" if paper is None else f"{paper[0]:.1f}, {paper[1]:.1f}"
        lines.append(f"| {epoch.number} | {loss} | {' | '.join(cells)} | {theirs} |")
    lines += [
        "",
        f"The paper's base with retrieval and the AD Expert, without LoRA: {PAPER_FULL[0]:.1f}, {PAPER_FULL[1]:.1f}."
        " Its base, data and tasks are others, so only the course of its figures can be compared.",
    ]
    return "\n".join(lines)
