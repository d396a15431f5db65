"""One reasoner for every vision-language model: it asks for a closed form, checks what comes back and says how sure.

What does not fit the form is sent back once with what is wrong; what does not fit then is REVIEW with the reason. No
word of the model is believed here: ``agent.verifier`` checks every sentence afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ...prompts import render
from ..schemas import Claim, DefectType, Verdict
from ..vision_language import Generated, Message, OnText, Picture, VisionLanguageModel
from .answer import NO_REGION, NO_TYPE, Answer
from .base import DraftReport, EvidenceBundle, ReasonerReply, Refutation
from .evidence import UNKNOWN, binary_entropy
from .refuting import refute
from .token_entropy import OptionScores, option_scores, value_logprobs

SHOWN_FAULTS = 4
SHOWN_LETTERS = 4000
VERDICTS = tuple(verdict.value for verdict in Verdict)


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
            problems=(*read.problems, *problems),
        )

    def _read(
        self, messages: Sequence[Message], evidence: EvidenceBundle, first: Generated | None
    ) -> _Read | ReasonerReply:
        """Ask, check, ask once more; what cannot be used twice is REVIEW."""
        first = self._generate(messages) if first is None else first
        read = checked(first, evidence)
        usage = {**first.usage, "repaired": False}
        if isinstance(read, str):
            again = [
                *messages,
                Message("assistant", (first.text[:SHOWN_LETTERS],)),
                Message("user", (render("answer", "repair", wrong=read),)),
            ]
            second = self._generate(again)
            usage = {**_sum(first.usage, second.usage), "repaired": True}
            read, first = checked(second, evidence), second
        if isinstance(read, str):
            said = f"The answer of {self.name} could not be used, also when it was asked again: {read}"
            draft = DraftReport(verdict=Verdict.REVIEW)
            return ReasonerReply(draft, None, "the model gave no usable answer", usage=usage, problems=(said,))
        return _Read(read, first, usage)

    def _generate(self, messages: Sequence[Message]) -> Generated:
        return self.model.generate(messages, max_tokens=self.max_tokens, schema=Answer, on_text=self.on_text)

    def _further_parts(self, read: _Read, evidence: EvidenceBundle) -> dict[str, float | None]:
        """Entropies of the type and of the place, where there was more than one to choose from."""
        tokens, text = read.generated.tokens, read.generated.text
        types = option_scores(tokens, text, "defect_type", (*evidence.shortlist, UNKNOWN, NO_TYPE))
        places = option_scores(tokens, text, "region", (*(region.id for region in evidence.regions), NO_REGION))
        return {"type": _entropy(types), "location": _entropy(places)}


def _entropy(scores: OptionScores | None) -> float | None:
    return None if scores is None else scores.entropy


def pictures(evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]]) -> list[Picture]:
    """Pictures as a model takes them: the bundle's, which say what they show, else the query and references."""
    given = [Picture(rgb, "query" if position == 0 else "reference") for position, rgb in enumerate(images)]
    return list(evidence.pictures) or given


def compose_report_messages(bundle: EvidenceBundle, pictures: Sequence[Picture]) -> Sequence[Message]:
    """The project's own composer, asked for a whole report."""
    from .composing import compose

    return compose(bundle, pictures, task="report")


def checked(generated: Generated, evidence: EvidenceBundle) -> Answer | str:
    """The answer, or in one line what is wrong with it.

    Args:
        generated: what the model said.
        evidence: what it was told; its shortlist and regions are all that it may name.
    """
    text = generated.text
    try:
        value, _ = json.JSONDecoder().raw_decode(text, max(text.find("{"), 0))
        answer = Answer.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)[:SHOWN_FAULTS]
        return "; ".join(f"{'.'.join(map(str, f['loc']))[:60] or 'answer'}: {f['msg']}" for f in faults)
    except (ValueError, RecursionError):
        if generated.finish_reason == "length":
            return "it was cut for its length; write fewer sentences."
        return "it holds no whole JSON object."
    named, known = slug(answer.defect_type), (*evidence.shortlist, UNKNOWN, NO_TYPE)
    if named not in known:
        return f"defect_type must be one of: {', '.join(known)}."
    if answer.verdict is Verdict.OK and named not in (NO_TYPE, UNKNOWN):
        return "a part that is OK has the defect_type none."
    regions = {region.id for region in evidence.regions}
    if answer.region != NO_REGION and answer.region not in regions:
        return f"region must be one of: {', '.join([*sorted(regions), NO_REGION])}."
    return answer


