"""The mini checkpoint's shape: Qwen2.5-VL's classes around a few hundred thousand weights, and its own tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from .questions.question import LETTERS

IMAGE_SIDE_PX = 112
"""Pictures are brought to about this square: 16 merged tokens of 28 px."""
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|quad_start|>",
)
MARKER = "Question"
"""The token that begins the question: what stands behind it is asked, what stands before it is told."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class MiniShape:
    """How large the mini is.

    Attributes:
        vocabulary: entries of the tokenizer, special ones included.
        width: of the language model.
        layers: of it.
        heads: of it; a head has ``width / heads`` dimensions, of which half must be divisible for three axes.
        hidden: of its feed-forward layers.
        vision_width: of the picture encoder.
        vision_layers: of it.
        context: tokens it reads at most.
    """

    vocabulary: int = 3072
    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 384
    vision_width: int = 96
    vision_layers: int = 3
    context: int = 4096


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer whose digits stand alone, as in Qwen's.

    Args:
        texts: what it learns words from.
        vocabulary: entries in all.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    words = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary - len(SPECIALS), initial_alphabet=alphabet, show_progress=False, min_frequency=2
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",  # noqa: S106  # no secret
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=[name for name in SPECIALS if name not in ("<|im_end|>", "<|endoftext|>")],
    )


def build_processor(tokenizer: Any) -> Any:
    """A ``Qwen2_5_VLProcessor`` around a tokenizer, for small pictures."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = IMAGE_SIDE_PX**2
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=pixels // 2, max_pixels=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    )


def build_model(tokenizer: Any, shape: MiniShape, seed: int) -> Any:
    """A ``Qwen2_5_VLForConditionalGeneration`` that has learnt nothing yet.

    Its attention begins as `lay_out_circuits` sets it.

    Args:
        tokenizer: of `build_tokenizer`.
        shape: sizes.
        seed: of the weights.

    Raises:
        ValueError: the tokenizer has no single token for the word that begins a question, or for a letter.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    half = shape.width // shape.heads // 2
    rows = 3 * half // 8
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIALS}
    ends = {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.width,
            "intermediate_size": shape.hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "max_position_embeddings": shape.context,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [half - 2 * rows, rows, rows],
                "rope_theta": 1e5,
            },
            "tie_word_embeddings": True,
            **ends,
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_width,
            "num_heads": 3,
            "intermediate_size": 2 * shape.vision_width,
            "out_hidden_size": shape.width,
            "window_size": 2 * IMAGE_SIDE_PX,
            "fullatt_block_indexes": list(range(shape.vision_layers)),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        lay_out_circuits(model, shape, [_single(tokenizer, word) for word in (MARKER, *LETTERS)])
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    model.generation_config.bos_token_id = None
    return model


def _single(tokenizer: Any, word: str) -> int:
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"the tokenizer has no single token for {word!r}")
    return int(ids[0])


