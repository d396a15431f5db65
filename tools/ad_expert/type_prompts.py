"""Type-level prompts: the words for a damaged part say how it is damaged.

Generic prompts know one kind of bad part, prompts with the object's name one kind a product. Type-level prompts have
one anchor per likely defect type, shared by all products: "broken [obj], with [cls] defect type" in every template of
the prompt ensemble, so that normal and abnormal anchors differ in the state of the part alone. Several types are
combined by a soft maximum, logsumexp over types minus log T (``zero_shot.soft_maximum``), so that one type is the base
case.

Source: ADSeeker (arXiv 2508.03088), type-level prompts T_p and T_n. Its prompts are learned; these are composed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import InputError
from ...agent.home import write_atomically
from ..array_files import ARRAY_DAMAGE
from ..backbones import Backbone, VisualFeatures
from ..defect_features import defect_weights
from ..knowledge.vocabulary import vocabulary
from .prompt_ensemble import PromptEnsemble, embed_state, ensemble_anchors, load_ensemble, prompt_set_hash
from .text_anchors import TextAnchors
from .type_centroids import TypeCentroids, TypeMatch, defect_key, fit_centroids

PromptForm = Literal["base", "obj", "cls", "both"]
"""What the prompts name: nothing, the object, the defect type, or both."""
TYPE_STATE = "broken {{noun}}, with {phrase} defect type"
_VECTOR_FORMAT = 1

Progress = Callable[[str, int, int], None]


def type_anchors(
    backbone: Backbone,
    types: Sequence[str] = (),
    *,
    form: PromptForm = "both",
    noun: str | None = None,
    folder: Path | None = None,
    ensemble: PromptEnsemble | None = None,
) -> TextAnchors:
    """The anchors for a part that may have these defects.

    Args:
        backbone: one with a text tower.
        types: canonical defect types; none gives the generic ensemble, to the bit.
        form: ``base`` ignores types and noun, ``obj`` the types, ``cls`` the noun; ``both`` uses both.
        noun: the part's name, such as ``metal nut``; None for a word that fits any part.
        folder: where embedded prompts are kept between runs; None keeps nothing.
        ensemble: the shipped one when None.

    Returns:
        The ensemble's normal anchor, and one abnormal anchor per type in the order given.

    Raises:
        BackendError: the backbone has no text tower.
        InputError: a type that is not in the vocabulary, or does not say how a part is defective.
        StorageError: the anchors cannot be kept.
    """
    ensemble = ensemble or load_ensemble()
    named = noun if form in ("obj", "both") else None
    generic = ensemble_anchors(backbone, named, folder=folder, ensemble=ensemble)
    wanted = tuple(dict.fromkeys(types)) if form in ("cls", "both") else ()
    if not wanted:
        return generic
    sentences = {name: _type_sentences(name, named, ensemble) for name in wanted}
    abnormal = np.stack([_kept_vector(backbone, sentences[name], folder) for name in wanted])
    normal = ensemble.sentences(ensemble.normal, named)
    return TextAnchors(generic.normal, abnormal, wanted, prompt_set_hash(normal, *sentences.values()))


def type_texts(
    backbone: Backbone, *, folder: Path | None = None, progress: Progress | None = None
) -> Mapping[str, NDArray[np.float32]]:
    """The embedding of every specific type of the vocabulary, with a word that fits any part: its ``[cls]`` anchor.

    Args:
        backbone: one with a text tower.
        folder: where embedded prompts are kept between runs; None keeps nothing.
        progress: told about each type.

    Raises:
        BackendError: the backbone has no text tower.
        StorageError: the embeddings cannot be kept.
    """
    ensemble = load_ensemble()
    names = [entry.name for entry in vocabulary().types.values() if entry.is_specific]
    texts = {}
    for done, name in enumerate(names, start=1):
        texts[name] = _kept_vector(backbone, _type_sentences(name, None, ensemble), folder)
        if progress is not None:
            progress("names of defect types", done, len(names))
    return texts


def anchors_of_picture(
    backbone: Backbone,
    centroids: TypeCentroids,
    features: VisualFeatures,
    patch_scores: NDArray[np.floating[Any]],
    index: int = 0,
    *,
    form: PromptForm = "both",
    noun: str | None = None,
    folder: Path | None = None,
) -> tuple[TextAnchors, TypeMatch]:
    """The anchors for the second look at a picture, from a first look with generic prompts.

    Args:
        backbone: one with a text tower.
        centroids: of the same backbone: from ``type_store.load_centroids``, or :func:`centroids_of_names`.
        features: of the first look; the second look needs no other forward pass.
        patch_scores: (h, w) or (N,), the first look's score of each patch.
        index: which picture of the batch.
        form: what the prompts name; ``base`` and ``obj`` do not depend on the picture.
        noun: the part's name.
        folder: where embedded prompts are kept between runs; give one, since every type is embedded when first met.

    Returns:
        The anchors, and the types that the defect may be of (none for ``base`` and ``obj``).

    Raises:
        BackendError: the backbone has no text tower.
        InputError: shapes that do not match, or a score that is not finite.
        StorageError: the anchors cannot be kept.
    """
    match = TypeMatch()
    if form in ("cls", "both"):
        match = centroids.match(defect_key(features, defect_weights(patch_scores), index, joint=True))
    return type_anchors(backbone, match.names, form=form, noun=noun, folder=folder), match


def centroids_of_names(backbone: Backbone, *, folder: Path | None = None) -> TypeCentroids:
    """Centroids of the vocabulary's names alone, for when no labelled defects were given.

    Raises:
        BackendError: the backbone has no text tower.
        StorageError: the embeddings cannot be kept.
    """
    return fit_centroids(np.zeros((0, 1), np.float32), (), type_texts(backbone, folder=folder))


def _type_sentences(name: str, noun: str | None, ensemble: PromptEnsemble) -> list[str]:
    entry = vocabulary().types.get(name)
    if entry is None or not entry.is_specific:
        raise InputError(f"'{name}' is no specific defect type.", hint="Use a name of the vocabulary, such as scratch.")
    return ensemble.sentences([TYPE_STATE.format(phrase=entry.phrase)], noun)


def _kept_vector(backbone: Backbone, sentences: Sequence[str], folder: Path | None) -> NDArray[np.float32]:
    """``embed_state``, from the folder when these sentences were embedded with these weights before."""
    if folder is None:
        return embed_state(backbone, sentences)
    key = f"{_VECTOR_FORMAT}\n{backbone.weights_sha256}\n{prompt_set_hash(sentences)}"
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    kept = _read_vector(path)
    if kept is not None:
        return kept
    vector = embed_state(backbone, sentences)
    write_atomically(path, lambda temporary: _write_vector(temporary, vector))
    return vector


def _read_vector(path: Path) -> NDArray[np.float32] | None:
    """A vector kept earlier; None when there is none, or the file is not whole and it must be made again."""
    try:
        with path.open("rb") as file:
            vector = np.load(file, allow_pickle=False)
    except ARRAY_DAMAGE:
        return None
    whole = isinstance(vector, np.ndarray) and vector.dtype == np.float32 and vector.ndim == 1
    return vector if whole and abs(float(np.linalg.norm(vector)) - 1.0) < 1e-3 else None


def _write_vector(path: Path, vector: NDArray[np.float32]) -> None:
    with path.open("wb") as file:
        np.save(file, vector)