def as_draft(
    answer: Answer, evidence: EvidenceBundle, schema: type[DraftReport]
) -> tuple[DraftReport, tuple[str, ...]]:
    """The report's fields, and what was left out of them.

    Args:
        answer: of the form.
        evidence: what it rests on.
        schema: the draft's class.
    """
    from ...tools.knowledge.schema import plain_text

    claims, problems = [], []
    for sentence in answer.sentences:
        text = plain_text(sentence.text)
        if not sentence.cites:
            problems.append(f"a sentence about the {sentence.about.replace('_', ' ')} cites nothing")
        elif text:
            claims.append(Claim(field=sentence.about, text=text, evidence_ids=tuple(dict.fromkeys(sentence.cites))))
    draft = schema(verdict=answer.verdict, defect_type=_defect_type(answer, evidence), claims=tuple(claims))
    return draft, tuple(problems)


def _defect_type(answer: Answer, evidence: EvidenceBundle) -> DefectType | None:
    if answer.verdict is Verdict.OK:
        return None
    named, compared = slug(answer.defect_type), evidence.defect_type
    named = UNKNOWN if named == NO_TYPE else named
    candidates = compared.candidates if compared else ()
    shares = {candidate.name: candidate.posterior for candidate in candidates}
    return DefectType(name=named, posterior=shares.get(named), candidates=candidates)


def slug(name: str) -> str:
    """A type's name as the knowledge base writes it."""
    return "_".join(name.lower().replace("-", " ").replace("_", " ").split())


def decision_entropy(
    verdict: OptionScores | None, evidence: EvidenceBundle
) -> tuple[float | None, str, dict[str, float | None]]:
    """How open the decision is between the model and the expert, each of whom may be unknown.

    The largest of three: the model's entropy over OK, NG and REVIEW, the expert's over its calibrated probability, and
    that of the two averaged, REVIEW counting half for each side. Where they agree the last lies between the others;
    where they contradict each other it is near 1, however certain either is.

    Args:
        verdict: the model's probabilities; None when it gives none.
        evidence: with the expert's probability; None when uncalibrated.

    Returns:
        The entropy in [0, 1], where it comes from, and its parts.
    """
    parts: dict[str, float | None] = {
        "expert": None if evidence.probability is None else binary_entropy(evidence.probability),
        "verdict": _entropy(verdict),
        "mass": None if verdict is None else verdict.mass,
        "disagreement": None,
        **({} if verdict is None else {f"p_{name.lower()}": verdict.probabilities[name] for name in VERDICTS}),
    }
    known = [value for value in (parts["expert"], parts["verdict"]) if value is not None]
    if verdict is None and evidence.probability is None:
        return None, "neither the model nor the expert says how sure it is", parts
    if verdict is None:
        return known[0], "calibrated probability; the model gives no token probabilities", parts
    if evidence.probability is None:
        return known[0], "token probabilities of the verdict; the expert is not calibrated", parts
    said = verdict.probabilities[Verdict.NG.value] + 0.5 * verdict.probabilities[Verdict.REVIEW.value]
    parts["disagreement"] = abs(said - evidence.probability)
    together = binary_entropy(0.5 * (said + evidence.probability))
    return max(*known, together), "token probabilities of the verdict and calibrated probability", parts


def settled(reply: ReasonerReply, evidence: EvidenceBundle) -> ReasonerReply:
    """The last word on an answer: one that is still in doubt is REVIEW.

    Args:
        reply: what was answered.
        evidence: of the last round.
    """
    if reply.draft.verdict is Verdict.REVIEW:
        return reply
    if evidence.contradicting:
        why = f"judged by {' or '.join(f'the {view}' for view in evidence.contradicting)} alone it would be otherwise"
    elif evidence.doubt:
        why = evidence.doubt
    elif reply.entropy is None:
        why = "how sure the answer is cannot be known"
    elif reply.entropy > evidence.entropy_accept:
        why = f"the entropy is {reply.entropy:.2f} of 1, accepted up to {evidence.entropy_accept:.2f}"
    else:
        return reply
    claims = tuple(claim for claim in reply.draft.claims if claim.field not in ("verdict", "action"))
    draft = reply.draft.model_copy(update={"verdict": Verdict.REVIEW, "claims": claims})
    doubt = f"{reply.draft.verdict.value} was answered, but {why}"
    return replace(reply, draft=draft, problems=(*reply.problems, doubt))


def _sum(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of two questions together."""
    counts = {key: first[key] for key in first if key == "tries" or key.endswith("_tokens")}
    return {**second, **{key: value + second.get(key, 0) for key, value in counts.items()}}
