"""Whether a part deviates from its references as the part on a page of the plant does.

What retrieval compares will not do for that: pictures of one product are alike whatever is wrong with them, and of one
page for each type the nearest was the right one in a quarter to a third of the cases. Compared are the deviations
instead: the tokens of the suspicious place less those of good parts, on both sides by the product's own map. That
similarity has a cut above which nearly every page is of the right type, and few parts reach it (docs/expansion.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..defect_features import defect_weights, patch_matrix
from .features import image_part
from .plant_index import keep_vector, read_vector
from .plant_page import UNKNOWN, PlantPage
from .schema import GOOD, KnowledgeDocument

if TYPE_CHECKING:
    from ..backbones import VisualFeatures
    from ..product_model import ProductModel
    from .plant import PlantDocument, PlantStore

CUT = 0.875
"""Cosine of two deviations. At and above it the page was of the right type for 95 to 100 of 100 parts of each of the
four products that were measured; but only for 2 to 5 of 100 parts in alarm is there such a page."""
MIN_REFERENCES, MAX_REFERENCES = 4, 16
"""How many good parts say what is normal: with one the cut admits wrong types, and more than some change nothing."""
FOLDER = "plant_deviations"
FORMAT = 1


@dataclass(frozen=True)
class Resemblance:
    """A page that shows the same deviation.

    Attributes:
        page: with its accepted words only.
        similarity: cosine of the deviations, `CUT` or more.
    """

    page: PlantPage
    similarity: float


def candidates(documents: Iterable[KnowledgeDocument], product: str) -> list[PlantPage]:
    """Pages that could be named: of the plant, of this product, with a picture, a type and words."""
    pages = (page.established for page in documents if isinstance(page, PlantPage) and page.product == product)
    kinds = {GOOD, UNKNOWN}
    return [page for page in pages if page.page_image and page.defect_type not in kinds and page.description]


@dataclass(frozen=True)
class Normal:
    """What the patches of good parts are like.

    Attributes:
        mean: float32 (D,).
        spread: float32 (D,), positive.
    """

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]

    @classmethod
    def of(cls, tokens: NDArray[np.float32]) -> Normal:
        """From the patch tokens (N, D) of good parts."""
        spread = tokens.std(axis=0)
        floor = max(0.1 * float(np.median(spread)), 1e-6)
        return cls(tokens.mean(axis=0).astype(np.float32), np.maximum(spread, floor).astype(np.float32))


def deviation(features: VisualFeatures, patch_scores: NDArray[np.float32], normal: Normal) -> NDArray[np.float32]:
    """How the suspicious place differs from good parts, float32 (D,) of unit length, zero where it does not.

    Args:
        features: of one picture.
        patch_scores: of its patches, which say where it is suspicious.
        normal: of the product.
    """
    raw = (image_part(features, defect_weights(patch_scores)) - normal.mean) / normal.spread
    return np.asarray(raw / max(float(np.linalg.norm(raw)), 1e-6), np.float32)


@dataclass(frozen=True)
class PlantDeviations:
    """How the parts on a product's pages deviate.

    Attributes:
        normal: of the product.
        pages: see `candidates`.
        matrix: float32 (n, D), a row for each page.
    """

    normal: Normal
    pages: tuple[PlantPage, ...]
    matrix: NDArray[np.float32]

    def resembled(self, features: VisualFeatures, patch_scores: NDArray[np.float32]) -> Resemblance | None:
        """The page whose part deviates most like this one, when it does so clearly; ties by name.

        Args:
            features: of the part.
            patch_scores: of the part.
        """
        similarities = (self.matrix @ deviation(features, patch_scores, self.normal)).tolist()
        ranked = sorted(zip(similarities, self.pages, strict=True), key=lambda pair: (-pair[0], pair[1].doc_id))
        similarity, page = ranked[0]
        return Resemblance(page, min(similarity, 1.0)) if similarity >= CUT else None


def plant_deviations(product: ProductModel, pages: Iterable[PlantPage], store: PlantStore) -> PlantDeviations | None:
    """Deviations of a product's pages, kept beside them and made again when a picture or the product changes.

    Args:
        product: whose map says where a part deviates.
        pages: see `candidates`; those that were edited or removed since they were read are left aside.
        store: holds their pictures.

    Returns:
        None when there is no page or there are too few references.

    Raises:
        KnowledgeError: a page's picture or a kept deviation is damaged.
        StorageError: a deviation cannot be kept.
    """
    known = tuple(pages)
    if not known or len(product.reference_files) < MIN_REFERENCES:
        return None
    folder, stamp = store.folder.parent / FOLDER, f"{FORMAT} {product.fingerprint}"
    both = _kept(folder, f"normal {stamp}", partial(_normal, product))
    normal = Normal(both[: len(both) // 2], both[len(both) // 2 :])
    rows, unchanged, there = [], [], set(store.all_ids())
    for page in known:
        version = store.history(page.doc_id)[-1] if page.doc_id in there else None
        if version is None or version.action == "remove":
            continue  # since the base was opened, which says nothing of this part
        document = store.read(version)
        if document.page.established != page:
            continue  # edited since: another picture, or words that this process does not have
        unchanged.append(page)
        key = f"{document.version.picture_sha256} {stamp}"
        rows.append(_kept(folder, key, partial(_of, product, document, store, normal)))
    return PlantDeviations(normal, tuple(unchanged), np.stack(rows)) if rows else None


def _normal(product: ProductModel) -> NDArray[np.float32]:
    """Mean and spread of some references' patches, one after the other."""
    from ..imaging import load_image
    from ..views import encode

    chosen = product.reference_files[:: -(-len(product.reference_files) // MAX_REFERENCES)]
    pictures = (load_image(Path(path), value_range=product.value_range) for path in chosen)
    tokens = [patch_matrix(encode(product.backbone, product, picture.rgb)) for picture in pictures]
    normal = Normal.of(np.concatenate(tokens))
    return np.concatenate([normal.mean, normal.spread])


def _of(product: ProductModel, document: PlantDocument, store: PlantStore, normal: Normal) -> NDArray[np.float32]:
    """Deviation of the part on a page."""
    from ..imaging import load_image
    from ..views import encode

    picture = load_image(store.picture(document) or b"", value_range=product.value_range)
    features = encode(product.backbone, product, picture.rgb)
    return deviation(features, product.localise(features, picture.rgb).patch_scores, normal)


def _kept(folder: Path, key: str, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """A vector from its file, or made and kept."""
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    if not path.exists():
        keep_vector(path, make())
    return read_vector(path)