def lay_out_circuits(model: Any, shape: MiniShape, marks: Sequence[int]) -> None:
    """Begin with heads that look one token back and heads that look for the same words elsewhere.

    To find in the evidence what an option says is the skill to be learnt, and it rests on two kinds of heads that
    transformers otherwise take most of their training to form (induction heads, Olsson et al. 2022): in the first
    layer a head that looks at the token before, by its biases alone, and in the second one that looks where that
    token was this one. In all other heads keys begin as copies of queries (mimetic initialisation, Trockman and
    Kolter 2023), in the slowly turning half of the rotary dimensions, so that equal words find each other at any
    distance. All of it is only where training begins.
    """
    d, size = shape.width, shape.width // shape.heads
    half = size // 2
    slow = torch.zeros(size, dtype=torch.bool)
    slow[[i for i in range(size) if i % half >= half * 3 // 8]] = True
    scale = 1.0 / math.sqrt(d)
    language = model.model.language_model
    language.embed_tokens.weight.normal_(0.0, scale)
    frequency = 1e5 ** (-torch.arange(half) / half)
    basis = torch.linalg.qr(torch.randn(d, d))[0]
    count = int(slow.sum())
    read, written = basis[:count], basis[count : 2 * count]
    asked, found, gathered = basis[2 * count], basis[2 * count + 1], basis[2 * count + 2]
    near = (frequency > 0.01) & (frequency < 0.1)
    still = [half - 1, size - 1]
    for number, layer in enumerate(language.layers):
        attention = layer.self_attn
        query, key, value, output = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
        query.weight.normal_(0.0, 1.6 * scale)
        query.weight.view(shape.heads, size, d)[:, ~slow] *= 0.2
        key.weight.copy_(query.weight)
        value.weight.normal_(0.0, scale)
        output.weight.normal_(0.0, 0.15 * scale / math.sqrt(shape.layers))
        for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
            projection.weight.normal_(0.0, 0.7 * scale)
        layer.mlp.down_proj.weight.normal_(0.0, 0.25 / math.sqrt(shape.hidden * shape.layers))
        query.bias.zero_()
        key.bias.zero_()
        value.bias.zero_()
        if number == 0:  # head 0 looks one token back and writes what stood there into a subspace of its own
            query.weight[:size].zero_()
            key.weight[:size].zero_()
            strength = 8.0 * (frequency > 0.05)
            key.bias[:half] = strength
            query.bias[:half] = strength * torch.cos(frequency)
            query.bias[half:size] = -strength * torch.sin(frequency)
            value.weight[:size].zero_()
            value.weight[:size][slow] = read
            output.weight[:, :size].zero_()
            output.weight[:, :size][:, slow] = 0.2 * written.T
            # head 1 looks at the token that begins the question, so that a word knows whether it is told or asked
            rows = slice(size, 2 * size)
            for weight in (query.weight, key.weight):
                weight[rows].zero_()
            query.bias[rows][still] = 6.0
            unit = functional.normalize(language.embed_tokens.weight[torch.tensor(marks)], dim=1)
            key.weight[rows][still] = 1.5 * unit[0]
            value.weight[size] = unit[0] / math.sqrt(d)
            output.weight[:, size] = asked
            # head 2 looks at the letter of the option that a word belongs to, the nearest one before it, and copies it
            rows = slice(2 * size, 3 * size)
            for weight in (query.weight, key.weight):
                weight[rows].zero_()
            query.bias[rows][:half][near] = key.bias[rows][:half][near] = 8.0
            query.bias[rows][still] = 6.0
            key.weight[rows][still] = 1.2 * unit[1:].sum(dim=0)
            value.weight[rows] = basis[-size:]
            output.weight[:, rows] = 0.2 * basis[-size:].T
        if number == 1:  # head 0 looks where the token before was this one, head 1 where both are alike
            for head, asks, finds in ((0, (read,), (written,)), (1, (read, written), (read, written))):
                rows = slice(head * size, (head + 1) * size)
                query.weight[rows].zero_()
                key.weight[rows].zero_()
                query.weight[rows][slow] = 3.0 * sum(asks)
                key.weight[rows][slow] = 3.0 * sum(finds)
            # how much of what head 1 looks at was told: a word that was told is found
            value.weight[size] = -asked / 6.0
            value.bias[size] = 1.0
            output.weight[:, size] = 1.2 * found
        if number == 2:  # head 0 gathers that over the words of the same option, which share its letter
            query.weight[:size].zero_()
            query.weight[:size][slow] = 2.2 * basis[-size:][:count]
            key.weight[:size] = query.weight[:size]
            query.bias[:half][near] = key.bias[:half][near] = 3.0
            value.weight[0] = found / 4.0
            output.weight[:, 0] = 2.0 * gathered
        if number == shape.layers - 1:  # heads say the letter of what they look at, head 0 that of what was found
            for head in range(shape.heads):
                rows = slice(head * size, (head + 1) * size)
                value.weight[rows] = basis[-size:]
                output.weight[:, rows] = (0.1 if head else 0.6) * basis[-size:].T
            query.weight[:size].zero_()
            key.weight[:size].zero_()
            query.bias[still] = 5.0
            key.weight[still] = 2.0 * gathered + asked
