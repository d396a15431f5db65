"""A small set in MMAD's layout, and models that answer by rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flawscope.agent.vision_language import Generated, LetterAnswer, Message

OPTIONS = {
    "Anomaly Detection": ["Yes.", "No."],
    "Defect Classification": ["Scratch.", "Dent.", "Hole."],
    "Object Structure": ["Neck and body.", "A wick.", "Six faces."],
    "Object Details": ["White.", "Black."],
}


def write_set(root: Path, sets: Sequence[str] = ("DS-MVTec", "VisA"), pictures: int = 3) -> Path:
    """Two products; of each picture the options turn, so that right letters differ."""
    entries: dict[str, Any] = {}
    for at, name in enumerate(sets):
        base = root / name / "part"
        for folder in ("train/good", "test/good", "test/bent"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        template = f"{name}/part/train/good/0.png"
        _draw(root / template, 100)
        for number in range(pictures):
            kind = "good" if number % 2 == 0 else "bent"
            image = f"{name}/part/test/{kind}/{number}.png"
            _draw(root / image, 20 + number + 40 * at)
            asked = []
            for task, texts in OPTIONS.items():
                right = {"Anomaly Detection": "No." if kind == "good" else "Yes."}.get(task, texts[0])
                turned = texts[number % len(texts) :] + texts[: number % len(texts)]
                options = dict(zip("ABC", turned, strict=False))
                answer = next(letter for letter, text in options.items() if text == right)
                asked.append({"Question": f"{task}?", "Answer": answer, "Options": options, "type": task})
            entries[image] = {
                "image_path": image,
                "conversation": asked,
                "random_templates": [template],
                "similar_templates": [template],
                "mask_path": f"ground_truth/{number}.png" if kind == "bent" else "",
            }
    (root / "mmad.json").write_text(json.dumps(entries))
    knowledge = {name.replace("DS-", ""): {"part": {"good": "is white", "bent": "is bent"}} for name in sets}
    (root / "domain_knowledge.json").write_text(json.dumps(knowledge))
    return root


def _draw(path: Path, grey: int) -> None:
    Image.fromarray(np.full((32, 40, 3), grey, np.uint8)).save(path)


class RuleModel:
    """Answers with the first option, 0.7 against the rest; counts how often it was asked.

    Attributes:
        asked: conversations so far.
    """

    name = "rule"

    def __init__(self, reply: str = "B. A scratch") -> None:
        self.asked: list[tuple[Message, ...]] = []
        self.reply = reply

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        self.asked.append(tuple(messages))
        rest = 0.3 / (len(letters) - 1)
        shares = {letter: 0.7 if letter == letters[0] else rest for letter in letters}
        return LetterAnswer(letters[0], shares, 0.9, letters[0])

    def generate(self, messages: Sequence[Message], **options: Any) -> Generated:
        self.asked.append(tuple(messages))
        assert options["max_tokens"] == 128
        return Generated(self.reply, None, "stop")
