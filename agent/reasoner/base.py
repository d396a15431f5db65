"""The Reasoner contract: evidence in, a report's words out.

A reasoner sees only what the tools found; whatever it says is checked by ``agent.verifier`` before anyone reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..schemas import Claim, DefectType, Evidence, Frozen, Region, Text, Verdict

if TYPE_CHECKING:
    from ...tools.knowledge.categories import CategoryKnowledge
    from ..vision_language import VisionLanguageModel
    from ..vision_language.latent import NormalImages
    from ..vision_language.messages import Picture, Slot

EVEN = 0.5
CLEARLY_GOOD = 0.1
"""Probability of a defect up to which the expert vouches for a good part."""


@dataclass(frozen=True)
class RetrievedDocument:
    """A document as the reasoner may quote it: cleaned, capped, still data.

    Attributes:
        evidence_id: the id to cite, ``D1`` and on.
        doc_id: which document.
        defect_type: its type.
        product: its product, or ``general``.
        similarity: cosine between key and lock features, in [-1, 1].
        description: one quotable sentence.
        causes: likely causes, most likely first.
        consequences: what the defect leads to.
        action: disposition, one sentence.
        text: the whole document as quoted text.
        resemblance: cosine of its part's deviation with this part's, where that is high enough to lean on; else None.
    """

    evidence_id: str
    doc_id: str
    defect_type: str
    product: str
    similarity: float
    description: str
    causes: tuple[str, ...]
    consequences: tuple[str, ...]
    action: str
    text: str
    resemblance: float | None = None


@dataclass(frozen=True)
class EvidenceBundle:
    """Everything a reasoner may use for one round.

    Attributes:
        product: enrolled product or None.
        image_score: score of the picture in this round's unit.
        threshold: alarm threshold in the same unit; None without references.
        probability: calibrated probability of a defect; None when uncalibrated.
        calibrated: whether ``probability`` rests on this product's references.
        zero_shot: whether there are no references and words alone were compared with.
        regions: suspicious areas, strongest first.
        defect_type: the type comparison's answer; None when there was nothing to compare.
        type_entropy: normalised entropy of the type posterior.
        documents: retrieved documents, best first.
        items: all evidence with its ids, the documents included.
        category: what the knowledge base says about the kind of part, for a prompt; context, which nothing may cite.
        instruction: what the operator asks; data, to be quoted.
        seed: of orders that must not depend on what is in them, such as the picture's hash.
        size_px: (width, height) of the original picture; None when unknown.
        percentile: share of the good references that score lower, in [0, 1]; None when uncalibrated.
        weight: what the expert's evidence may weigh, 1 when references calibrate it, else 0.5 at most.
        admitted: whether the map may speak for a defect (`tools.ad_expert.evidence_gate`); like the fields below it
            is set only for reasoners that want pictures.
        grid: the calibrated map as text.
        expert_map: float32 (H, W) over the query picture, calibrated to [0, 1]: 0 as good parts.
        prior_slot: prior tokens of the map, for a model in this process; None leaves them out of prompts.
        pictures: query, references, enlarged areas, each with its label.
        contradicting: views that, judged alone, speak against the decision of all together.
        doubt: why answers like the one at hand are too seldom right to stand; empty when they are not, or when nothing
            tells.
        final: True in the last round: the reasoner must settle for REVIEW rather than ask for more.
    """

    product: str | None
    image_score: float | None
    threshold: float | None
    probability: float | None
    calibrated: bool
    zero_shot: bool = False
    regions: tuple[Region, ...] = ()
    defect_type: DefectType | None = None
    type_entropy: float | None = None
    documents: tuple[RetrievedDocument, ...] = ()
    items: tuple[Evidence, ...] = ()
    entropy_accept: float = 0.6
    contradicting: tuple[str, ...] = ()
    doubt: str = ""
    final: bool = False
    category: CategoryKnowledge | None = None
    instruction: str = ""
    seed: str = ""
    size_px: tuple[int, int] | None = None
    percentile: float | None = None
    weight: float = 1.0
    admitted: bool = False
    grid: str | None = None
    expert_map: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    pictures: tuple[Picture, ...] = ()
    prior_slot: Slot | None = None

    @property
    def expert_verdict(self) -> Verdict | None:
        """What a reasoner may not contradict without another look: None where the expert does not vouch for anything.

        NG when its map was admitted and the score alarms; OK when the score is far below the alarm and the map shows
        nothing that good parts do not.
        """
        if self.probability is None:
            return None
        if self.probability >= EVEN:
            return Verdict.NG if self.admitted else None
        return Verdict.OK if self.probability <= CLEARLY_GOOD and not self.admitted else None

    @property
    def shortlist(self) -> tuple[str, ...]:
        """The defect types that may be named besides unknown: those compared with, else those of the documents."""
        if self.defect_type is not None and self.defect_type.candidates:
            named = [candidate.name for candidate in self.defect_type.candidates]
        else:
            named = [document.defect_type for document in self.documents]
        return tuple(dict.fromkeys(name for name in named if name not in ("unknown", "good", "none")))


class DraftReport(Frozen):
    """The fields that a reasoner fills. Model output is parsed into this; what does not parse becomes REVIEW."""

    verdict: Verdict
    verdict_reason: Text = ""
    defect_type: DefectType | None = None
    description: Text = ""
    root_cause: Text = ""
    consequence: Text = ""
    action: Text = ""
    claims: tuple[Claim, ...] = Field(default=(), max_length=24)


@dataclass(frozen=True)
class ReasonerReply:
    """What came back.

    Attributes:
        draft: the parsed fields.
        entropy: normalised decision entropy in [0, 1]; None when unavailable, never 0 instead.
        entropy_source: where the entropy comes from.
        token_logprobs: raw log-probabilities of the verdict's tokens, None for reasoners without tokens.
        usage: counts such as tokens; empty for the evidence reasoner.
        parts: what the entropy was made of, and further entropies, by name; each None when unknown.
        problems: what of the answer could not be used, a line each.
        said: what a model answered, before anything was cut: ``usable``, and if so ``verdict``, ``defect_type`` and
            the number of its ``sentences``; empty for reasoners without a model.
    """

    draft: DraftReport
    entropy: float | None
    entropy_source: str
    token_logprobs: Sequence[float] | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, float | None] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Reasoner(Protocol):
    """Turns evidence into a draft report.

    One that looks at pictures has ``wants_pictures = True`` (see `wants_pictures`): only then are references decoded,
    areas cut out and the map calibrated for it.
    """

    name: str

    def reason(
        self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]], schema: type[DraftReport]
    ) -> ReasonerReply:
        """Compose the report's words.

        Args:
            evidence: what the tools found.
            images: uint8 RGB pictures: the query, then references or crops; a text-only reasoner ignores them.
            schema: the model the answer must parse into.

        Raises:
            BackendError: the model or server failed.
        """
        ...


def wants_pictures(reasoner: Reasoner) -> bool:
    """Whether a reasoner looks at the bundle's pictures, grid and gate; one that does not say so does not."""
    return bool(getattr(reasoner, "wants_pictures", False))


