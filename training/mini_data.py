"""What the mini learns from: packs of questions about made-up cases and labelled pictures with real evidence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agent.reasoner.prior_lines import Prior, prior_lines
from ..agent.vision_language.messages import Message, Picture
from ..tools.knowledge.categories import CategoryChoice
from ..tools.knowledge.schema import KnowledgeDocument
from .mini_packing import Ending, Pack
from .mini_reports import bundle_of, report_messages, report_of, report_text
from .questions import (
    LETTERS,
    PRIOR_TASKS,
    TASKS,
    Question,
    QuestionWriter,
    Subject,
    Task,
    compose_question,
    question_text,
)
from .questions import knowledge_lines as lines_of
from .questions.simulated import Case, Simulator

Pixels = NDArray[np.uint8]
VALUES = re.compile(r'(?<=": ")(?:[^"\\]|\\.)*"|(?<=\[")[A-Z]\d+"\]\}(?:, |\]\})')
"""What a report's form leaves open: values with their ends, what is cited, and whether a sentence follows."""
DECISIONS = re.compile(r'(?<=(?:ect_type|..region)": ")[^"]*"')
VERDICT = re.compile(r'(?<="verdict": ")(?:OK|NG|REVIEW)"(?=, "defect)')
TIMES = ((VALUES, 1), (DECISIONS, 3), (VERDICT, 8))
"""How often each is asked for: a report has one verdict and fifty words."""
FORM_SHARE = 0.15


@dataclass(frozen=True, eq=False)
class RealCase:
    """A labelled picture with the evidence that an inspection gathers about it.

    Attributes:
        subject: what is true.
        picture: key of the query among the pictures.
        references: keys of good pictures of the same product.
        prior: calibrated and gated; None without references.
        raw: the same look uncalibrated.
        pages: retrieved, by way of choosing them.
        category: the kind of part as predicted.
        good_pages: pages of good parts of its candidates.
    """

    subject: Subject
    picture: str
    references: tuple[str, ...]
    prior: Prior | None
    raw: Prior | None
    pages: tuple[tuple[KnowledgeDocument, ...], ...]
    category: CategoryChoice | None
    good_pages: tuple[KnowledgeDocument, ...]


