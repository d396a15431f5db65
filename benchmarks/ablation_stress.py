"""False evidence and good parts: whether certainty falls, whether the verifier objects, whether good parts turn bad."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..agent.vision_language import LetterAnswer
from ..tools.knowledge.categories import CategoryChoice
from ..tools.knowledge.schema import GOOD
from ..training.questions import PRIOR_TASKS
from .ablation_objections import objects
from .mmad.answering import permuted, says_yes
from .mmad.arms import BY_NAME, Arm
from .mmad.asking import Asking, Given, mapped_back
from .mmad.evidence import EvidenceSource, PictureEvidence
from .mmad.questions import Item, ItemSet
from .mmad.run import ask_all, question_of
from .mmad.scoring import DETECTION
from .mmad.statistics import Interval, bootstrap_mean
from .mmad.workshop import references_of
from .run_folder import RunFolder

if TYPE_CHECKING:
    from ..agent.vision_language.latent import NormalImages

BASE, LATENT = "A5", "A8"
STAYING = 5.0
"""Percent of answers that may change for them to be called the same."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StressRow:
    """What one kind of false evidence did to the answers of A5.

    Attributes:
        name: of the kind.
        questions: answered.
        accuracy: percent, before and after.
        confidence: probability of the chosen option, before and after.
        change: of that probability, with its interval over pictures.
        changed: share of answers that became others, percent.
        checked: answers that the verifier can check.
        objections: of those, how many it objects to, before and after.
        same_truth: whether the right answer is still what the evidence says, so that answers should stay.
    """

    name: str
    questions: int
    accuracy: tuple[float, float]
    confidence: tuple[float, float]
    change: Interval
    changed: float
    checked: int
    objections: tuple[int, int]
    same_truth: bool = False

    @property
    def outcome(self) -> str:
        """What was asked for: certainty falls or the verifier objects more; answers stay where the truth does."""
        if self.same_truth and self.changed <= STAYING:
            return "answers stay"
        found = ["confidence falls"] if self.change.high < 0.0 else []
        found += ["the verifier objects"] if self.objections[1] > self.objections[0] else []
        return ", ".join(found) or "neither"


@dataclass(frozen=True)
class GoodsRow:
    """How often good reference pictures are called defective.

    Attributes:
        arm: the row.
        questions: asked, two about each picture.
        alarms: how many were called defective.
        against: alarms of the row that it is compared with; None for the first.
        cut: searches for think tokens that ended for want of time or memory.
    """

    arm: str
    questions: int
    alarms: int
    against: int | None
    cut: int = 0


def stress_rows(
    asking: Asking, source: EvidenceSource, items: Sequence[Item], progress: Progress
) -> tuple[StressRow, ...]:
    """Ask A5's questions again with false evidence, one kind at a time."""
    arm = BY_NAME[BASE]
    kinds: dict[str, Callable[[Item, Given, PictureEvidence], tuple[LetterAnswer, Given, PictureEvidence] | None]] = {
        "blank picture, the evidence as it was": lambda i, g, e: _asked(asking, i, replace(g, query=blank(g.query)), e),
        "blank picture, nothing found in it": lambda i, g, e: _asked(asking, i, _unseen(g), e),
        "pages and kind of another product": lambda i, g, e: _asked(asking, i, *_other_product(source, i, g, e)),
        "pages of other types of the product": lambda i, g, e: _other_types(asking, source, i, g, e),
    }
    moved = "option letters moved on, mean of both orders"
    first: list[tuple[Given, PictureEvidence, LetterAnswer]] = []
    for done, item in enumerate(items, start=1):
        evidence = source.of(item)
        given = asking.given(item, arm, evidence)
        first.append((given, evidence, asking.choose(item, given, evidence)))
        progress("stress", done, len(items) * (len(kinds) + 2))
    pairs = []
    for done, (item, (given, evidence, before)) in enumerate(zip(items, first, strict=True), start=1):
        both = _both_orders(before, _moved(asking, item, given, evidence))
        pairs.append(
            (item, before, objects(item, before, evidence, given.pages), *_judged(item, (both, given, evidence)))
        )
        progress("stress", len(items) + done, len(items) * (len(kinds) + 2))
    rows = [replace(_row(moved, pairs), same_truth=True)]
    for number, (name, ask) in enumerate(kinds.items(), start=2):
        pairs = []
        for done, (item, (given, evidence, before)) in enumerate(zip(items, first, strict=True), start=1):
            found = ask(item, given, evidence)
            if found is not None:
                pairs.append((item, before, objects(item, before, evidence, given.pages), *_judged(item, found)))
            progress("stress", len(items) * number + done, len(items) * (len(kinds) + 2))
        if pairs:
            rows.append(_row(name, pairs))
    return tuple(rows)


