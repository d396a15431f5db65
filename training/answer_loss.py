"""Language-model loss on the answer alone, for several conversations in one forward pass of a local model.

Shorter rows are padded on the right: under a causal mask nothing looks at what follows it, so no row is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from ..agent.errors import BackendError
from ..agent.vision_language.encoding import Encoded
from ..agent.vision_language.messages import Message
from ..agent.vision_language.qwen import QwenModel


@dataclass(frozen=True)
class Taught:
    """A conversation with the answer that is to be learnt.

    Attributes:
        encoded: prompt and answer.
        answer: ids of the answer, int64 (m,).
    """

    encoded: Encoded
    answer: torch.Tensor


def teach(model: QwenModel, messages: Sequence[Message], answer: str, *, ends: bool = True) -> Taught:
    """Encode a conversation and what is to be said.

    Args:
        model: whose tokens.
        messages: the conversation; ends with the user's turn.
        answer: what the assistant is to say.
        ends: whether the end of the turn is part of it; a letter is read without.

    Raises:
        BackendError: the answer is not at the end of what was encoded, or the prompt is too long.
    """
    text = answer + (str(model.checkpoint.processor.tokenizer.eos_token) if ends else "")
    encoded = model.encoder.encode(messages, answer=text)
    ids = model.encoder.token_ids(text)
    tail = encoded.input_ids[0, encoded.length - len(ids) :]
    if tail.tolist() != ids:
        raise BackendError("the chat template of this checkpoint joins the answer with what is before it.")
    return Taught(encoded, tail)


def answer_losses(model: QwenModel, taught: Sequence[Taught], embeds: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean negative log-likelihood of the tokens of each answer, in nats.

    Args:
        model: the model; gradients reach its weights and the embeddings where they are wanted.
        taught: B conversations.
        embeds: of each, (1, n_i, d) of `Encoder.embeddings`.

    Returns:
        float32 (B,).
    """
    longest = max(one.encoded.length for one in taught)
    rows = [functional.pad(each[0], (0, 0, 0, longest - each.shape[1])) for each in embeds]
    positions = torch.stack(
        [functional.pad(one.encoded.position_ids[:, 0], (0, longest - one.encoded.length)) for one in taught], dim=1
    )
    whole = torch.stack(rows)
    network = model.checkpoint.model
    hidden = network.model(
        inputs_embeds=whole,
        attention_mask=torch.ones(whole.shape[:2], dtype=torch.long, device=whole.device),
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    losses = []
    for row, one in enumerate(taught):
        end, count = one.encoded.length, len(one.answer)
        logits = network.lm_head(hidden[row, end - count - 1 : end - 1])  # each token is foretold by the one before
        losses.append(functional.cross_entropy(logits.float(), one.answer))
    return torch.stack(losses)
