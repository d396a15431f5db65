"""Cases that nobody photographed: made-up products, types and pages, and evidence that is right as often as it says.

Real pages are few and a model would learn them by heart. So every case has a small knowledge base of its own, whose
pages are put together from the sentences of real ones under names that are drawn anew; what is true can only be read.
What is true is drawn from the evidence, a posterior of 0.7 is right in seven of ten cases, so that a model that learns
from them learns how sure it may be; where nothing is said, nothing can be known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...agent.reasoner.composing import Prior, PriorBox, text_grid
from ...agent.reasoner.evidence import UNKNOWN
from ...tools.ad_expert.regions import place_in_words
from ...tools.knowledge.categories import SURE, CategoryChoice
from ...tools.knowledge.schema import GOOD, KnowledgeDocument
from ...tools.knowledge.vocabulary import vocabulary
from .question import TASKS, Question, Task, knowledge_lines
from .writing import QuestionWriter, Subject

SYLLABLES = (
    "ba be bi bo bra bre da de di do dra fa fe fi flo ga ge gla go ka ke ki kla ko la le li lo lu ma me mi mo".split()
)
SYLLABLES += "na ne ni no pa pe pi pla po ra re ri ro sa se si sko ta te ti to tra va ve vi vo za ze zi zo".split()
ENDINGS = "l n r s t x k m nd rt st ng lk".split()
SECOND_WORDS = "lead case edge face side rim cap pin seam body head core foot end row pad".split()
RIGHT_FIELDS = 0.8
"""How often the strongest area is the defect, when references say what is normal."""
FIRST_PAGES = (0.5, 0.2, 0.12, 0.1)
"""How often the first, second, … page is of the right type, where types were not compared."""

EVEN, FIRST_TYPES = 0.15, (0.55, 0.18, 0.06)
"""A posterior whose shares differ by less than this is in its order alone a hint, and how good a one."""
TRUST = 0.9
"""How far a sharp posterior may be believed."""
MISSED = 0.45
"""Share of the defects that detectors of some products do not see, at most."""
STANDARDISED = 0.6
"""Share of the products whose scores count from the typical good part: parts in the memory lie far below zero."""


@dataclass(frozen=True)
class Case:
    """A picture's worth of evidence, and what is true.

    Attributes:
        subject: what is true.
        pages: retrieved, best first.
        prior: of the AD Expert; None when it was not asked.
        category: the kind of part as predicted; None when it was not.
        good_pages: pages of good parts of its candidates.
        base: all pages that questions draw their options from.
    """

    subject: Subject
    pages: tuple[KnowledgeDocument, ...]
    prior: Prior | None
    category: CategoryChoice | None
    good_pages: tuple[KnowledgeDocument, ...]
    base: tuple[KnowledgeDocument, ...] = ()

    def knowledge(self, task: Task) -> tuple[str, ...]:
        """The pages' lines for a subtask."""
        return knowledge_lines(task, self.pages, self.category, self.good_pages)


