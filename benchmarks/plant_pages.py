"""How far a plant's pages carry: is the page that a part resembles of its type, and what kind of part is it?

A plant is imagined that has added ``per_type`` photographs of some of a product's defect types, a random set of them
each time; every other part in alarm asks which page is the nearest. Compared are the similarity of retrieval (whole
picture against the page's picture) and that of deviations (``tools/knowledge/resemblance``), over the cuts above which
a page would be named. Precision is the share of named pages of the right type, so that a type without a page counts.

The kind of part is predicted from photographs of half of each type; with the product's own taken out, no category
should be predicted.

Run: ``python -m flawscope.benchmarks.plant_pages --data DIR``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError
from ..tools.backbones import Backbone, load_backbone
from ..tools.defect_features import patch_matrix
from ..tools.enrolment import fit_product
from ..tools.imaging import load_image
from ..tools.knowledge.base import KnowledgeBase
from ..tools.knowledge.categories import SURE
from ..tools.knowledge.features import LockSpace, image_part
from ..tools.knowledge.in_memory import InMemoryStore
from ..tools.knowledge.resemblance import CUT, MAX_REFERENCES, MIN_REFERENCES, Normal, deviation
from ..tools.knowledge.schema import KnowledgeDocument
from ..tools.views import encode
from .datasets import GOOD, ProductData, load_product
from .untouched import untouched_tests

PER_TYPE = (1, 3)
CUTS = (0.0, 0.7, 0.8, CUT, 0.9)
PICTURES = 24
"""Of a type at most."""
MAX_PIXELS = 200_000_000
MEASURES = ("retrieval", "deviation")

Progress = Callable[[str], None]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Parts:
    """The defective parts of a product.

    Attributes:
        product: its name.
        types: (n,) of each part.
        alarms: (n,) whether the product's own calibration calls it a defect.
        whole: float32 (n, D) image parts.
        deviations: float32 (n, D) of unit length.
    """

    product: str
    types: NDArray[np.str_]
    alarms: NDArray[np.bool_]
    whole: Vectors
    deviations: Vectors


@dataclass(frozen=True)
class CutRow:
    """What a cut does on one product; ``precision`` is None where no page was named."""

    product: str
    measure: str
    per_type: int
    cut: float
    precision: float | None
    named: float


@dataclass(frozen=True)
class CategoryRow:
    """How often the category is right, wrong or left open; with the product's own photographs in the base or not."""

    product: str
    held_out: bool
    queries: int
    right: float
    possible: float
    wrong: float


@dataclass
class PlantPagesResult:
    """What was measured."""

    cuts: list[CutRow] = field(default_factory=list)
    categories: list[CategoryRow] = field(default_factory=list)


def run_plant_pages(
    data: Path, *, repeats: int = 60, progress: Progress | None = None, backbone: Backbone | None = None
) -> PlantPagesResult:
    """Measure every product with references and two types of two pictures or more.

    Args:
        data: folder of products in the MVTec layout.
        repeats: imagined plants for each number of pages.
        progress: told a line now and then.
        backbone: the embedded one by default.

    Raises:
        InputError: the folder is missing or holds no such product.
    """
    tell = progress or (lambda text: None)
    model = backbone or load_backbone("efficientnet-lite2")
    if not data.is_dir():
        raise InputError(f"{data} is not a folder.", hint="Give a folder of products in the MVTec layout.")
    described = []
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        product = load_product(folder)
        if len(product.references) >= MIN_REFERENCES and len(_types(product)) > 1:
            tell(product.name)
            described.append(_describe(product, model))
    if not described:
        raise InputError(f"no product in {data} has references and two types of defects.")
    space = LockSpace.fit(np.concatenate([parts.whole for parts in described]))
    result = PlantPagesResult()
    for parts in described:
        for per_type in PER_TYPE:
            for measure in MEASURES:
                result.cuts += _cut_rows(parts, measure, per_type, repeats, space)
    result.categories = [_category_row(described, parts, space, out) for out in (False, True) for parts in described]
    return result


def _types(product: ProductData) -> list[str]:
    names = [picture.defect_type for picture in product.tests if picture.defect_type != GOOD]
    return sorted({name for name in names if names.count(name) > 1})


