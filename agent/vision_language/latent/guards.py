"""When a thought's answer may replace the one without it; the first guard that refuses decides.

G1 form, G2 change of mind, G3 grounding in the picture, G4 better than random tokens, G5 pictures of good parts. G6,
that entropy below a floor earns nothing, is part of the reward.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence

import torch

from ..base import LetterAnswer
from .outcome import Thought
from .prompt import LatentPrompt, with_blank_query
from .reward import option_shares
from .search import Best, Search
from .settings import LatentSettings

Reordered = Callable[[int], Sequence[LetterAnswer]]
"""Answers to the same question under n other orders of its options, mapped back to the letters asked first."""
REFUSALS = {
    "G1": "the answer lost its form",
    "G2": "nothing confirms another answer",
    "G3": "the picture does not matter to it",
    "G4": "random tokens earn as much",
}
ORDERS = 3
CONFIRMING = 2


def keeps_form(answer: torch.Tensor, ids: Sequence[Sequence[int]], min_mass: float) -> bool:
    """G1: nearly all probability is on the options, and the likeliest token of all says one of them.

    Args:
        answer: float (V,), raw logits.
        ids: for each option the tokens that say it.
        min_mass: share of the probability.
    """
    said = int(answer.argmax())
    return option_shares(answer, ids).mass >= min_mass and any(said in tokens for tokens in ids)


def may_change(
    base: str,
    proposed: str,
    evidence: Mapping[str, float] | None,
    reordered: Reordered | None,
    settings: LatentSettings,
) -> bool:
    """G2: another letter than the base's needs the expert, or two of three other orders (the one, of two options).

    The orders are asked without think tokens: those were made for letters that mean something else there.

    Args:
        base: the letter without think tokens.
        proposed: the letter with them.
        evidence: letter -> agreement with the expert.
        reordered: asks; None when that is not possible.
        settings: ``evidence_gain``.
    """
    if proposed == base:
        return True
    if evidence and evidence.get(proposed, 0.0) > evidence.get(base, 0.0) + settings.evidence_gain:
        return True
    if reordered is None:
        return False
    answers = reordered(ORDERS)
    return sum(answer.letter == proposed for answer in answers) >= max(1, min(CONFIRMING, len(answers)))


def is_grounded(prompt: LatentPrompt, best: Best, search: Search, answer: str, settings: LatentSettings) -> bool:
    """G3: certainty falls when the query picture is blanked; otherwise it is a habit of language.

    The thought stays, its patches are those of the blank picture. Without a picture nothing is grounded.

    Args:
        prompt: the question; the cost of looking at the blank picture is added to its positions.
        best: the thought.
        search: that found it.
        answer: text that the answer follows.
        settings: ``grounding_rise``.
    """
    if prompt.grid is None:
        return False
    blank = LatentPrompt(
        prompt.model,
        with_blank_query(prompt.messages),
        answer=answer,
        patch_positions=prompt.patch_positions,
        room=prompt.room,
    )
    with torch.no_grad():
        seen = blank.run(best.tokens, best.patches)
    prompt.positions += blank.positions
    unsure = float(option_shares(seen.answer, search.reward.ids).entropy)
    return unsure - best.scored.entropy >= settings.grounding_rise


def beats_random(best: Best, search: Search, settings: LatentSettings) -> bool:
    """G4: random tokens of the same lengths do not earn as much."""
    generator = torch.Generator().manual_seed(settings.seed + 1)
    drawn = torch.randn(best.tokens.shape, generator=generator).to(best.tokens.device)
    drawn *= best.tokens.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
    return search.score(drawn, best.patches).value < best.reward - settings.min_gain


def is_sampled(prompt: LatentPrompt, settings: LatentSettings) -> bool:
    """Whether G4 is asked of this question: a share of all, the same each time for the same question and seed."""
    shown = [zlib.crc32(picture.rgb.tobytes()) for message in prompt.messages for picture in message.pictures]
    key = f"{settings.seed} {shown} {prompt.encoded.input_ids[0].tolist()}"
    return random.Random(key).random() < settings.dummy_check_share  # noqa: S311  # no secret


def thought_of(best: Best, settings: LatentSettings) -> Thought:
    """The place as plain numbers."""
    return Thought(best.tokens.detach().float().cpu().numpy(), best.patches, settings.patch_positions)
