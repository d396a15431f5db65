"""Where type centroids are kept: one folder per backbone's weights, written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.errors import KnowledgeError
from ...agent.home import Home, new_folder, recover_folder, write_json_atomically
from ..array_files import ARRAY_DAMAGE
from ..backbones import Backbone
from .type_centroids import TypeCentroids

FORMAT_VERSION = 1
CARD, ARRAYS = "types.json", "centroids.npz"
_REMEDY = "Make them: flawscope kb types build --data FOLDER."


@dataclass(frozen=True)
class StoredCentroids:
    """Centroids and where they come from.

    Attributes:
        centroids: the types.
        card: what ``types.json`` says: format_version, sha256 (of the arrays), backbone, weights_sha256, weighting,
            refined, names, counts, sources (product and label to canonical type and number of pictures), left_out.
    """

    centroids: TypeCentroids
    card: dict[str, Any]


def centroids_folder(home: Home, weights_sha256: str) -> Path:
    """The folder of a backbone's centroids; centroids of other weights mean nothing to it."""
    return home.root / "types" / weights_sha256[:16]


def save_centroids(home: Home, backbone: Backbone, centroids: TypeCentroids, origin: dict[str, Any]) -> Path:
    """Write centroids in place of those that were there.

    Args:
        home: the state directory.
        backbone: whose features they are of.
        centroids: the types.
        origin: what else the card shall say; JSON values.

    Returns:
        Their folder.

    Raises:
        StorageError: the disk refuses.
    """
    buffer = io.BytesIO()
    np.savez(buffer, vectors=centroids.vectors, counts=centroids.counts)
    card = {
        **origin,
        "format_version": FORMAT_VERSION,
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "backbone": backbone.name,
        "weights_sha256": backbone.weights_sha256,
        "names": list(centroids.names),
        "counts": centroids.counts.tolist(),
    }
    folder = centroids_folder(home, backbone.weights_sha256)
    with new_folder(folder) as temporary:
        (temporary / ARRAYS).write_bytes(buffer.getvalue())
        write_json_atomically(temporary / CARD, card)
    return folder


def load_centroids(home: Home, backbone: Backbone) -> StoredCentroids | None:
    """Read the centroids of a backbone.

    Returns:
        None when none were made.

    Raises:
        KnowledgeError: they are damaged, of another version, or of other weights.
    """
    folder = centroids_folder(home, backbone.weights_sha256)
    recover_folder(folder)
    if not folder.is_dir():
        return None
    card = read_card(folder)
    try:
        payload = (folder / ARRAYS).read_bytes()
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            vectors, counts = arrays["vectors"], arrays["counts"]
        names = tuple(str(name) for name in card["names"])
        whole = hashlib.sha256(payload).hexdigest() == card["sha256"]
        whole = whole and vectors.dtype == np.float32 and vectors.ndim == 2 and len(names) == len(vectors) > 0
        whole = whole and counts.shape == (len(names),) and card["weights_sha256"] == backbone.weights_sha256
    except ARRAY_DAMAGE as error:
        raise KnowledgeError(f"the type centroids in {folder} are damaged.", hint=_REMEDY) from error
    if not whole:
        raise KnowledgeError(f"the type centroids in {folder} contradict their description.", hint=_REMEDY)
    return StoredCentroids(TypeCentroids(names, counts, vectors), card)


def list_cards(home: Home) -> list[dict[str, Any]]:
    """The cards of all centroids in a home, by backbone and weights.

    Raises:
        KnowledgeError: one is damaged, or of another version.
    """
    root = home.root / "types"
    folders = sorted(f for f in root.iterdir() if not f.name.startswith(".")) if root.is_dir() else []
    return sorted((read_card(f) for f in folders), key=lambda card: (card["backbone"], card["weights_sha256"]))


def read_card(folder: Path) -> dict[str, Any]:
    """What a folder says of its centroids.

    Raises:
        KnowledgeError: it is damaged, or of another version.
    """
    try:
        card: Any = json.loads((folder / CARD).read_text(encoding="utf-8"))
        version = card["format_version"]
        strings = all(isinstance(card[key], str) for key in ("sha256", "backbone", "weights_sha256", "weighting"))
        lists = all(isinstance(card[key], list) for key in ("names", "counts", "sources", "left_out"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KnowledgeError(f"the type centroids in {folder} are damaged.", hint=_REMEDY) from error
    if version != FORMAT_VERSION:
        raise KnowledgeError(f"the type centroids in {folder} are of another version.", hint=_REMEDY)
    if not strings or not lists or len(card["names"]) != len(card["counts"]):
        raise KnowledgeError(f"the type centroids in {folder} are damaged.", hint=_REMEDY)
    return dict(card)