def blank(rgb: Any) -> Any:
    """A picture of the mean colour, uint8 of the same shape."""
    return np.broadcast_to(rgb.mean(axis=(0, 1)).round().astype(np.uint8), rgb.shape).copy()


def goods_under(
    asking: Asking,
    source: EvidenceSource,
    items: ItemSet,
    arms: Sequence[Arm],
    count: int,
    kept: Callable[[Arm], AbstractContextManager[RunFolder | None]],
    progress: Progress,
    products: Sequence[str] | None = None,
) -> tuple[GoodsRow, ...]:
    """Ask whether good references have a defect, in both orders of yes and no: a model may lean to a letter.

    They are in the expert's memory, as in an inspection of them.

    Args:
        asking: asks a model.
        source: of evidence.
        items: the set.
        arms: the rows.
        count: references of each product at most.
        kept: the folder of a row's answers; None keeps them in memory.
        progress: told after each answer.
        products: only these; all when None.
    """
    template = {item.product: item for item in items.items if item.subtask == DETECTION}
    if products:
        template = {product: item for product, item in template.items() if product in products}
    asked = []
    for product, paths in references_of(items).items():
        if product in template:
            spread = [paths[i * len(paths) // min(count, len(paths))] for i in range(min(count, len(paths)))]
            asked += [question for path in spread for question in _good_reference(template[product], path, paths)]
    alarms: dict[str, int] = {}
    rows = []
    for number, arm in enumerate(arms):

        def told(what: str, done: int, total: int, before: int = number * len(asked)) -> None:
            progress(what, before + done, total * len(arms))

        with kept(arm) as folder:
            lines = ask_all(folder, asked, partial(_line, asking, source, arm), "good references", told)
        alarms[arm.name] = sum(line["answer"] is not None and not line["correct"] for line in lines)
        cut = sum(bool(line.get("cut")) for line in lines)
        rows.append(GoodsRow(arm.name, len(asked), alarms[arm.name], alarms.get(arm.against or ""), cut))
    return tuple(rows)


def _line(asking: Asking, source: EvidenceSource, arm: Arm, item: Item) -> dict[str, Any]:
    return asking.line(item, arm, source.of(item))


def normals_of(rows: Sequence[GoodsRow]) -> NormalImages | None:
    """What latent reasoning did to good references beside the row it is compared with; None if one did not run."""
    from ..agent.vision_language.latent import NormalImages

    for row in rows:
        if row.arm == LATENT and row.against is not None and row.questions:
            return NormalImages(row.questions, row.against, row.alarms, row.cut)
    return None


def _good_reference(one: Item, path: str, paths: Sequence[str]) -> Iterator[Item]:
    """A product's question about a good reference of it, in both orders."""
    texts = sorted(one.options.values(), key=says_yes)
    for number, (first, second) in enumerate((texts, texts[::-1])):
        options = dict(zip("AB", (first, second), strict=True))
        right = next(letter for letter, text in options.items() if not says_yes(text))
        other = _others(paths, path)
        yield replace(one, key=f"{path}#{number}", image=path, options=options, answer=right, random_templates=other)


def _others(paths: Sequence[str], path: str) -> tuple[str, ...]:
    return tuple(other for other in paths if other != path)[:1]


def _judged(item: Item, found: tuple[LetterAnswer, Given, PictureEvidence]) -> tuple[LetterAnswer, bool | None]:
    answer, given, evidence = found
    return answer, objects(item, answer, evidence, given.pages)


def _asked(
    asking: Asking, item: Item, given: Given, evidence: PictureEvidence
) -> tuple[LetterAnswer, Given, PictureEvidence]:
    return asking.choose(item, given, evidence), given, evidence


def _moved(asking: Asking, item: Item, given: Given, evidence: PictureEvidence) -> LetterAnswer:
    moved, back = permuted(item, 1)
    return mapped_back(asking.choose(moved, given, evidence), back)


def _both_orders(before: LetterAnswer, after: LetterAnswer) -> LetterAnswer:
    """The mean of two distributions, as a vote takes it: where the orders disagree it is less sure."""
    if before.probabilities is None or after.probabilities is None:
        return after
    shares = {letter: (share + after.probabilities[letter]) / 2 for letter, share in before.probabilities.items()}
    return replace(before, letter=max(shares, key=lambda letter: shares[letter]), probabilities=shares)


def _unseen(given: Given) -> Given:
    """A blank picture as an inspection tells it: of one colour, nothing is scored and nothing is like it."""
    return replace(given, query=blank(given.query), prior=None, pages=(), slot=None)


def _other_product(
    source: EvidenceSource, item: Item, given: Given, evidence: PictureEvidence
) -> tuple[Given, PictureEvidence]:
    """Pages and category of the product that follows in the alphabet."""
    pages = [page for page in source.deps.knowledge.documents.values() if page.scope == "product"]
    names = sorted({page.product for page in pages})
    other = next((name for name in names if name > item.product), names[0])
    own = [page for page in pages if page.product == other]
    wrong = replace(
        evidence,
        category=CategoryChoice("predicted", ((other, 0.9),)),
        good_pages=tuple(page for page in own if page.defect_type == GOOD)[:1],
    )
    return replace(given, pages=tuple(page for page in own if page.defect_type != GOOD)[: len(given.pages)]), wrong


def _other_types(
    asking: Asking, source: EvidenceSource, item: Item, given: Given, evidence: PictureEvidence
) -> tuple[LetterAnswer, Given, PictureEvidence] | None:
    """Pages about all types but those that the expert names likeliest; only for questions about the defect."""
    if PRIOR_TASKS[question_of(item).task] != "defect" or evidence.prior is None or not evidence.prior.types:
        return None
    named = {page.doc_id for page in evidence.type_pages} | {evidence.prior.types[0][0]}
    pages = source.deps.knowledge.documents.values()
    own = [page for page in pages if page.product == item.product and page.defect_type != GOOD]
    others = [page for page in own if page.doc_id not in named and page.defect_type not in named]
    return _asked(asking, item, replace(given, pages=tuple(others)[: len(given.pages)]), evidence) if others else None


def _row(name: str, pairs: Sequence[tuple[Item, LetterAnswer, bool | None, LetterAnswer, bool | None]]) -> StressRow:
    right = [(before.letter == item.answer, after.letter == item.answer) for item, before, _, after, _ in pairs]
    sure = [(_confidence(before), _confidence(after)) for _, before, _, after, _ in pairs]
    checked = [(was, now) for _, _, was, _, now in pairs if was is not None and now is not None]
    images = [item.image for item, *_ in pairs]
    return StressRow(
        name=name,
        questions=len(pairs),
        accuracy=(100.0 * _mean([a for a, _ in right]), 100.0 * _mean([b for _, b in right])),
        confidence=(_mean([a for a, _ in sure]), _mean([b for _, b in sure])),
        change=bootstrap_mean([b - a for a, b in sure], images),
        changed=100.0 * _mean([before.letter != after.letter for _, before, _, after, _ in pairs]),
        checked=len(checked),
        objections=(sum(was for was, _ in checked), sum(now for _, now in checked)),
    )


def _confidence(answer: LetterAnswer) -> float:
    """Probability of the chosen option; even odds where the model tells none."""
    return max(answer.probabilities.values()) if answer.probabilities else 0.5


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