@dataclass
class PackMaker:
    """Turns cases into packs for one tokenizer.

    Attributes:
        tokenizer: of the mini.
        simulator: draws cases.
        pages: all pages that real questions draw options from.
        grids: merged rows and columns of each picture by key.
        bystanders: keys of pictures that stand in prompts about simulated cases, of which they say nothing.
    """

    tokenizer: Any
    simulator: Simulator
    pages: Sequence[KnowledgeDocument]
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)
    bystanders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._writer = QuestionWriter(self.pages)
        self._closing = self.encode("<|im_end|>\n<|im_start|>assistant\n")
        self._line_end = self.encode("\n")
        (self._end,) = self.encode("<|im_end|>")
        self.letters = [self.encode(letter)[0] for letter in LETTERS]
        self._image = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self._around = [self.tokenizer.convert_tokens_to_ids(f"<|vision_{side}|>") for side in ("start", "end")]

    def encode(self, text: str) -> list[int]:
        """Token ids."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def simulated(self, rng: np.random.Generator, task: Task, endings: int, shown: float) -> Pack:
        """Questions of a subtask about a case that was made up.

        Args:
            rng: the only source of chance.
            task: subtask.
            endings: how many questions.
            shown: how often a picture, which says nothing about the case, stands in the prompt.
        """
        case, questions = self.simulator.questions(rng, task, endings)
        keys: list[str] = []
        if self.bystanders and rng.random() < shown:
            count = int(rng.integers(1, 3))
            keys = [self.bystanders[int(i)] for i in rng.integers(len(self.bystanders), size=count)]
        return self._pack(questions, case.knowledge(task), case.prior, keys, f"simulated {task}")

    def real(self, rng: np.random.Generator, case: RealCase, task: Task, endings: int) -> Pack | None:
        """Questions of a subtask about a labelled picture, told a part of what is known; None where it has none."""
        found = [self._writer.ask(task, case.subject, rng) for _ in range(endings)]
        questions = [question for question in found if question is not None]
        if len(questions) < endings:
            return None
        told = rng.random()
        prior = None if told < 0.2 else case.raw if told < 0.35 else case.prior
        pages = case.pages[int(rng.integers(len(case.pages)))] if rng.random() < 0.8 else ()
        knows = bool(pages)
        lines = lines_of(task, pages, case.category if knows else None, case.good_pages if knows else ())
        shown = [*case.references[: int(rng.integers(0, 2))], case.picture]
        return self._pack(questions, lines, prior, shown, f"real {task}")

    def evidence_pack(self, case: RealCase, question: Question, *, told: bool) -> Pack:
        """One question with calibrated evidence and pages, or with the picture alone; for measuring."""
        lines = lines_of(question.task, case.pages[0], case.category, case.good_pages) if told else ()
        return self._pack([question], lines, case.prior if told else None, [case.picture], question.task)

    def _pack(
        self,
        questions: Sequence[Question],
        knowledge: Sequence[str],
        prior: Prior | None,
        pictures: Sequence[str],
        group: str,
    ) -> Pack:
        blank = np.zeros((1, 1, 3), np.uint8)
        messages = compose_question(
            questions[0],
            query=blank if pictures else None,
            references=[blank] * (len(pictures) - 1),
            knowledge_lines=knowledge,
            prior_lines=prior_lines(prior, PRIOR_TASKS[questions[0].task]) if prior is not None else (),
        )
        ids = self.context(messages, pictures, leave_out=1)
        endings = tuple(self._ending(question) for question in questions)
        return Pack(tuple(ids), endings, tuple(pictures), tuple(self.grids[key] for key in pictures), group)

    def report(self, rng: np.random.Generator, shown: float, budget: int) -> Pack:
        """A report about a case that was made up, its text the ending.

        Args:
            rng: the only source of chance.
            shown: how often pictures stand in the prompt.
            budget: of the quoted pages, one of a batch, so that its prompts are about as long; 0 for reports on the
                measurements alone.
        """
        while True:
            case = self.simulator.case(rng, "Anomaly Detection" if rng.random() < 0.5 else "Defect Localization")
            if case.prior is not None:
                break
        keys: list[str] = []
        if self.bystanders and rng.random() < shown:
            keys = [self.bystanders[int(i)] for i in rng.integers(len(self.bystanders), size=2)]
        return self._report(rng, case, keys, budget, made_up=True)

    def real_report(self, rng: np.random.Generator, case: RealCase, budget: int) -> Pack:
        """A report about a labelled picture that has a prior, as its evidence has it."""
        pages = case.pages[int(rng.integers(len(case.pages)))]
        told = Case(case.subject, pages, case.prior, case.category, case.good_pages, case.good_pages)
        return self._report(rng, told, [*case.references[:1], case.picture], budget, made_up=False)

    def _report(self, rng: np.random.Generator, case: Case, keys: Sequence[str], budget: int, *, made_up: bool) -> Pack:
        """A report behind its prompt; of two pictures or more the last is the part, sometimes shown again and cut."""
        sure = made_up and rng.random() >= self.simulator.doubt
        bundle = bundle_of(case, rng, made_up=made_up, sure=sure, bare=budget == 0)
        keys = list(keys)
        labels = [*["reference"] * (len(keys) - 1), "query"]
        if keys and bundle.regions and rng.random() < 0.5:
            labels += ["overlay", *(f"crop {region.id}" for region in bundle.regions[:1])]
            keys += [keys[-1]] * (len(labels) - len(keys))
        blank = np.zeros((1, 1, 3), np.uint8)
        messages = report_messages(bundle, [Picture(blank, label) for label in labels[: len(keys)]], budget)
        ids = self.context(messages, keys)
        grids = tuple(self.grids[key] for key in keys)
        return Pack(
            tuple(ids), (self._said(report_text(report_of(bundle, budget)), rng),), tuple(keys), grids, "report"
        )

    def _said(self, text: str, rng: np.random.Generator) -> Ending:
        """A report as it is to be said.

        What the form leaves no choice about is asked for now and then only, and what the report decides several times:
        otherwise a hundred brackets would count for more than a verdict.
        """
        opening = self.encode("<|im_start|>assistant\n")
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        said = [*opening, *found["input_ids"], self._end]
        times = np.zeros(len(text), np.int64)
        for pattern, often in TIMES:
            for match in pattern.finditer(text):
                times[match.start() : match.end()] = often
        targets: list[tuple[int, int]] = []
        for place, (begin, end) in enumerate(found["offset_mapping"], start=len(opening)):
            often = int(times[begin:end].max(initial=0)) or int(rng.random() < FORM_SHARE)
            targets += [(place - 1, said[place])] * often
        targets.append((len(said) - 2, said[-1]))
        return Ending(tuple(said), tuple(targets))

    def context(self, messages: Sequence[Message], pictures: Sequence[str], leave_out: int = 0) -> list[int]:
        """Tokens of a conversation up to its last ``leave_out`` parts, with a place for each merged feature."""
        ids: list[int] = []
        left = list(pictures)
        for message in messages:
            text = f"<|im_start|>{message.role}\n"
            last = message is messages[-1]
            for part in message.parts[: len(message.parts) - (leave_out if last else 0)]:
                if isinstance(part, Picture):
                    rows, columns = self.grids[left.pop(0)]
                    ids += self.encode(text)
                    ids += [self._around[0], *[self._image] * (rows * columns), self._around[1]]
                    text = ""
                elif isinstance(part, str):
                    text += part
            ids += self.encode(text if last and leave_out else f"{text}<|im_end|>\n")
        return ids

    def _ending(self, question: Question) -> Ending:
        """A question, its options and where the letter is to be said, with the end behind it."""
        ids: list[int] = []
        options: list[tuple[int, bool]] = []
        lines = question_text(question).split("\n")
        for number, line in enumerate(lines):
            ids += self.encode(line)
            if number:
                options.append((len(ids) - 1, question.letters[number - 1] == question.answer))
            if number < len(lines) - 1:
                ids += self._line_end
        ids += self._closing
        answer = self.letters[LETTERS.index(question.answer)]
        targets = ((len(ids) - 1, answer), (len(ids), self._end))
        return Ending((*ids, answer), targets, tuple(options))


def training_texts(simulator: Simulator, count: int, seed: int) -> Iterator[str]:
    """Prompts and pages that the tokenizer learns its words from.

    Args:
        simulator: whose cases and pages.
        count: prompts.
        seed: of the cases.
    """
    for index in range(count):
        task = TASKS[index % len(TASKS)]
        case, questions = simulator.questions(np.random.default_rng([seed, index]), task, 1)
        prior = prior_lines(case.prior, PRIOR_TASKS[task]) if case.prior is not None else ()
        messages = compose_question(questions[0], knowledge_lines=case.knowledge(task), prior_lines=prior)
        yield "".join(part for part in messages[0].parts if isinstance(part, str))
        if index % 10 == 0 and case.prior is not None:
            bundle = bundle_of(case, np.random.default_rng([seed, index]))
            turns = report_messages(bundle, ())
            yield "".join(part for turn in turns for part in turn.parts if isinstance(part, str))
            yield report_text(report_of(bundle))
    for page in simulator.pages:
        said = (page.description, page.appearance, page.normal_traits, page.action, *page.likely_causes)
        yield " ".join((*said, *page.consequences))


def chosen(
    cases: Sequence[RealCase], make: Callable[[RealCase], Pack | None], rng: np.random.Generator, count: int
) -> list[Pack]:
    """Packs of randomly chosen cases; those that have no answer are passed over.

    Raises:
        ValueError: hardly any case has one.
    """
    found: list[Pack] = []
    for _ in range(50 * count):
        pack = make(cases[int(rng.integers(len(cases)))])
        if pack is not None:
            found.append(pack)
        if len(found) == count:
            return found
    raise ValueError("hardly any of the cases has an answer")


def picture_files(cases: Sequence[RealCase]) -> tuple[Path, ...]:
    """Every picture of some cases, once."""
    return tuple(Path(key) for key in dict.fromkeys(k for case in cases for k in (*case.references, case.picture)))


__all__ = ["Case", "PackMaker", "RealCase", "chosen", "picture_files", "training_texts"]