@dataclass
class Simulator:
    """Draws cases.

    Args:
        pages: real pages whose sentences are used; leave out those of products to be tested on.
        reserved: names that no made-up product or type may have.
        doubt: share of the cases whose evidence may be weak, wrong or absent; in the others it is strong and right,
            which is what a model learns to read from first.
    """

    pages: Sequence[KnowledgeDocument]
    reserved: frozenset[str] = frozenset()
    doubt: float = 1.0
    _defects: list[KnowledgeDocument] = field(default_factory=list)
    _goods: list[KnowledgeDocument] = field(default_factory=list)
    _types: list[tuple[str, str]] = field(default_factory=list)
    _words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._defects = [p for p in self.pages if p.defect_type != GOOD and p.description and p.likely_causes]
        self._goods = [p for p in self.pages if p.defect_type == GOOD and p.normal_traits]
        for entry in vocabulary().types.values():
            if entry.is_specific:
                names = (entry.name, *(s.replace(" ", "_") for s in entry.synonyms if s.isascii() and len(s) < 24))
                self._types += [(name, entry.name) for name in names]
        said = " ".join(f"{p.description} {p.normal_traits} {' '.join(p.likely_causes)}" for p in self.pages)
        self._words = sorted({word for word in said.lower().split() if word.isalpha() and len(word) > 3})

    def questions(self, rng: np.random.Generator, task: Task, count: int) -> tuple[Case, list[Question]]:
        """A case and some questions of a subtask about it.

        Args:
            rng: the only source of chance.
            task: subtask.
            count: how many; they differ in wording, options or order.
        """
        while True:
            case = self.case(rng, task)
            writer = QuestionWriter(case.base)
            found = [writer.ask(task, case.subject, rng) for _ in range(count)]
            asked = [question for question in found if question is not None]
            if len(asked) == count:
                return case, asked

    def case(self, rng: np.random.Generator, task: Task) -> Case:
        """A case in which a subtask's questions have an answer.

        Args:
            rng: the only source of chance.
            task: subtask; only what it is told is worth the effort.
        """
        sure = rng.random() >= self.doubt
        product = self._product_name(rng)
        types = self._type_names(rng, int(rng.integers(4, 8)))
        base = [self._page(product, name, rng) for name in types]
        good = self._good_page(product, rng)
        if task in ("Object Classification", "Object Analysis"):
            return self._object_case(product, base, good, rng, sure)
        probability = float(rng.choice([0.01, 0.99])) if sure else _probability(rng)
        missed = rng.uniform(0.0, MISSED) if rng.random() < 0.5 else 0.0
        defective = rng.random() < probability + (1.0 - probability) * missed if task == "Anomaly Detection" else True
        if sure:
            defective = probability > 0.5 or task != "Anomaly Detection"
        posterior, kind, pages = self._type_evidence(types, base, rng, sure)
        boxes, place, grid = _areas(rng, sure, with_grid=task == "Defect Localization")
        calibrated = sure or rng.random() < 0.88
        prior: Prior | None = _prior(probability, calibrated, boxes, posterior, grid, rng, sure)
        if not sure and rng.random() < (0.1 if task in ("Anomaly Detection", "Defect Localization") else 0.2):
            prior, place = None, _random_place(rng)
            if task == "Anomaly Detection":
                defective = bool(rng.random() < 0.5)
            if kind == "posterior":
                posterior, kind, pages = self._type_evidence(types, base, rng, sure, mode="pages")
        elif not calibrated and task == "Anomaly Detection":
            defective = bool(rng.random() < 0.5)
        true = self._true_page(posterior, kind, pages, base, rng, 1.0 if sure else TRUST)
        if not sure and rng.random() < 0.08:
            pages = []
        others = [self._page(self._product_name(rng), self._type_names(rng, 1)[0], rng) for _ in range(3)]
        subject = Subject(product, true.defect_type if defective else GOOD, place if defective else None, true, good)
        return Case(subject, tuple(pages), prior, None, (), (*base, good, *others))

    def _type_evidence(
        self,
        types: Sequence[str],
        base: list[KnowledgeDocument],
        rng: np.random.Generator,
        sure: bool,
        mode: str | None = None,
    ) -> tuple[tuple[tuple[str, float], ...], str, list[KnowledgeDocument]]:
        """Posterior, which evidence decides (``posterior``, ``pages`` or ``none``), and retrieved pages."""
        draw = rng.random()
        mode = mode or ("posterior" if sure or draw < 0.6 else "pages" if draw < 0.92 else "none")
        order = [base[int(i)] for i in rng.permutation(len(base))]
        if mode == "posterior":
            posterior = self._posterior(order, rng, sure)
            named = [name for name, _ in posterior if name != UNKNOWN]
            # what was likelier is retrieved earlier, as far as retrieval is worth anything
            bonus = 2.0 if sure else 0.7
            ranked = sorted(order, key=lambda page: rng.random() - bonus * (page.defect_type in named[:1]))
            return posterior, mode, ranked[: int(rng.integers(2, 5))]
        unknown = ((UNKNOWN, float(rng.uniform(0.8, 0.99))),) if rng.random() < 0.5 else ()
        return unknown, mode, order[: int(rng.integers(2, 5))] if mode == "pages" else []

    def _posterior(
        self, order: Sequence[KnowledgeDocument], rng: np.random.Generator, sure: bool
    ) -> tuple[tuple[str, float], ...]:
        """Likely types: sharp, or nearly even as after a handful of examples, a part of it perhaps unknown."""
        listed = min(len(order), int(rng.integers(2, 6)))
        names = [page.defect_type for page in order[:listed]]
        if sure or rng.random() < 0.5:
            shares = np.sort(rng.dirichlet(np.full(listed, 0.03 if sure else rng.choice([0.15, 0.3, 0.8]))))[::-1]
        else:
            shares = np.sort(1.0 / listed + rng.uniform(0.0, 0.02, listed))[::-1]
        unknown = 0.0 if sure or rng.random() < 0.6 else float(rng.uniform(0.1, 0.98))
        found = [(name, float(share) * (1.0 - unknown)) for name, share in zip(names, shares, strict=True)]
        if unknown > 0.0:
            found.append((UNKNOWN, unknown))
        return tuple(sorted((pair for pair in found if pair[1] >= 0.004), key=lambda pair: -pair[1]))

    def _true_page(
        self,
        posterior: tuple[tuple[str, float], ...],
        kind: str,
        pages: list[KnowledgeDocument],
        base: list[KnowledgeDocument],
        rng: np.random.Generator,
        trust: float,
    ) -> KnowledgeDocument:
        """What is true, drawn from what the evidence says."""
        if kind == "posterior" and any(name != UNKNOWN for name, _ in posterior):
            named = [(name, share) for name, share in posterior if name != UNKNOWN]
            told = sum(share for _, share in named)
            even = len(named) > 1 and named[0][1] - named[-1][1] < EVEN * told
            draw, total = rng.random(), 0.0
            for rank, (name, share) in enumerate(named):
                total += FIRST_TYPES[min(rank, 2)] if even else share / told * trust + (1.0 - trust) / len(base)
                if draw < total:
                    return next(page for page in base if page.defect_type == name)
        if kind == "pages":
            draw, total = rng.random(), 0.0
            for page, share in zip(pages, FIRST_PAGES, strict=False):
                total += share
                if draw < total:
                    return page
        return base[int(rng.integers(len(base)))]

    def _object_case(
        self,
        product: str,
        base: list[KnowledgeDocument],
        good: KnowledgeDocument,
        rng: np.random.Generator,
        sure: bool,
    ) -> Case:
        """Pages of the right product with some of others, and a kind of part that is right as often as it says."""
        others = [self._good_page(self._product_name(rng), rng) for _ in range(6)]
        foreign = [self._page(page.product, self._type_names(rng, 1)[0], rng) for page in others[:4]]
        share = float(rng.uniform(0.9, 1.0) if sure else rng.uniform(0.4, 1.0))
        predicted = good if sure or rng.random() < share else others[0]
        choice: CategoryChoice | None = None
        if sure or rng.random() < 0.75:
            candidates: tuple[tuple[str, float | None], ...] = ((predicted.product, share),)
            if share < SURE:
                candidates += (((others[0] if predicted is good else good).product, 1.0 - share),)
            choice = CategoryChoice("predicted" if share >= SURE and rng.random() < 0.7 else "possible", candidates)
        known = {page.product: page for page in (good, *others)}
        good_pages = tuple(known[name] for name, _ in choice.candidates) if choice else ()
        # most retrieved pages are of the predicted product; without a prediction of the right one, mostly
        near = predicted if choice is not None or rng.random() < 0.85 else others[0]
        mine = base if near is good else [page for page in foreign if page.product == near.product]
        pool = [mine[int(i)] for i in rng.permutation(len(mine))][: int(rng.integers(1, 4))]
        pool += [foreign[int(i)] for i in rng.permutation(len(foreign))][: int(rng.integers(0, 2))]
        if choice is None and rng.random() < 0.7:
            pool += [near, others[int(rng.integers(1, len(others)))]]
        pages = () if not sure and rng.random() < 0.1 else tuple(pool[int(i)] for i in rng.permutation(len(pool)))
        return Case(
            Subject(product, GOOD, None, None, good), pages, None, choice, good_pages, (*base, good, *others, *foreign)
        )

    def _page(self, product: str, name: str, rng: np.random.Generator) -> KnowledgeDocument:
        """A page of which each part is from another one."""
        parts = [self._defects[int(i)] for i in rng.integers(len(self._defects), size=4)]
        return parts[0].model_copy(
            update={
                "scope": "product",
                "product": product,
                "defect_type": name,
                "general_type": name,
                "description": self._varied(parts[0].description, rng),
                "likely_causes": tuple(self._varied(text, rng) for text in parts[1].likely_causes[:2]),
                "consequences": tuple(self._varied(text, rng) for text in parts[2].consequences[:2]),
                "action": self._varied(parts[3].action, rng),
            }
        )

    def _good_page(self, product: str, rng: np.random.Generator) -> KnowledgeDocument:
        parts = [self._goods[int(i)] for i in rng.integers(len(self._goods), size=2)]
        sentences = [parts[0].normal_traits.split(". ")[0], *parts[1].normal_traits.split(". ")[1:2]]
        traits = ". ".join(self._varied(text.rstrip("."), rng) for text in sentences) + "."
        return parts[0].model_copy(update={"product": product, "normal_traits": traits})

    def _varied(self, sentence: str, rng: np.random.Generator) -> str:
        """A sentence with some of its words exchanged, so that there are more than a model can remember."""
        if rng.random() < 0.4:
            return sentence
        words = sentence.split(" ")
        for place in np.flatnonzero(rng.random(len(words)) < 0.25):
            word = self._words[int(rng.integers(len(self._words)))]
            mark = words[place][-1] if words[place][-1:] in ",;.:" else ""
            words[place] = (word.capitalize() if place == 0 else word) + mark
        return " ".join(words)

    def _product_name(self, rng: np.random.Generator) -> str:
        while True:
            if rng.random() < 0.5:
                name = _made_up(rng)
                name += f"_{SECOND_WORDS[int(rng.integers(len(SECOND_WORDS)))]}" if rng.random() < 0.3 else ""
            else:
                count = 1 if rng.random() < 0.5 else 2
                name = "_".join(self._words[int(i)] for i in rng.integers(len(self._words), size=count))
            if name not in self.reserved:
                return name

    def _type_names(self, rng: np.random.Generator, count: int) -> list[str]:
        """Names of which no two mean the same."""
        names: dict[str, str] = {}
        while len(names) < count:
            draw = rng.random()
            if draw < 0.5:
                name, meant = self._types[int(rng.integers(len(self._types)))]
            elif draw < 0.75:
                word = self._words[int(rng.integers(len(self._words)))]
                name = meant = f"{word}_{SECOND_WORDS[int(rng.integers(len(SECOND_WORDS)))]}"
            else:
                name = meant = _made_up(rng)
            if name not in names.values():
                names.setdefault(meant, name)
        return list(names.values())


