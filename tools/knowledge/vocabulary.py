"""One name for each defect type, whatever a data set or a user calls it.

A label such as ``Small_Scratches`` means ``scratch``. Prompts and centroids of types are kept under the canonical name,
so that what was learnt on one product counts for another. The names of the knowledge documents are canonical here too.

Source: the merged defect types of MulA (ADSeeker, arXiv 2508.03088); the merging and the names are ours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import yaml

from ...agent.errors import KnowledgeError

UNSPECIFIED_GROUP = "unspecified"
_COMBINED = "combined"
_WORD = re.compile(r"[^\W_]+")
_BRITISH = (
    ("discolor", "discolour"),
    ("color", "colour"),
    ("mold", "mould"),
    ("gray", "grey"),
    ("fiber", "fibre"),
    ("tumor", "tumour"),
    ("hemorrhage", "haemorrhage"),
    ("hematoma", "haematoma"),
    ("edema", "oedema"),
)


@dataclass(frozen=True)
class DefectType:
    """A canonical defect type.

    Attributes:
        name: snake_case.
        group: family, such as ``rupture``; ``unspecified`` for labels that do not say how a part is defective.
        phrase: singular noun for prompts, such as ``missing part``.
        synonyms: other names, as written.
    """

    name: str
    group: str
    phrase: str
    synonyms: tuple[str, ...]

    @property
    def is_specific(self) -> bool:
        """Whether it says how a part is defective, so that it can have a prompt and a centroid."""
        return self.group != UNSPECIFIED_GROUP


@dataclass(frozen=True)
class Vocabulary:
    """All canonical types; :func:`vocabulary` returns the one that Flawscope ships.

    Attributes:
        types: by name, in the order of the file.
        meanings: folded name to canonical name.
        in_products: folded product, then folded name, to canonical name.
    """

    types: Mapping[str, DefectType]
    meanings: Mapping[str, str]
    in_products: Mapping[str, Mapping[str, str]]


def canonical(name: str, product: str | None = None) -> str | None:
    """The canonical type that a label means.

    Case, separators, plurals, numbers standing alone and British or American spelling make no difference. A label of
    several names between commas, as VisA writes them, is their type if all mean the same and ``combined`` otherwise.

    Args:
        name: label of a data set, or a user's word.
        product: whose label it is, for words that mean something else there, such as ``break`` of a magnetic tile.

    Returns:
        A name of :func:`vocabulary`, or None for an unknown name and for good parts.
    """
    if "," in name:
        meant = {canonical(part, product) for part in name.split(",") if part.strip()}
        return None if not meant or None in meant else meant.pop() if len(meant) == 1 else _COMBINED
    words = vocabulary()
    folded = fold(name)
    special = words.in_products.get(fold(product), {}) if product else {}
    return special.get(folded) or words.meanings.get(folded)


def specific_types(names: Iterable[str], product: str | None = None) -> tuple[str, ...]:
    """The canonical types of labels in the order of first mention, without repetitions and what is not specific."""
    types = vocabulary().types
    meant = (canonical(name, product) for name in names)
    return tuple(dict.fromkeys(name for name in meant if name is not None and types[name].is_specific))


def fold(name: str) -> str:
    """A name without what does not matter: ``Small_Scratches`` and ``small scratch`` are one."""
    words = _WORD.findall(unicodedata.normalize("NFKC", name).casefold())
    return " ".join(_british(_singular(word)) for word in words if not word.isdigit())


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Read the vocabulary that Flawscope ships.

    Raises:
        KnowledgeError: the file is damaged, or a name stands for two types.
    """
    path = Path(__file__).with_name("vocabulary.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        types = [DefectType(**{**entry, "synonyms": tuple(entry["synonyms"])}) for entry in content["types"]]
        in_products = {
            fold(product): {fold(label): str(meant) for label, meant in labels.items()}
            for product, labels in content["in_products"].items()
        }
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise KnowledgeError(f"the vocabulary {path.name} is damaged: {error}.", hint="Install again.") from error
    by_name = {entry.name: entry for entry in types}
    for product, labels in in_products.items():
        if strangers := sorted(set(labels.values()) - set(by_name)):
            raise KnowledgeError(f"{path.name}, product '{product}': unknown type {', '.join(strangers)}.")
    return Vocabulary(MappingProxyType(by_name), MappingProxyType(_meanings(types)), MappingProxyType(in_products))


def _meanings(types: Iterable[DefectType]) -> dict[str, str]:
    """Each folded name's type.

    Raises:
        KnowledgeError: a name stands for two.
    """
    meanings: dict[str, str] = {}
    for entry in types:
        for name in (entry.name, entry.phrase, *entry.synonyms):
            other = meanings.setdefault(fold(name), entry.name)
            if other != entry.name:
                raise KnowledgeError(f"the name '{name}' stands for both {other} and {entry.name}.")
    return meanings


def _singular(word: str) -> str:
    """A plural without its ending. It need not be a word, only the same for both forms."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def _british(word: str) -> str:
    for american, british in _BRITISH:
        if american in word and british not in word:
            return word.replace(american, british)
    return word
