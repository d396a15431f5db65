"""Questions out of what is known about a part: templates for each subtask, distractors from other pages.

Wrong options come first from the same product's other defects, as an examiner would choose them, then from the rest;
an option never says what the right one says. Options are shuffled, so that no letter is right more often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...prompts import load_prompts, render
from ...tools.knowledge.schema import GOOD, KnowledgeDocument, cut_to_budget, plain_text
from ...tools.knowledge.vocabulary import canonical
from .question import LETTERS, PROMPTS, Question, Task

OPTIONS = 4
OPTION_TOKENS = 40
"""Budget of one option, estimated tokens."""
FIELDS = (
    "upper left",
    "upper centre",
    "upper right",
    "left",
    "centre",
    "right",
    "lower left",
    "lower centre",
    "lower right",
)
WHOLE = "whole picture"


@dataclass(frozen=True)
class Subject:
    """What is true of a picture, as far as anybody knows.

    Attributes:
        product: what it shows.
        defect_type: the product's label of the defect, ``good`` for none; None for a defect of which nobody says what.
        place: where the defect lies, in the words of ``place_in_words``; None when nobody drew it.
        page: the page of that defect of that product; None when nobody wrote one.
        good_page: the page of the product's good parts; None when nobody wrote one.
    """

    product: str
    defect_type: str | None
    place: str | None = None
    page: KnowledgeDocument | None = None
    good_page: KnowledgeDocument | None = None


def coarse_place(place: str) -> str:
    """The field of nine that a place lies in: ``upper left corner`` is ``upper left``, ``left edge`` is ``left``.

    >>> coarse_place("lower edge")
    'lower centre'
    """
    words = place.removesuffix(", at the edge").removesuffix(" corner").removesuffix(" edge")
    return f"{words} centre" if words in ("upper", "lower") else words


@dataclass
class QuestionWriter:
    """Asks about subjects.

    Args:
        pages: all pages; wrong options are taken from them.
    """

    pages: Sequence[KnowledgeDocument]
    _by_product: dict[str, list[KnowledgeDocument]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for page in self.pages:
            self._by_product.setdefault(page.product, []).append(page)

    def ask(self, task: Task, subject: Subject, rng: np.random.Generator) -> Question | None:
        """A question of a subtask, None where what is known does not answer one.

        Args:
            task: subtask.
            subject: what is true.
            rng: draws wording, wrong options and their order.
        """
        writers: dict[Task, Callable[[Subject, np.random.Generator], tuple[str, str, list[str]] | None]] = {
            "Anomaly Detection": self._anomaly,
            "Defect Classification": self._classification,
            "Defect Localization": self._localization,
            "Defect Description": self._description,
            "Defect Analysis": self._analysis,
            "Object Classification": self._product,
            "Object Analysis": self._normal,
        }
        found = writers[task](subject, rng)
        if found is None:
            return None
        kind, right, wrong = found
        options = [right, *wrong]
        order = rng.permutation(len(options))
        return Question(
            task=task,
            text=_wording(kind, rng),
            options=tuple(options[i] for i in order),
            answer=LETTERS[int(np.flatnonzero(order == 0)[0])],
            product=subject.product,
            defect_type=subject.defect_type or "",
        )

    def _anomaly(self, subject: Subject, rng: np.random.Generator) -> tuple[str, str, list[str]] | None:
        yes, no = render(PROMPTS, "yes"), render(PROMPTS, "no")
        return ("anomaly", no, [yes]) if subject.defect_type == GOOD else ("anomaly", yes, [no])

    def _classification(self, subject: Subject, rng: np.random.Generator) -> tuple[str, str, list[str]] | None:
        if not subject.defect_type or subject.defect_type == GOOD:
            return None
        meant = canonical(subject.defect_type, subject.product) or subject.defect_type

        def other(page: KnowledgeDocument) -> list[str]:
            return [] if page.canonical_type in (GOOD, meant) else [_name(page.defect_type)]

        return self._filled("classification", _name(subject.defect_type), other, subject, rng)

    def _localization(self, subject: Subject, rng: np.random.Generator) -> tuple[str, str, list[str]] | None:
        if subject.place is None or subject.defect_type == GOOD:
            return None
        right = coarse_place(subject.place)
        others = [name for name in (*FIELDS, WHOLE) if name != right]
        wrong = [others[i] for i in rng.choice(len(others), OPTIONS - 1, replace=False)]
        return "localization", _sentence(right), [_sentence(name) for name in wrong]

    def _description(self, subject: Subject, rng: np.random.Generator) -> tuple[str, str, list[str]] | None:
        page = _defect_page(subject)
        if page is None or not page.description:
            return None
        return self._filled(
            "description",
            _option(page.description),
            lambda other: _of_others(page, other, [other.description]),
            subject,
            rng,
        )

    def _analysis(self, subject: Subject, rng: np.random.Generator) -> tuple[str, str, list[str]] | None:
        """Cause, consequence or action; the first of each page, which stands first in its line too."""
        page = _defect_page(subject)
        if page is None:
            return None
        said: dict[str, Callable[[KnowledgeDocument], list[str]]] = {
            "cause": lambda each: list(each.likely_causes[:1]),
            "effect": lambda each: list(each.consequences[:1]),
            "action": lambda each: [each.instruction] if each.instruction else [],
        }
        kinds = [kind for kind, of in said.items() if of(page)]
        if not kinds:
            return None
        kind = kinds[int(rng.integers(len(kinds)))]
        of = said[kind]
        return self._filled(kind, _option(of(page)[0]), lambda other: _of_others(page, other, of(other)), subject, rng)

    def _product(self, subject: Subject, rng: np.random.Generator) -> tuple[str, str, list[str]] | None:
        others = sorted({page.product for page in self.pages if page.scope == "product"} - {subject.product})
        if len(others) < OPTIONS - 1:
            return None
        wrong = [others[i] for i in rng.choice(len(others), OPTIONS - 1, replace=False)]
        return "product", _name(subject.product), [_name(name) for name in wrong]

    def _normal(self, subject: Subject, rng: np.random.Generator) -> tuple[str, str, list[str]] | None:
        page = subject.good_page
        if page is None or not page.normal_traits:
            return None
        right = _first_sentence(page.normal_traits)
        others = sorted(
            {
                _first_sentence(other.normal_traits)
                for other in self.pages
                if other.defect_type == GOOD and other.product != page.product and other.normal_traits
            }
            - {right}
        )
        if len(others) < OPTIONS - 1:
            return None
        return "normal", right, [others[i] for i in rng.choice(len(others), OPTIONS - 1, replace=False)]

    def _filled(
        self,
        kind: str,
        right: str,
        texts: Callable[[KnowledgeDocument], list[str]],
        subject: Subject,
        rng: np.random.Generator,
    ) -> tuple[str, str, list[str]] | None:
        """Wrong options from the product's other pages, then from any."""
        own = self._by_product.get(subject.product, [])
        wrong: list[str] = []
        for pages in (own, self.pages):
            order = rng.permutation(len(pages))
            for text in (_option(text) for i in order for text in texts(pages[int(i)])):
                if text not in (right, *wrong):
                    wrong.append(text)
                if len(wrong) == OPTIONS - 1:
                    return kind, right, wrong
        return None


