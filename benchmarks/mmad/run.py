"""Ask a set's questions, keep each answer on disk, and sum up. A run that was cut off goes on where it stood."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ConfigError, InputError
from ...agent.vision_language import Message
from ...tools.imaging import load_image
from ...training.questions import Question, compose_question
from ..run_folder import RunFolder, open_run
from .answering import Answerer, Known, MostFrequent, answered, other_orders
from .protocol import official_messages
from .questions import Item, ItemSet, Templates, load_items
from .tables import Summary, summarise

LOG = "answers.jsonl"
Form = Literal["official", "own"]
Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True)
class Protocol:
    """How questions are asked.

    Attributes:
        shots: good pictures shown with each question.
        templates: which of those that the set names: drawn at random, or most similar.
        form: words of the published script, or of ``prompts/question.md``.
        oracle_knowledge: give the set's texts about the true product and its true defects; a row of its own, since
            nothing that retrieves knows them.
        numbered: ``Question N:`` before a question in the official form.
        free: let the model answer in words and read the letter, rather than compare the letters' probabilities.
        permutations: times that a question is asked again with its options moved on, for the log; of fewer options as
            often as there are further orders.
    """

    shots: int = 1
    templates: Templates = "random"
    form: Form = "official"
    oracle_knowledge: bool = False
    numbered: bool = False
    free: bool = False
    permutations: int = 0


@lru_cache(maxsize=64)
def picture(path: Path) -> NDArray[np.uint8]:
    """A picture of the set, uint8 RGB (H, W, 3); those asked about one after the other are decoded once.

    Raises:
        InputError: it cannot be read.
    """
    return load_image(path).rgb


def question_of(item: Item) -> Question:
    """An item as `flawscope.training.questions.compose_question` takes it.

    Raises:
        InputError: it has more than five options, or two that are the same.
    """
    try:
        return Question(
            task=item.subtask,  # type: ignore[arg-type]  # checked by who scores: an unknown subtask is a column of its own
            text=item.text,
            options=tuple(item.options.values()),
            answer=item.answer,
            product=item.product,
            dataset=item.dataset,
        )
    except ValueError as error:
        raise InputError(f"{item.key} cannot be asked in our own form: {error}.", hint="Use --form official.") from None


def asked(items: ItemSet, item: Item, protocol: Protocol) -> list[Message]:
    """The conversation of one question."""
    references = [picture(items.root / path) for path in item.templates(protocol.templates, protocol.shots)]
    query = picture(items.root / item.image)
    if protocol.form == "own":
        return compose_question(question_of(item), query=query, references=references)
    knowledge = items.oracle_knowledge(item) if protocol.oracle_knowledge else None
    return official_messages(item, query, references, knowledge, numbered=protocol.numbered)


def chosen_items(
    items: ItemSet, products: Sequence[str] | None = None, tasks: Sequence[str] | None = None, limit: int | None = None
) -> list[Item]:
    """A part of a set: whole pictures, ``limit`` of each product, spread evenly over the file.

    Raises:
        ConfigError: nothing is left.
    """
    kept = [
        item
        for item in items.items
        if (not products or item.product in products) and (not tasks or item.subtask in tasks)
    ]
    if limit is not None:
        images: dict[tuple[str, str], dict[str, None]] = {}
        for item in kept:
            images.setdefault((item.dataset, item.product), {})[item.image] = None
        spread = {image for found in images.values() for image in _spread(list(found), limit)}
        kept = [item for item in kept if item.image in spread]
    if not kept:
        raise ConfigError("no question is left of the set.", hint="Check --products and --tasks.")
    return kept


def _spread(images: Sequence[str], limit: int) -> list[str]:
    count = min(limit, len(images))
    return [images[i * len(images) // count] for i in range(count)]


@contextmanager
def run_folder(root: Path, items: ItemSet, model: str, identity: dict[str, Any]) -> Iterator[RunFolder]:
    """Begin a run, or take it up again as what it was; see `flawscope.benchmarks.run_folder.open_run`."""
    whole = {"benchmark": "mmad", "mmad_sha256": items.sha256, "model": model, **identity}
    with open_run(root, whole, key="id", log=LOG) as folder:
        yield folder


def ask_all(
    folder: RunFolder | None,
    items: Sequence[Item],
    ask: Callable[[Item], dict[str, Any]],
    what: str,
    progress: Progress,
) -> list[dict[str, Any]]:
    """The lines of all questions, those of a run before included, in the order of the questions.

    Args:
        folder: where lines are kept; None keeps them in memory alone.
        items: the questions.
        ask: gives the line of one.
        what: is being done, for the progress.
        progress: told after each.
    """
    lines = []
    for done, item in enumerate(items, start=1):
        line = None if folder is None else folder.records.get(item.key)
        if line is None:
            line = ask(item)
            if folder is not None:
                folder.add(line)
        lines.append(line)
        progress(what, done, len(items))
    return lines


def run_mmad(
    data: Path,
    answerer: Answerer,
    protocol: Protocol,
    *,
    products: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    weights: str = "",
    out: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Ask a model and, for comparison, answer with the most frequent letters.

    Args:
        data: folder with ``mmad.json``.
        answerer: a model.
        protocol: how to ask.
        products: only these; all when None.
        tasks: only these subtasks.
        limit: pictures of each product at most.
        weights: what tells the model from others of its name, for ``out``.
        out: where answers are kept; a run there goes on.
        progress: told after each answer.

    Raises:
        InputError: the set or a picture cannot be read.
        ConfigError: nothing is left of the set, or ``out`` holds another run.
        BackendError: the model failed.
    """
    items = load_items(data)
    chosen = chosen_items(items, products, tasks, limit)

    def ask(item: Item) -> dict[str, Any]:
        again = []
        for moved, back in other_orders(item, protocol.permutations):
            found = answerer.answer(moved, asked(items, moved, protocol))
            again.append(back.get(found.letter or ""))
        return answered(item, answerer, asked(items, item, protocol), Known(permuted=tuple(again)))

    identity = {"protocol": vars(protocol), "products": products, "tasks": tasks, "limit": limit}
    identity["weights"] = weights
    if out is None:
        lines = ask_all(None, chosen, ask, "asking", progress)
    else:
        with run_folder(out, items, answerer.name, identity) as folder:
            lines = ask_all(folder, chosen, ask, "asking", progress)
    frequent = MostFrequent.of(chosen)
    summaries: list[Summary] = [
        summarise(answerer.name, lines),
        summarise(frequent.name, [answered(item, frequent, ()) for item in chosen]),
    ]
    return {
        "title": data.name,
        "sha256": items.sha256,
        "first_release": items.first_release,
        "protocol": protocol,
        "questions": len(chosen),
        "images": len({item.image for item in chosen}),
        "whole": len(chosen) == len(items.items),
        "rows": summaries,
    }