def simulated_questions(
    simulator: Simulator, seed: int, count: int, tasks: Sequence[Task] = TASKS
) -> Iterator[tuple[Case, Question]]:
    """Cases with one question each, their subtasks in turn; the i-th depends on the seed and i alone.

    Args:
        simulator: draws them.
        seed: of all.
        count: how many.
        tasks: which subtasks.
    """
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        case, questions = simulator.questions(rng, tasks[index % len(tasks)], 1)
        yield case, questions[0]


def _made_up(rng: np.random.Generator) -> str:
    count = int(rng.integers(2, 4))
    name = "".join(SYLLABLES[int(i)] for i in rng.integers(len(SYLLABLES), size=count))
    return name + ENDINGS[int(rng.integers(len(ENDINGS)))]


def _probability(rng: np.random.Generator) -> float:
    """Mostly near 0 or 1, as calibrated detectors are."""
    return float(np.clip(rng.beta(0.35, 0.35), 0.001, 0.999))


def _prior(
    probability: float,
    calibrated: bool,
    boxes: tuple[PriorBox, ...],
    types: tuple[tuple[str, float], ...],
    grid: str | None,
    rng: np.random.Generator,
    sure: bool,
) -> Prior:
    logit = math.log(probability / (1.0 - probability))
    if rng.random() < STANDARDISED:
        threshold = float(rng.uniform(1.0, 3.5))
        score = threshold + float(rng.uniform(0.3, 1.5)) * logit + 0.1 * float(rng.normal())
    else:
        threshold = float(np.exp(rng.normal(-0.5, 0.8)))
        score = threshold * math.exp(0.12 * logit + 0.02 * rng.normal())
    percentile = float(np.clip(round(1.0 / (1.0 + math.exp(-1.5 * (logit + 3.0 + rng.normal()))), 2), 0.0, 1.0))
    if not calibrated:
        return Prior(score, None, None, None, False, False, boxes, types, None)
    admitted = probability > 0.5 if sure else bool(rng.random() < 0.1 + 0.8 * probability)
    return Prior(score, threshold, percentile, probability, admitted, True, boxes, types, grid)