@runtime_checkable
class HasModel(Protocol):
    """A reasoner that is a vision-language model, which may also be asked in a conversation."""

    model: VisionLanguageModel


@runtime_checkable
class Prepared(Protocol):
    """A reasoner that sets something up on first use, such as weights or a server's capabilities."""

    def prepare(self) -> None:
        """Do it now.

        Raises:
            FlawscopeError: the reasoner cannot be used.
        """
        ...


@runtime_checkable
class Settles(Protocol):
    """A reasoner whose answer costs so much that the last round judges the one that is there."""

    def settle(self, reply: ReasonerReply, evidence: EvidenceBundle) -> ReasonerReply:
        """The last word on an answer: one that is still in doubt is REVIEW.

        Args:
            reply: what was answered.
            evidence: what it was answered from, and what is accepted.
        """
        ...


@dataclass(frozen=True)
class Refutation:
    """What came of explaining a suspicion away.

    Attributes:
        region_id: which suspicious area.
        explanation: how it could be normal, in the model's words; nothing may rest on them.
        defect: probability that the model then still gave to a defect; None when it gives none.
        mass: share of the whole probability that its two answers had; None with ``defect``.
    """

    region_id: str
    explanation: str
    defect: float | None
    mass: float | None


@dataclass(frozen=True)
class AskedAgain:
    """What a model said when it was asked again.

    Attributes:
        samples: what drawn answers mean, equal texts for equal meanings; None inside where one had no meaning.
        permuted: whether there is a defect, OK or NG, in each order of the options; None inside for no answer.
    """

    samples: tuple[str | None, ...]
    permuted: tuple[str | None, ...]


@runtime_checkable
class AsksAgain(Protocol):
    """A reasoner that can be asked again, to see whether it says the same."""

    def ask_again(self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]]) -> AskedAgain:
        """Draw answers, and ask in other orders of the options.

        Args:
            evidence: as for `Reasoner.reason`.
            images: the same.

        Raises:
            BackendError: the model or server failed.
        """
        ...


@runtime_checkable
class Refuter(Protocol):
    """A reasoner that can be asked to explain a suspicion as normal variation."""

    def refute(self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]]) -> Refutation:
        """Argue against the strongest suspicious area, then say what is likelier.

        Args:
            evidence: with one region at least.
            images: as for `Reasoner.reason`.

        Raises:
            BackendError: the model or server failed.
        """
        ...


@runtime_checkable
class LatentReasoner(Protocol):
    """A reasoner that can search for a better answer in its embedding space (Reason-IAD's latent reasoning).

    Attributes:
        normals: what that did to good parts; None where it was not measured.
    """

    normals: NormalImages | None

    def think(
        self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]], schema: type[DraftReport]
    ) -> ReasonerReply:
        """As `Reasoner.reason`, after a search.

        The entropy is that of the answer before the search, which lowers its own by construction.

        Raises:
            BackendError: the model failed.
        """
        ...
