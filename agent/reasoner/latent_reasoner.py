"""Qwen2.5-VL that may think before it answers: Reason-IAD's latent reasoning on the verdict of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas import Verdict
from ..vision_language import Message, Picture, Slot
from ..vision_language.latent import LatentOutcome, LatentSettings, NormalImages, detection_evidence
from ..vision_language.latent.thinking import generate_with, think
from ..vision_language.qwen import QwenModel
from .base import DraftReport, EvidenceBundle, ReasonerReply
from .composing import compose
from .deciding import VERDICTS, decision_entropy
from .model_reasoner import ModelReasoner, form_of, pictures
from .token_entropy import OptionScores

OPENING = '{"verdict": "'
"""How an answer begins whose verdict is thought about; a grammar writes it the same way."""


class LatentModelReasoner(ModelReasoner):
    """A local model as reasoner, with the action ``latent``.

    Args:
        model: the checkpoint.
        latent: how to think; the defaults when None.
        normals: what that did to good parts; None where it was not measured.
        options: see `ModelReasoner`.
    """

    def __init__(
        self,
        model: QwenModel,
        *,
        latent: LatentSettings | None = None,
        normals: NormalImages | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.checkpoint = model
        self.latent = LatentSettings() if latent is None else latent
        self.normals = normals

    def think(
        self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]], schema: type[DraftReport]
    ) -> ReasonerReply:
        """Search, then answer behind what was thought if the guards agree; see ``LatentReasoner``."""
        slot = Slot("latent", self.latent.length)
        shown = pictures(evidence, images)
        messages = compose(evidence, shown, task="report", latent_slot=slot)
        agreed = {}
        if evidence.probability is not None and evidence.expert_verdict is not None:
            agreed = detection_evidence(Verdict.NG.value, Verdict.OK.value, evidence.probability)
        outcome = think(
            self.checkpoint,
            messages,
            VERDICTS,
            evidence=agreed,
            anomaly_map=evidence.expert_map,
            settings=self.latent,
            normals=self.normals,
            opening=OPENING,
            room=self.max_tokens,
        )
        if outcome.accepted and outcome.thought is not None:
            reply = self._thought(messages, outcome, evidence, shown, schema)
        else:
            reply = self.reason(replace(evidence, final=False), images, schema)
        return _with_base_entropy(reply, outcome, evidence)

    def _thought(
        self,
        messages: Sequence[Message],
        outcome: LatentOutcome,
        evidence: EvidenceBundle,
        shown: Sequence[Picture],
        schema: type[DraftReport],
    ) -> ReasonerReply:
        """The answer behind the think tokens; one that cannot be used is repaired without them."""
        assert outcome.thought is not None  # noqa: S101  # the caller's condition
        first = generate_with(
            self.checkpoint,
            messages,
            outcome.thought,
            max_tokens=self.max_tokens,
            schema=form_of(evidence),
            on_text=self.on_text,
        )
        return self._reply(self.compose(evidence, shown), evidence, schema, first=first)


def _with_base_entropy(reply: ReasonerReply, outcome: LatentOutcome, evidence: EvidenceBundle) -> ReasonerReply:
    """The entropy of the answer before the search, which lowers its own by construction; raised when guards objected.

    Args:
        reply: with the words.
        outcome: with the base's probabilities.
        evidence: with the expert's.
    """
    base = outcome.base
    scores = None
    if base.probabilities is not None and base.mass is not None:
        scores = OptionScores(dict(base.probabilities), base.mass)
    entropy, source, parts = decision_entropy(scores, evidence)
    if entropy is not None:
        entropy = max(entropy, outcome.uncertainty)
    usage = {**reply.usage, "latent": outcome.why, "latent_accepted": outcome.accepted, "latent_s": outcome.seconds}
    return replace(
        reply,
        entropy=entropy if reply.entropy is not None else None,
        entropy_source=f"{source}; before latent reasoning",
        parts={**reply.parts, **parts},
        usage=usage,
    )
