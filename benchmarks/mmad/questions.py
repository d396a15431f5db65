"""The questions of MMAD's layout: ``mmad.json`` beside one folder per source set.

Layout: Jiang et al., "MMAD: The First-Ever Comprehensive Benchmark for Multimodal Large Language Models in Industrial
Anomaly Detection" (ICLR 2025), and its published evaluation scripts.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...agent.errors import InputError

MERGED = {"Object Structure": "Object Analysis", "Object Details": "Object Analysis"}
"""Subtasks that the published tables count as one."""
NORMAL_FOLDER = "good"
FIRST_RELEASE_BLOB = "a8c97a396fd738efa5e2a8ba9e07580c00c886b3"
"""Git's name of ``mmad.json`` as it stands in the authors' repository since October 2024; they confirm that 22 of its
pictures under DS-MVTec/pill/image/good show metal nuts. A corrected file has another name."""
Templates = Literal["random", "similar"]


@dataclass(frozen=True)
class Item:
    """One question about one picture.

    Attributes:
        key: unique in the set: the picture's path and the question's number, from 1.
        image: path inside the set, ``DATASET/PRODUCT/...``.
        number: of the question among those about the picture, from 1.
        task: as written in the file; ``MERGED`` says what the tables count it as.
        text: the question.
        options: letter -> text, lettered A, B, ... in the file's order.
        answer: letter of the right option.
        random_templates: paths of good pictures chosen at random, in the file's order.
        similar_templates: paths of the good pictures most similar to this one.
        mask: path of the defect's mask, None where there is none.
    """

    key: str
    image: str
    number: int
    task: str
    text: str
    options: Mapping[str, str]
    answer: str
    random_templates: tuple[str, ...]
    similar_templates: tuple[str, ...]
    mask: str | None

    @property
    def dataset(self) -> str:
        """The source set: the first folder of the path."""
        return self.image.split("/")[0]

    @property
    def product(self) -> str:
        """The second folder of the path."""
        return self.image.split("/")[1]

    @property
    def subtask(self) -> str:
        """The task as the tables count it."""
        return MERGED.get(self.task, self.task)

    @property
    def normal(self) -> bool:
        """Whether the picture shows a good part, by its folder."""
        return NORMAL_FOLDER in self.image.split("/")[:-1]

    def templates(self, kind: Templates, shots: int) -> tuple[str, ...]:
        """The first ``shots`` good pictures of a kind."""
        return (self.random_templates if kind == "random" else self.similar_templates)[:shots]


@dataclass(frozen=True)
class ItemSet:
    """A set on disk.

    Attributes:
        root: its folder.
        items: in the file's order.
        sha256: of ``mmad.json``.
        first_release: whether that is the file with the 22 wrong pictures.
        knowledge: set -> product -> entry -> text, from ``domain_knowledge.json``; None where there is none. Written
            for the true product and its true defects: knowledge of an oracle.
    """

    root: Path
    items: tuple[Item, ...]
    sha256: str
    first_release: bool
    knowledge: Mapping[str, Mapping[str, Mapping[str, str]]] | None

    @property
    def images(self) -> tuple[str, ...]:
        """The pictures, each once, in the file's order."""
        return tuple(dict.fromkeys(item.image for item in self.items))

    def oracle_knowledge(self, item: Item) -> str | None:
        """All entries about the true product, joined as the authors do; None without an entry.

        Raises:
            InputError: the set has no ``domain_knowledge.json``.
        """
        if self.knowledge is None:
            raise InputError(f"{self.root} has no domain_knowledge.json.")
        entries = self.knowledge.get(item.dataset.replace("DS-MVTec", "MVTec"), {}).get(item.product)
        return None if entries is None else "\n".join(entries.values())


def load_items(root: Path) -> ItemSet:
    """Read ``mmad.json`` and, where it is, ``domain_knowledge.json``.

    Raises:
        InputError: a file is missing or not of that form.
    """
    path = root / "mmad.json"
    try:
        data = path.read_bytes()
        content = json.loads(data)
    except FileNotFoundError:
        raise InputError(f"{path} is missing.", hint="--data is the folder that holds mmad.json.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no table of pictures.")
    items = [item for image, entry in content.items() for item in _items_of(path, image, entry)]
    if not items:
        raise InputError(f"{path} holds no question.")
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return ItemSet(
        root=root,
        items=tuple(items),
        sha256=hashlib.sha256(data).hexdigest(),
        first_release=blob == FIRST_RELEASE_BLOB,
        knowledge=_knowledge(root / "domain_knowledge.json"),
    )


def _items_of(path: Path, image: str, entry: Any) -> list[Item]:
    """The questions about one picture; the list under the first key that begins with ``conversation``."""
    try:
        if len(image.split("/")) < 3:
            raise ValueError("the picture's path is not DATASET/PRODUCT/...")
        asked: list[Any] = next((entry[key] for key in entry if key.startswith("conversation")), [])
        return [_item(image, number, each, entry) for number, each in enumerate(asked, start=1)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: the entry of {image} is not of MMAD's form ({error}).") from error


def _item(image: str, number: int, asked: Mapping[str, Any], entry: Mapping[str, Any]) -> Item:
    given = dict(asked["Options"])
    letters = dict(zip(given, string.ascii_uppercase, strict=False))
    if not 2 <= len(given) <= len(string.ascii_uppercase) or asked["Answer"] not in given:
        raise ValueError(f"question {number} has no right answer among its options")
    return Item(
        key=f"{image}#{number}",
        image=image,
        number=number,
        task=str(asked["type"]),
        text=str(asked["Question"]),
        options={letters[key]: str(text) for key, text in given.items()},
        answer=letters[asked["Answer"]],
        random_templates=tuple(map(str, entry.get("random_templates") or ())),
        similar_templates=tuple(map(str, entry.get("similar_templates") or ())),
        mask=_mask(image, entry.get("mask_path")),
    )


def _mask(image: str, mask: Any) -> str | None:
    """A mask's path inside the set: the file gives it from the product's folder's subfolder on."""
    return f"{'/'.join(image.split('/')[:3])}/{mask}" if mask else None


def _knowledge(path: Path) -> Mapping[str, Mapping[str, Mapping[str, str]]] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        return {
            str(dataset): {str(name): {str(k): str(v) for k, v in texts.items()} for name, texts in products.items()}
            for dataset, products in content.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not of MMAD's form ({error}).") from error