def subject_of(product: str, defect_type: str | None, place: str | None, pages: Iterable[KnowledgeDocument]) -> Subject:
    """A subject with its pages, found among all: the product's own, by its label or by what the label means.

    Args:
        product: name.
        defect_type: label as the data set writes it, ``good`` or None.
        place: where; see `Subject`.
        pages: to look in.
    """
    own = [page for page in pages if page.product == product]
    meant = canonical(defect_type, product) if defect_type else None
    exact = [page for page in own if defect_type and page.defect_type == defect_type != GOOD]
    alike = [page for page in own if meant and page.canonical_type == meant]
    page = next(iter([*exact, *alike]), None)
    good = next((page for page in own if page.defect_type == GOOD), None)
    return Subject(product, page.defect_type if page else defect_type, place, page, good)


def _defect_page(subject: Subject) -> KnowledgeDocument | None:
    return None if subject.defect_type == GOOD else subject.page


def _of_others(page: KnowledgeDocument, other: KnowledgeDocument, texts: list[str]) -> list[str]:
    """What another page says; nothing where it speaks of the same type, since that may be right as well."""
    return [] if other.canonical_type in (GOOD, page.canonical_type) else [text for text in texts if text]


def _wording(kind: str, rng: np.random.Generator) -> str:
    sections = sorted(name for name in load_prompts(PROMPTS).sections if name.startswith(f"{kind}_"))
    return render(PROMPTS, sections[int(rng.integers(len(sections)))])


def _name(slug: str) -> str:
    return _sentence(plain_text(slug.replace("_", " ")))


def _option(text: str) -> str:
    return _sentence(cut_to_budget(plain_text(text), OPTION_TOKENS))


def _first_sentence(text: str) -> str:
    return _option(plain_text(text).partition(". ")[0])


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}."
