"""The workshop that a set is asked in: its products enrolled, its examples given, the knowledge base built.

Nothing of the pictures that are asked about gets in: references are the good pictures that the set names, examples are
those that it set aside, and the knowledge base is the shipped one with photographs of both.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...agent.home import new_folder
from ...agent.inspector import InspectionDeps
from ...agent.settings import LoadedSettings
from ...tools.ad_expert.zero_shot import ZeroShotConfig
from ...tools.knowledge.attaching import Candidate, attach
from ...tools.knowledge.attachments import FOLDER
from ...tools.knowledge.schema import load_documents
from ...tools.product_files import list_products
from ...tools.products import enroll_product
from ..datasets import GOOD
from .making import read_examples
from .questions import ItemSet

MIN_REFERENCES = 2
PHOTOGRAPHS = 4
"""Pictures of a page at most."""
Progress = Callable[[str, int, int], None]


def open_workshop(loaded: LoadedSettings, items: ItemSet, progress: Progress | None = None) -> InspectionDeps:
    """Enrol what is not enrolled yet and open the knowledge base.

    Args:
        loaded: settings whose home is the workshop's own.
        items: the set.
        progress: told about long work.

    Raises:
        InputError: a picture of the set cannot be read.
        ProductError: the trained head of the settings cannot be used with a product of the set.
        StorageError: the disk refuses.
        WeightsError: the trained head is missing, damaged or made for something else.
    """
    deps = InspectionDeps(loaded, progress=progress)
    references, examples = references_of(items), read_examples(items.root)
    known = list_products(deps.home.products)
    for product, paths in references.items():
        if product in known or len(paths) < MIN_REFERENCES:
            continue
        enroll_product(
            deps.home.products,
            product,
            [items.root / path for path in paths],
            deps.backbone,
            defects=_folder_of_examples(deps.home.root / "examples" / product, items.root, examples.get(product, {})),
            max_pixels=deps.settings.max_pixels,
            anchors=deps.anchors,
            words=ZeroShotConfig(deps.settings.loc_mode),
            head=deps.head,  # as an inspection of the question will have them
            progress=progress,
        )
    attach(
        deps.home.knowledge / FOLDER,
        _photographs(items, references),
        load_documents(),
        dataset="mmad-workshop",
        licence="as the set that is asked about",
        limit=PHOTOGRAPHS,
        progress=progress,
    )
    _ = deps.knowledge
    return deps


def references_of(items: ItemSet) -> dict[str, tuple[str, ...]]:
    """The good pictures that the set names for each product, without what is asked about, sorted."""
    asked, found = set(items.images), dict[str, set[str]]()
    for item in items.items:
        found.setdefault(item.product, set()).update({*item.random_templates, *item.similar_templates} - asked)
    return {product: tuple(sorted(paths)) for product, paths in found.items()}


def _folder_of_examples(folder: Path, root: Path, examples: dict[str, Sequence[str]] | object) -> Path | None:
    """One subfolder of pictures for each type, as enrolling takes them; None without any."""
    if not isinstance(examples, dict) or not any(examples.values()):
        return None
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder) as fresh:
            for kind, paths in examples.items():
                (fresh / kind).mkdir()
                for path in paths:
                    shutil.copyfile(root / path, fresh / kind / Path(path).name)
    return folder


def _photographs(items: ItemSet, references: dict[str, tuple[str, ...]]) -> Iterator[Candidate]:
    """References as pictures of the good part, examples as pictures of their types."""
    for product, paths in references.items():
        for path in paths:
            yield Candidate(items.root / path, path, product, GOOD, (), False, (), lambda height, width: None)
    for product, kinds in read_examples(items.root).items():
        for kind, pictures in kinds.items():
            for path in pictures:
                yield Candidate(items.root / path, path, product, kind, (), False, (), lambda height, width: None)
