"""One reasoner for every vision-language model: it asks for a closed form, checks what comes back and says how sure.

What does not fit the form is sent back once with what is wrong; what does not fit then is REVIEW with the reason. No
word of the model is believed here: ``agent.verifier`` checks every sentence afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...prompts import render
from ..schemas import Verdict
from ..vision_language import Generated, Message, OnText, Picture, VisionLanguageModel
from .answer import NO_REGION, NO_TYPE, Answer, form_for
from .asking_again import ask_again
from .base import AskedAgain, DraftReport, EvidenceBundle, ReasonerReply, Refutation
from .deciding import VERDICTS, decision_entropy, entropy_of, settled
from .evidence import UNKNOWN
from .reading import as_draft, checked, named_type
from .refuting import refute
from .token_entropy import option_scores, value_logprobs

SHOWN_LETTERS = 4000


Composer = Callable[[EvidenceBundle, Sequence[Picture]], Sequence[Message]]
"""Evidence and pictures -> the conversation that asks for a report."""


@runtime_checkable
class WarmUp(Protocol):
    """A model that sets something up on first use."""

    def warm_up(self) -> None:
        """Do it now."""


@dataclass(frozen=True)
class _Read:
    """An answer that fits the form.

    Attributes:
        answer: it.
        generated: with the tokens that it was written in.
        usage: of all tries.
        problems: what is left to say of it.
    """

    answer: Answer
    generated: Generated
    usage: Mapping[str, Any]
    problems: tuple[str, ...] = ()


class ModelReasoner:
    """A vision-language model composes the report.

    Args:
        model: any; a local one, one behind a server, one of LangChain's.
        name: of the reasoner in settings and reports; the model's when None.
        max_tokens: of an answer.
        compose: makes the conversation; that of ``reasoner.composing`` when None.
        on_text: sees answers grow.
    """

    wants_pictures = True

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        name: str | None = None,
        max_tokens: int = 768,
        compose: Composer | None = None,
        on_text: OnText | None = None,
    ) -> None:
        self.model = model
        self.name = model.name if name is None else name
        self.max_tokens = max_tokens
        self.compose = compose_report_messages if compose is None else compose
        self.on_text = on_text

    def prepare(self) -> None:
        """Do what the first picture would otherwise wait for."""
        if isinstance(self.model, WarmUp):
            self.model.warm_up()

    def reason(
        self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]], schema: type[DraftReport]
    ) -> ReasonerReply:
        """Compose; see ``Reasoner.reason``."""
        reply = self._reply(self.compose(evidence, pictures(evidence, images)), evidence, schema)
        return self.settle(reply, evidence) if evidence.final else reply

    def settle(self, reply: ReasonerReply, evidence: EvidenceBundle) -> ReasonerReply:
        """The last word on an answer, without asking again; see ``Settles``."""
        return settled(reply, evidence)

    def refute(self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]]) -> Refutation:
        """Explain the strongest area as normal variation; see ``Refuter``."""
        return refute(self.model, evidence, pictures(evidence, images))

    def ask_again(self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]]) -> AskedAgain:
        """Whether the model says the same again; see ``AsksAgain``."""
        shown = pictures(evidence, images)
        return ask_again(self.model, self.compose(evidence, shown), evidence, shown, form_of(evidence))

    def _reply(
        self,
        messages: Sequence[Message],
        evidence: EvidenceBundle,
        schema: type[DraftReport],
        first: Generated | None = None,
    ) -> ReasonerReply:
        """The reply to a conversation, or to its first answer where there is one already."""
        read = self._read(messages, evidence, first)
        if isinstance(read, ReasonerReply):
            return read
        verdict = option_scores(read.generated.tokens, read.generated.text, "verdict", VERDICTS)
        entropy, source, parts = decision_entropy(verdict, evidence)
        parts |= self._further_parts(read, evidence)
        draft, problems = as_draft(read.answer, evidence, schema)
        return ReasonerReply(
            draft,
            entropy,
            source,
            token_logprobs=value_logprobs(read.generated.tokens, read.generated.text, "verdict"),
            usage=read.usage,
            parts=parts,
            problems=(*read.problems, *problems, *_left_out(read.usage)),
            said=_said(read.answer, evidence),
        )

    def _read(
        self, messages: Sequence[Message], evidence: EvidenceBundle, first: Generated | None
    ) -> _Read | ReasonerReply:
        """Ask, check, ask once more; what cannot be used twice is REVIEW."""
        form = form_of(evidence)
        first = self._generate(messages, form) if first is None else first
        read = checked(first, evidence)
        usage = {**first.usage, "repaired": False}
        if isinstance(read, str):
            again = [
                *messages,
                Message("assistant", (first.text[:SHOWN_LETTERS],)),
                Message("user", (render("answer", "repair", wrong=read),)),
            ]
            second = self._generate(again, form)
            usage = {**_sum(first.usage, second.usage), "repaired": True}
            read, first = checked(second, evidence), second
        if isinstance(read, str):
            said = f"The answer of {self.name} could not be used, also when it was asked again: {read}"
            draft, (_, _, parts) = DraftReport(verdict=Verdict.REVIEW), decision_entropy(None, evidence)
            source = "the model gave no usable answer"
            problems = (said, *_left_out(usage))
            unusable = {"usable": False}
            return ReasonerReply(draft, None, source, usage=usage, parts=parts, problems=problems, said=unusable)
        return _Read(read, first, usage)

    def _generate(self, messages: Sequence[Message], form: type[Answer]) -> Generated:
        return self.model.generate(messages, max_tokens=self.max_tokens, schema=form, on_text=self.on_text)

    def _further_parts(self, read: _Read, evidence: EvidenceBundle) -> dict[str, float | None]:
        """Entropies of the type and of the place, where there was more than one to choose from."""
        tokens, text = read.generated.tokens, read.generated.text
        types = option_scores(tokens, text, "defect_type", sayable_types(evidence))
        types = types or option_scores(tokens, text, "defect_type", (*evidence.shortlist, UNKNOWN, NO_TYPE))
        places = option_scores(tokens, text, "region", (*(region.id for region in evidence.regions), NO_REGION))
        return {"type": entropy_of(types), "location": entropy_of(places)}


def sayable_types(evidence: EvidenceBundle) -> tuple[str, ...]:
    """What an answer may say for the defect type, as the prompt says it."""
    from .composing import said_type

    return (*(said_type(name) for name in evidence.shortlist), UNKNOWN, NO_TYPE)


def form_of(evidence: EvidenceBundle) -> type[Answer]:
    """The form of an answer about a part, in which only its own types, areas and evidence can be named."""
    regions = (*(region.id for region in evidence.regions), NO_REGION)
    return form_for(sayable_types(evidence), regions, tuple(item.id for item in evidence.items))


def pictures(evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]]) -> list[Picture]:
    """Pictures as a model takes them: the bundle's, which say what they show, else the query and references."""
    given = [Picture(rgb, "query" if position == 0 else "reference") for position, rgb in enumerate(images)]
    return list(evidence.pictures) or given


def compose_report_messages(bundle: EvidenceBundle, pictures: Sequence[Picture]) -> Sequence[Message]:
    """The project's own composer, asked for a whole report."""
    from .composing import compose

    return compose(bundle, pictures, task="report")


def _said(answer: Answer, evidence: EvidenceBundle) -> dict[str, Any]:
    """What was answered, since the last check and the verifier cut without saying how much there was."""
    named = named_type(answer.defect_type, evidence)
    return {
        "usable": True,
        "verdict": answer.verdict.value,
        "defect_type": named,
        "sentences": len(answer.sentences),
    }


def _left_out(usage: Mapping[str, Any]) -> tuple[str, ...]:
    """What the model was not shown."""
    labels = ", ".join(usage.get("left_out", ()))
    return (f"For want of room the model was not shown: {labels}.",) if labels else ()


def _sum(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of two questions together."""
    counts = {key: first[key] for key in first if key == "tries" or key.endswith("_tokens")}
    return {**second, **{key: value + second.get(key, 0) for key, value in counts.items()}}