def _describe(product: ProductData, backbone: Backbone) -> Parts:
    model = fit_product(product.name, [str(path) for path in product.references], backbone, max_pixels=MAX_PIXELS)
    some = product.references[:: -(-len(product.references) // MAX_REFERENCES)]
    normal = Normal.of(np.concatenate([patch_matrix(encode(backbone, model, load_image(p).rgb)) for p in some]))
    types, alarms, whole, deviations = [], [], [], []
    for name in _types(product):
        for picture in [test for test in product.tests if test.defect_type == name][:PICTURES]:
            rgb = load_image(picture.path).rgb
            features = encode(backbone, model, rgb)
            seen = model.localise(features, rgb)
            scores = {"whole": seen.image_score, "tiles": seen.tile_score, "text": seen.text_score}
            decision = model.calibration.decide({k: v for k, v in scores.items() if v is not None}, 0.05)
            types.append(name)
            alarms.append(decision.score is None or decision.score >= (decision.threshold or 0.0))
            whole.append(image_part(features))
            deviations.append(deviation(features, seen.patch_scores, normal))
    return Parts(product.name, np.array(types), np.array(alarms), np.stack(whole), np.stack(deviations))


def _cut_rows(parts: Parts, measure: str, per_type: int, repeats: int, space: LockSpace) -> list[CutRow]:
    rng, known = np.random.default_rng(0), parts.deviations
    if measure == "retrieval":
        known = space.visual(np.stack([space.embed(part, "") for part in parts.whole]))
    cosines, names = known @ known.T, sorted(set(parts.types.tolist()))
    best, right = [], []
    for _ in range(repeats):
        present = rng.choice(names, int(rng.integers(1, len(names) + 1)), replace=False)
        pages = np.concatenate([_draw(rng, np.flatnonzero(parts.types == name), per_type) for name in present])
        asking = np.setdiff1d(np.flatnonzero(parts.alarms), pages)
        nearest = pages[cosines[np.ix_(asking, pages)].argmax(axis=1)]
        best.append(cosines[asking, nearest])
        right.append(parts.types[nearest] == parts.types[asking])
    similarity, hit = np.concatenate(best), np.concatenate(right)
    rows = []
    for cut in CUTS:
        named = similarity >= cut if cut else np.ones(len(hit), bool)
        precision = float(hit[named].mean()) if named.any() else None
        rows.append(CutRow(parts.product, measure, per_type, cut, precision, float(named.mean()) if len(hit) else 0.0))
    return rows


def _draw(rng: np.random.Generator, pictures: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Pages of a type; at least one picture is left to ask."""
    return rng.choice(pictures, min(count, len(pictures) - 1), replace=False)


def _category_row(described: Sequence[Parts], asked: Parts, space: LockSpace, held_out: bool) -> CategoryRow:
    """Half of each product's parts make the base, the other half of one product asks."""
    pages, vectors = [], []
    for parts in described:
        if held_out and parts is asked:
            continue
        for index in range(0, len(parts.whole), 2):
            name, kind = parts.product, str(parts.types[index])
            pages.append(
                KnowledgeDocument(
                    doc_id=f"{name}.{index}".lower(),
                    scope="product",
                    product=name.lower(),
                    defect_type=kind,
                    general_type="unknown",
                    title=kind,
                )
            )
            vectors.append(space.embed(parts.whole[index], ""))
    base = KnowledgeBase(pages, np.stack(vectors), space, InMemoryStore(space.dim), "")
    found = [base.category(part, None) for part in asked.whole[1::2]]
    sure = [choice.candidates[0][0] == asked.product.lower() for choice in found if choice.source == "predicted"]
    possible = sum(choice.source == "possible" for choice in found)
    count = len(found)
    return CategoryRow(
        asked.product, held_out, count, sum(sure) / count, possible / count, (len(sure) - sum(sure)) / count
    )


def render(result: PlantPagesResult) -> str:
    """The tables as plain text."""
    lines = [
        "Pages of a plant that a part in alarm would be said to resemble (precision, share of parts)",
        f"{'product':<16}{'measure':<11}{'pages':>6}" + "".join(f"{f'cut {cut:g}':>14}" for cut in CUTS),
    ]
    for start in range(0, len(result.cuts), len(CUTS)):
        rows = result.cuts[start : start + len(CUTS)]
        cells = [f"{'-' if row.precision is None else f'{row.precision:.2f}'} ({row.named:.2f})" for row in rows]
        lines.append(
            f"{rows[0].product:<16}{rows[0].measure:<11}{rows[0].per_type:>6}" + "".join(f"{c:>14}" for c in cells)
        )
    lines += ["", f"Kind of part (predicted from a posterior of {SURE:g})"]
    lines.append(f"{'product':<16}{'own pages':<11}{'queries':>8}{'right':>8}{'possible':>10}{'wrong':>8}{'open':>8}")
    lines += [
        f"{row.product:<16}{'no' if row.held_out else 'yes':<11}{row.queries:>8}{row.right:>8.2f}{row.possible:>10.2f}"
        f"{row.wrong:>8.2f}{1 - row.right - row.possible - row.wrong:>8.2f}"
        for row in result.categories
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from a shell."""
    parser: Any = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per product")
    parser.add_argument("--repeats", type=int, default=60, help="imagined plants")
    options = parser.parse_args(arguments)

    def tell(text: str) -> None:
        sys.stderr.write(text + "\n")

    sys.stdout.write(render(run_plant_pages(options.data, repeats=options.repeats, progress=tell)) + "\n")


if __name__ == "__main__":
    with untouched_tests():
        main()