def _raise_values(shown: NDArray[np.float32], box: tuple[int, int, int, int], value: float) -> None:
    area = shown[box[1] : box[3], box[0] : box[2]]
    np.maximum(area, np.float32(value), out=area)


def _random_box(rng: np.random.Generator, width: int, height: int, largest: float = 0.5) -> tuple[int, int, int, int]:
    w, h = (max(4, int(side * math.exp(rng.uniform(math.log(0.02), math.log(largest))))) for side in (width, height))
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    return (x, y, x + w, y + h)


def _random_place(rng: np.random.Generator) -> str:
    return place_in_words(_random_box(rng, 512, 512), 512, 512)


def _areas(rng: np.random.Generator, sure: bool, *, with_grid: bool) -> tuple[tuple[PriorBox, ...], str, str | None]:
    """Suspicious areas, where the defect is, and the map that shows them."""
    width, height = (int(v) for v in rng.integers(160, 641, size=2))
    count = int(rng.choice([1, 2, 3] if sure else [0, 0, 1, 1, 1, 2, 2, 3]))
    found = [_random_box(rng, width, height) for _ in range(count)]
    boxes = tuple(
        PriorBox(
            box, place_in_words(box, width, height), (box[2] - box[0]) * (box[3] - box[1]) / width / height, f"R{i}"
        )
        for i, box in enumerate(found, start=1)
    )
    faint = _random_box(rng, width, height)  # what stays below the least size of an area
    grid = None
    if with_grid and rng.random() < 0.85:
        shown = np.zeros((height, width), np.float32)
        _raise_values(shown, faint, rng.uniform(0.1, 0.6))
        for strength, box in zip((1.0, 0.7, 0.5), found, strict=False):
            _raise_values(shown, box, strength * rng.uniform(0.5, 1.0))
        for _ in range(int(rng.integers(0, 5))):
            _raise_values(shown, _random_box(rng, width, height, 0.12), rng.uniform(0.02, 0.25))
        grid = text_grid(shown)
    if not boxes and grid is not None and rng.random() < 0.5:
        return boxes, place_in_words(faint, width, height), grid
    if boxes and (sure or rng.random() < RIGHT_FIELDS):
        return boxes, boxes[0].place, grid
    if len(boxes) > 1 and rng.random() < 0.5:
        return boxes, boxes[1].place, grid
    return boxes, _random_place(rng), grid
