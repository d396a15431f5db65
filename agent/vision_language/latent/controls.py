"""What the search has to beat: tokens that were not searched for, and the same compute spent otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ....prompts import render
from ..base import LetterAnswer
from ..messages import Message
from ..qwen import QwenModel
from .guards import Reordered
from .prompt import PROMPTS
from .search import Best, Search
from .settings import LatentSettings
from .updates import project

MOST_ORDERS = 5


def initial_tokens(model: QwenModel, length: int) -> torch.Tensor:
    """T0: embeddings of neutral words.

    Args:
        model: the checkpoint.
        length: L.

    Returns:
        float32 (L, d); the words repeat when L is more than they have tokens.
    """
    return _embedded(model, " " + render(PROMPTS, "think"), length)


def dummy_tokens(model: QwenModel, length: int) -> torch.Tensor:
    """As many embeddings of a full stop, float32 (L, d): room to compute, and nothing said."""
    return _embedded(model, render(PROMPTS, "dummy"), length)


def _embedded(model: QwenModel, words: str, length: int) -> torch.Tensor:
    ids = model.encoder.token_ids(words)
    wanted = torch.tensor([ids[i % len(ids)] for i in range(length)], device=model.checkpoint.device)
    return model.checkpoint.model.get_input_embeddings()(wanted).detach().float()


def random_direction(search: Search, settings: LatentSettings) -> Best:
    """As far from the initial tokens as the search went, elsewhere; the patches stay."""
    found = search.best
    generator = torch.Generator().manual_seed(settings.seed + 2)
    drawn = torch.randn(found.tokens.shape, generator=generator).to(found.tokens.device)
    drawn *= (found.tokens - search.initial).norm() / drawn.norm()
    tokens = project(search.initial + drawn, search.initial, settings)
    scored = search.score(tokens, found.patches)
    return Best(tokens, found.patches, scored, scored.value)


def equal_orders(prompt_positions: int, suffix_positions: int, settings: LatentSettings) -> int:
    """How many further questions cost what the search costs, one at least.

    Each step is a pass with gradients, counted three times; each try of patches adds the try, its attention and a
    second gradient; the blank picture of G3 is a whole prompt.

    Args:
        prompt_positions: of asking once.
        suffix_positions: of what stands behind the think tokens.
        settings: of the search.
    """
    tail = settings.length + suffix_positions + (0 if settings.patches is None else settings.patches_per_step)
    tries = 0 if settings.patches is None else len(settings.patch_steps)
    each = {"gradient": 3, "nes": 1 + 2 * settings.samples, "one_sample": 2}[settings.update]
    spent = prompt_positions + tail * (1 + each * settings.steps + tries * (2 + each))
    return max(1, min(MOST_ORDERS, round(spent / prompt_positions)))


def consistent_answer(base: LetterAnswer, reordered: Reordered, orders: int) -> LetterAnswer:
    """The option with the highest mean probability over the given and other orders of the options.

    Args:
        base: the answer in the given order.
        reordered: asks under other orders.
        orders: how many, of `equal_orders`.
    """
    answers = [base, *reordered(orders)]
    known = [answer.probabilities for answer in answers if answer.probabilities is not None]
    letters = tuple(known[0])
    shares = {letter: sum(each[letter] for each in known) / len(known) for letter in letters}
    masses = [answer.mass for answer in answers if answer.mass is not None]
    spent = sum(int(answer.usage.get("prompt_tokens", 0)) for answer in answers[1:])
    letter = max(letters, key=lambda one: shares[one])
    return LetterAnswer(letter, shares, sum(masses) / len(masses), letter, {"prompt_tokens": spent})


def asked_again(
    model: QwenModel, messages: Sequence[Message], letters: Sequence[str], base: LetterAnswer
) -> LetterAnswer:
    """The answer after a second turn that only asks to look again.

    Args:
        model: the checkpoint.
        messages: the conversation without think tokens.
        letters: the options.
        base: the first answer, which the second turn is shown.
    """
    turns = [
        *messages,
        Message("assistant", (str(base.letter),)),
        Message("user", (render(PROMPTS, "again"),)),
    ]
    return model.choose(turns, letters)
