"""What MMAD's script for Qwen2.5-VL sends to a model: one user turn, in its order and words.

The words are the protocol's (Jiang et al., ICLR 2025, published evaluation script ``qwen2_5_vl_query.py``); a figure
that is to stand beside published ones needs the same. The script asks one question a call, without those before, and
decodes at most 128 tokens. As published it does not run: it asks its parser for questions without the prefix
``Question 1:``, which the parser does not offer. ``numbered`` says which of both forms was sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...agent.vision_language import Message, Part, Picture
from .questions import Item

MAX_NEW_TOKENS = 128
INSTRUCTION = (
    "\nYou are an industrial inspector who checks products by images. "
    "You should judge whether there is a defect in the query image and answer the questions about it.\n"
    "Answer with the option's letter from the given choices directly.\n"
)
DIRECTLY = "Answer with the option's letter from the given choices directly! "
KNOWLEDGE = (
    "Following is the domain knowledge which contains some type of defect "
    "and the normal object characteristics: \n {text}"
)
TEMPLATES = (
    "Following is/are {count} image of normal sample, "
    "which can be used as a template to compare the image being queried."
)
QUERY = "Following is the query image: "
QUESTIONS = "Following is the question list: "


def official_messages(
    item: Item,
    query: NDArray[np.uint8],
    references: Sequence[NDArray[np.uint8]] = (),
    knowledge: str | None = None,
    *,
    numbered: bool = False,
) -> list[Message]:
    """A question as the published script asks it.

    Args:
        item: the question.
        query: uint8 RGB (H, W, 3).
        references: uint8 RGB pictures of good parts; none for 0-shot, and then no word about them.
        knowledge: of `ItemSet.oracle_knowledge`; None for none.
        numbered: begin the question with ``Question N: ``.
    """
    parts: list[Part] = [INSTRUCTION, DIRECTLY]
    if knowledge is not None:
        parts.append(KNOWLEDGE.format(text=knowledge))
    if references:
        parts.append(TEMPLATES.format(count=len(references)))
    for count, reference in enumerate(references, start=1):
        parts += [f"Picture {count}: ", Picture(reference, "reference")]
    parts += [QUERY, f"Picture {len(references) + 1}: ", Picture(query, "query"), QUESTIONS]
    parts.append(official_question(item, numbered=numbered))
    return [Message("user", tuple(parts))]


def official_question(item: Item, *, numbered: bool) -> str:
    """The question and its options, a line each."""
    options = "".join(f"{letter}. {text}\n" for letter, text in item.options.items())
    return f"{f'Question {item.number}: ' if numbered else ''}{item.text} \n{options}"
