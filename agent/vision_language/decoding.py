"""Decode from embeddings: a prefix that is computed once, raw scores for every token, answers held to a grammar.

Scores are taken from the logits before any grammar or temperature touches them: under a grammar forced tokens would
look certain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .base import Generated, OnText, TokenScore
from .grammar import Matcher
from .rows import OneRow, Rows

TOP = 20
"""Alternatives kept for each token, as many as common servers give."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """The part of a prompt whose attention keys and values are kept.

    Attributes:
        layers: keys and values (1, heads, n, d_head) of each layer; never changed.
        length: n.
        next_position: of the token that follows, in all three dimensions.
        logits: float32 (V,), raw, of the token that follows.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    length: int
    next_position: int
    logits: torch.Tensor

    def cache(self) -> Any:
        """A fresh cache of transformers; the tensors of the prefix are read and never written."""
        from transformers import DynamicCache

        return DynamicCache(ddp_cache_data=self.layers)


def prefill(model: Any, embeds: torch.Tensor, position_ids: torch.Tensor) -> Prefix:
    """One forward pass over a prompt.

    Args:
        model: ``Qwen2_5_VLForConditionalGeneration``.
        embeds: (1, n, d) of `Encoder.embeddings`.
        position_ids: int64 (3, 1, n).

    Returns:
        The prefix, detached.
    """
    with torch.no_grad():
        out = model(
            inputs_embeds=embeds.detach(),
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
            position_ids=position_ids,
            use_cache=True,
            logits_to_keep=1,
        )
    layers = tuple((layer.keys.detach(), layer.values.detach()) for layer in out.past_key_values.layers)
    return Prefix(layers, embeds.shape[1], int(position_ids.max()) + 1, out.logits[0, -1].float())


def extend(
    model: Any, prefix: Prefix, embeds: torch.Tensor, position_ids: torch.Tensor | None = None, **options: Any
) -> Any:
    """Forward further embeddings behind a prefix; gradients flow into them where they are wanted.

    Args:
        model: the same model.
        prefix: of `prefill`; unchanged.
        embeds: (1, m, d).
        position_ids: int64 (3, 1, m); None for words that follow one another.
        options: of the model's forward, such as ``output_attentions``.

    Returns:
        The model's output; ``logits`` is (1, m, V).
    """
    count = embeds.shape[1]
    if position_ids is None:
        begin = prefix.next_position
        position_ids = torch.arange(begin, begin + count, device=embeds.device).expand(3, 1, count)
    whole = torch.ones((1, prefix.length + count), dtype=torch.long, device=embeds.device)
    return model(
        inputs_embeds=embeds,
        attention_mask=whole,
        position_ids=position_ids,
        past_key_values=prefix.cache(),
        use_cache=True,
        **options,
    )


def score(logits: torch.Tensor, token: int, name: Callable[[int], str]) -> TokenScore:
    """Score one token.

    Args:
        logits: float (V,), raw.
        token: the chosen id.
        name: the text of an id.
    """
    logp = torch.log_softmax(logits.float(), dim=-1)
    best = torch.topk(logp, min(TOP, len(logp)))
    top = tuple((name(int(i)), float(p)) for p, i in zip(best.values, best.indices, strict=True))
    return TokenScore(name(token), float(logp[token]), _entropy(logp), top)


def _entropy(logp: torch.Tensor) -> float:
    """Entropy in nats of log-probabilities; 0 log 0 is 0."""
    p = logp.exp()
    return max(0.0, float(-(p * torch.where(p > 0, logp, torch.zeros_like(logp))).sum()))


@dataclass(eq=False)
class _Growing:
    """An answer while it grows.

    Attributes:
        text: so far.
        matcher: the grammar; None without one.
        scores: of its tokens.
        reason: why it ended, or would if it were cut now.
        done: whether it has ended.
    """

    text: AnswerText
    matcher: Matcher | None
    scores: list[TokenScore] = field(default_factory=list)
    reason: str = "length"
    done: bool = False

    def end(self) -> None:
        """It ended of itself."""
        self.reason, self.done = "stop", True


