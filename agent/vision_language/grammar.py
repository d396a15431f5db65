"""Hold an answer to a JSON schema, token by token, with xgrammar."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import torch
from pydantic import BaseModel

from ..errors import MissingExtraError

KEPT = 64
"""Compiled grammars."""
CACHE_BYTES = 2**28


class Grammars:
    """Compiled schemas of one tokenizer.

    The grammars used last are kept, since each part has a form of its own; a matcher is new for every answer, since a
    used one lets anything pass.

    Args:
        tokenizer: whose.
        vocabulary: width of the model's logits, which may be padded beyond the tokenizer.

    Raises:
        MissingExtraError: xgrammar is not installed.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        try:
            import xgrammar
        except ImportError as error:
            raise MissingExtraError("answers held to a schema", "vlm") from error
        self._xgrammar = xgrammar
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary)
        # Its cache holds parts of grammars: of a large vocabulary the first form takes seconds, the next milliseconds.
        self._compiler = xgrammar.GrammarCompiler(info, cache_limit_bytes=CACHE_BYTES)
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._vocabulary = vocabulary

    def matcher(self, schema: type[BaseModel]) -> Matcher:
        """A matcher for one answer."""
        text = json.dumps(schema.model_json_schema())
        if text not in self._compiled:
            # Without any_whitespace=False an unsure model emits blanks until it is cut off.
            self._compiled[text] = self._compiler.compile_json_schema(text, any_whitespace=False)
        self._compiled.move_to_end(text)
        if len(self._compiled) > KEPT:
            self._compiled.popitem(last=False)
        matcher = self._xgrammar.GrammarMatcher(self._compiled[text])
        bitmask = self._xgrammar.allocate_token_bitmask(1, self._vocabulary)
        return Matcher(matcher, bitmask, self._xgrammar.apply_token_bitmask_inplace)


class Matcher:
    """Follows one answer.

    Args:
        matcher: xgrammar's, fresh.
        bitmask: int32 (1, ceil(V / 32)).
        apply: sets forbidden logits to minus infinity.
    """

    def __init__(self, matcher: Any, bitmask: torch.Tensor, apply: Any) -> None:
        self._matcher = matcher
        self._bitmask = bitmask
        self._apply = apply

    def mask(self, logits: torch.Tensor) -> None:
        """Forbid, in place, what the schema does not allow next."""
        self._matcher.fill_next_token_bitmask(self._bitmask)
        self._apply(logits[None], self._bitmask.to(logits.device))

    def accept(self, token: int) -> bool:
        """Follow a chosen token; True when the answer is complete."""
        return not self._matcher.accept_token(token) or bool(self._matcher.is_terminated())
