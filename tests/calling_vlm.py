"""A checkpoint of a few hundred kilobytes that calls a tool when it is handed some, and answers when it has the result.

Its layers pass on what they get, so that the next token follows from the last one alone; which one that is, its chat
template decides by what the conversation holds. It has learnt nothing and needs no training.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.tiny_vlm import build_tiny_checkpoint

ANSWER = "R1 is 179 px wide [M2]."
FOR_EVER = "for ever"
"""Words of a question upon which it only ever calls."""


def _call(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


SAYS = {" ": ANSWER, "\t": _call("measure", region="R1"), "\f": _call("lamp_colour", lamp=7)}
"""What it says after which blank at the prompt's end."""
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% for call in m['tool_calls'] or [] %}<tool_call>{{ call['function'] | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if '" + FOR_EVER + "' in (messages | string) %}\t"
    "{% elif not tools or messages[-1]['role'] == 'tool' %} "
    "{% elif tools[0]['function']['name'] == 'lamp_colour' %}\f"
    "{% else %}\t{% endif %}{% endif %}"
)


def build_calling_checkpoint(folder: Path) -> Path:
    """Write the checkpoint.

    Args:
        folder: made if absent.
    """
    import torch
    from tokenizers import AddedToken
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    build_tiny_checkpoint(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in SAYS.values()])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    end = tokenizer.eos_token_id
    follows = {tokenizer.encode(blank)[-1]: tokenizer.convert_tokens_to_ids(text) for blank, text in SAYS.items()}
    follows |= dict.fromkeys(list(follows.values()), end)
    embedded, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        for name, weight in model.model.language_model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()
        embedded.normal_()
        head.zero_()
        for last, following in follows.items():
            head[following] += embedded[last]
    processor.chat_template = TEMPLATE
    kept = json.loads((folder / "config.json").read_text())["flawscope"]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "flawscope": kept}))
    return folder