class Decoder:
    """Greedy or sampled decoding for one checkpoint.

    Args:
        model: ``Qwen2_5_VLForConditionalGeneration``.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        ends = model.generation_config.eos_token_id
        self.ends = frozenset([ends] if isinstance(ends, int) else ends or []) | {int(tokenizer.eos_token_id)}
        self.pad = int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
        self.vocabulary = int(model.config.get_text_config().vocab_size)

    def decode(
        self,
        prefix: Prefix,
        *,
        max_tokens: int,
        matcher: Matcher | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Generated:
        """Answer behind a prefix.

        Args:
            prefix: the prompt.
            max_tokens: of the answer, at most.
            matcher: the grammar; the scores are those without it. None without one.
            temperature: 0 for the likeliest token.
            seed: of the sampling.
            on_text: sees the answer grow.
        """
        row = OneRow(self.model, prefix)
        options: dict[str, Any] = {"temperature": temperature, "seed": seed, "on_text": on_text}
        return self.decode_rows(row, max_tokens=max_tokens, matchers=[matcher], **options)[0]

    def decode_rows(
        self,
        rows: Rows,
        *,
        max_tokens: int,
        matchers: Sequence[Matcher | None],
        temperature: float = 0.0,
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> list[Generated]:
        """Answer behind several prompts at once.

        Args:
            rows: the prompts.
            max_tokens: of each answer, at most.
            matchers: a grammar for each, or None.
            temperature: 0 for the likeliest token.
            seed: of the sampling.
            on_text: sees the first answer grow.
        """
        generator = torch.Generator(device="cpu").manual_seed(seed)
        answers = [_Growing(AnswerText(self.tokenizer), matcher) for matcher in matchers]
        for left in range(max_tokens, 0, -1):
            chosen = []
            for number, (answer, logits) in enumerate(zip(answers, rows.logits, strict=True)):
                shown = on_text if number == 0 else None
                chosen.append(self.pad if answer.done else self._grow(answer, logits, temperature, generator, shown))
            if left == 1 or all(answer.done for answer in answers):
                break
            rows.step(chosen)
        return [
            Generated(
                answer.text.whole,
                tuple(answer.scores),
                answer.reason,
                {"prompt_tokens": length, "completion_tokens": len(answer.scores)},
                self.vocabulary,
            )
            for answer, length in zip(answers, rows.lengths, strict=True)
        ]

    def _grow(
        self,
        answer: _Growing,
        logits: torch.Tensor,
        temperature: float,
        generator: torch.Generator,
        on_text: OnText | None,
    ) -> int:
        """The next token of an answer, added to it unless it is its end."""
        allowed = logits.clone()
        if answer.matcher is not None:
            answer.matcher.mask(allowed)
        token = pick(allowed, temperature, generator)
        if token in self.ends:
            answer.end()
            return self.pad
        piece = answer.text.add(token)
        found = score(logits, token, self.name)
        answer.scores.append(TokenScore(piece, found.logprob, found.entropy, found.top))
        if on_text is not None and piece:
            on_text(piece)
        if answer.matcher is not None and answer.matcher.accept(token):
            answer.end()
        return token

    def name(self, token: int) -> str:
        """Text of one id on its own."""
        return str(self.tokenizer.decode([token]))


def pick(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    """The next token: the likeliest, or a sample at a temperature above 0."""
    if temperature <= 0.0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(dim=-1).cpu(), 1, generator=generator))


class AnswerText:
    """An answer as it grows; a letter of several tokens appears with its last one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pending: list[int] = []
        self.whole = ""

    def add(self, token: int) -> str:
        """Add a token; what it adds to the text."""
        self._pending.append(token)
        piece = str(self._tokenizer.decode(self._pending, skip_special_tokens=True))
        if piece.endswith("�") and len(self._pending) < 5:
            return ""
        self._pending = []
        self.whole += piece
        return piece


def letter_probabilities(
    logits: torch.Tensor, letters: Sequence[str], ids: Sequence[Sequence[int]]
) -> tuple[dict[str, float], float]:
    """Distribution over options at the first place of an answer.

    Args:
        logits: float (V,), raw.
        letters: the options.
        ids: for each option the tokens that say it, such as those of ``A`` and `` A``.

    Returns:
        Probability of each option, adding up to 1, and their share of the whole probability.
    """
    logp = torch.log_softmax(logits.float(), dim=-1)
    each = torch.stack([torch.logsumexp(logp[list(tokens)], dim=0) for tokens in ids])
    mass = float(torch.logsumexp(each, dim=0).exp())
    shares = each.softmax(dim=0).tolist()
    return dict(zip(letters, shares, strict=True)), min(1.0, mass)
