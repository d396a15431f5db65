"""Find the pages that labelled pictures belong to, choose a few of each, and keep them.

Which pictures are chosen does not depend on what they look like: those with a drawn defect come first, then the order
is that of a hash of their names. Of the pictures that a source tests detectors with, a quarter of each page's is taken
at most and one is always left, and each is recorded, so that a benchmark can leave it out.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ConfigError, InputError, KnowledgeError
from ...agent.home import storage_errors
from ..imaging import load_image
from .attachments import Attached, Attachment, attachments, check, keep, places, read_attachment, read_picture
from .page_labels import find_page, same_product
from .schema import KnowledgeDocument
from .twins import MAX_DISTANCE_BITS, are_twins, difference_hash, fingerprint, hamming

DEFAULT_LIMIT = 2
"""Pictures of a page. By words alone a page is found for hardly any picture, with one picture for nine in ten; more
than two change little, and each is lost for tests."""
TEST_SHARE = 4
"""One in so many test pictures of a page may be taken."""
Progress = Callable[[str, int, int], None]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidate:
    """A labelled picture that might illustrate a page.

    Attributes:
        path: the file; it is only read.
        source: its path inside the data set, with slashes.
        product: as the data set names it.
        label: what the data set files it under, ``good`` for good parts.
        names: finer names of what it shows, empty where there are none.
        is_test: whether the source tests detectors with it.
        mask_paths: files that the mask comes from, empty where nobody drew it.
        mask: the defect at a height and width in px, or None.
    """

    path: Path
    source: str
    product: str
    label: str
    names: tuple[str, ...]
    is_test: bool
    mask_paths: tuple[Path, ...]
    mask: Callable[[int, int], Mask | None]

    @property
    def full_label(self) -> str:
        """Label and finer names."""
        return "/".join((self.label, *self.names))


@dataclass
class AttachReport:
    """What became of the pictures of one data set.

    Attributes:
        attached: pictures now kept, by page.
        made: how many of them were made in this run.
        removed: pictures of this data set that were kept before and are not chosen any more.
        test_pictures: how many of the kept are from a test part.
        unknown_products: products without pages, with their numbers of pictures.
        unknown_labels: ``product/label`` that no page describes, with the numbers of pictures.
        ambiguous: ``product/label`` that several pages describe, with the numbers of pictures.
        too_few: pages with a single picture, which was not taken because nothing would be left to test.
        protected: pictures that a guard keeps for tests.
        twins: chosen pictures that were there already, from another data set.
        unread: chosen pictures that cannot be read, with the reason.
        damaged: kept pictures that were no longer whole and were taken away, to be made again if they are chosen.
        without: pages of the data set's products that have no picture from it.
    """

    attached: dict[str, int] = field(default_factory=dict)
    made: int = 0
    removed: int = 0
    test_pictures: int = 0
    unknown_products: dict[str, int] = field(default_factory=dict)
    unknown_labels: dict[str, int] = field(default_factory=dict)
    ambiguous: dict[str, int] = field(default_factory=dict)
    too_few: list[str] = field(default_factory=list)
    protected: list[str] = field(default_factory=list)
    twins: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)


def attach(
    folder: Path,
    candidates: Iterable[Candidate],
    pages: Sequence[KnowledgeDocument],
    *,
    dataset: str,
    licence: str,
    limit: int = DEFAULT_LIMIT,
    is_protected: Callable[[Path], bool] | None = None,
    progress: Progress | None = None,
) -> AttachReport:
    """Keep a few pictures for each page that a data set has pictures of; a run that was cut off goes on.

    What the folder holds of the same products of this data set and is not chosen any more is removed, so that the same
    call ends in the same pictures whatever was there before.

    Args:
        folder: of all attached pictures.
        candidates: of one data set.
        pages: the shipped ones.
        dataset: name that the pictures are filed under.
        licence: of the pictures.
        limit: pictures of a page at most.
        is_protected: whether a picture must stay out of the knowledge base.
        progress: told (what, done, in all).

    Raises:
        StorageError: the disk refuses.
    """
    report = AttachReport()
    matched = _match(candidates, pages, report)
    chosen = [pick for group in matched.values() for pick in _choose(group, limit, is_protected, report)]
    kept = {(a.record.doc_id, a.record.key): a for a in _sound(folder, report)}
    mine: set[tuple[str, str]] = set()
    for done, (candidate, page) in enumerate(chosen):
        if progress:
            progress("attaching pictures", done, len(chosen))
        try:
            found = _keep_one(folder, candidate, page, dataset, licence, kept, report)
        except InputError as error:
            report.unread.append(f"{candidate.source}: {error.message}")
            continue
        if found is not None:
            place = (page.doc_id, found.record.key)
            kept[place] = found
            mine.add(place)
            report.attached[page.doc_id] = report.attached.get(page.doc_id, 0) + 1
            report.test_pictures += found.record.is_test
    if progress:
        progress("attaching pictures", len(chosen), len(chosen))
    products = {page.product for group in matched.values() for _, page in group}
    for place, old in kept.items():
        if old.record.dataset == dataset and old.record.product in products and place not in mine:
            detach(old.folder)
            report.removed += 1
    report.without = sorted(p.doc_id for p in pages if p.product in products and p.doc_id not in report.attached)
    return report


def drop_dataset(folder: Path, dataset: str) -> int:
    """Remove all pictures of a data set.

    Args:
        folder: of all attached pictures.
        dataset: the name that they are filed under.

    Returns:
        How many there were.

    Raises:
        ConfigError: there is none.
        KnowledgeError: a record cannot be read.
        StorageError: the disk refuses.
    """
    kept = attachments(folder)
    mine = [attachment for attachment in kept if attachment.record.dataset == dataset]
    if not mine:
        names = ", ".join(sorted({attachment.record.dataset for attachment in kept})) or "none"
        raise ConfigError(f"no pictures of a data set {dataset!r} are attached.", hint=f"Attached: {names}.")
    for attachment in mine:
        detach(attachment.folder)
    return len(mine)


def detach(place: Path) -> None:
    """Remove an attached picture; it is moved aside first, so that a crash leaves it whole or not at all.

    Raises:
        StorageError: the disk refuses.
    """
    with storage_errors(place):
        aside = place.with_name(f".{place.name}.gone")
        shutil.rmtree(aside, ignore_errors=True)
        place.replace(aside)
        shutil.rmtree(aside)


Match = tuple[Candidate, KnowledgeDocument]


def _match(
    candidates: Iterable[Candidate], pages: Sequence[KnowledgeDocument], report: AttachReport
) -> dict[str, list[Match]]:
    """Candidates with their page, by its doc_id; what has none is reported."""
    found: dict[str, list[Match]] = {}
    for candidate in candidates:
        name = f"{candidate.product}/{candidate.full_label}"
        if not any(same_product(page.product, candidate.product) for page in pages):
            report.unknown_products[candidate.product] = report.unknown_products.get(candidate.product, 0) + 1
            continue
        page = find_page(candidate.product, candidate.label, candidate.names, pages)
        if isinstance(page, KnowledgeDocument):
            found.setdefault(page.doc_id, []).append((candidate, page))
        else:
            where = report.unknown_labels if page is None else report.ambiguous
            where[name] = where.get(name, 0) + 1
    return found


def _choose(
    group: Sequence[Match], limit: int, is_protected: Callable[[Path], bool] | None, report: AttachReport
) -> list[Match]:
    """The pictures of one page to keep."""
    quota = limit
    if any(candidate.is_test for candidate, _ in group):
        quota = min(limit, max(1, len(group) // TEST_SHARE)) if len(group) > 1 else 0
    if not quota:
        report.too_few.append(group[0][1].doc_id)
    chosen: list[Match] = []
    for candidate, page in sorted(group, key=lambda match: _rank(match[0])):
        if len(chosen) == quota:
            break
        if is_protected is not None and is_protected(candidate.path):
            report.protected.append(candidate.source)
        else:
            chosen.append((candidate, page))
    return chosen


def _rank(candidate: Candidate) -> tuple[bool, str]:
    name = f"{candidate.product}/{candidate.label}/{candidate.path.stem}"
    return not candidate.mask_paths, hashlib.sha256(name.encode()).hexdigest()


def _sound(folder: Path, report: AttachReport) -> Iterator[Attachment]:
    """What is there and whole; what is not is taken away."""
    for place in places(folder):
        try:
            attachment = read_attachment(place)
            check(attachment)
        except KnowledgeError:
            detach(place)
            report.damaged.append(f"{place.parent.name}/{place.name}")
        else:
            yield attachment


def _keep_one(
    folder: Path,
    candidate: Candidate,
    page: KnowledgeDocument,
    dataset: str,
    licence: str,
    kept: dict[tuple[str, str], Attachment],
    report: AttachReport,
) -> Attachment | None:
    """The kept picture, made unless it is there; None for one that is there from another data set.

    Raises:
        InputError: the picture or its mask cannot be read.
    """
    blob = _bytes(candidate.path)
    source_sha256 = hashlib.sha256(blob).hexdigest()
    masks = [hashlib.sha256(_bytes(path)).hexdigest() for path in candidate.mask_paths]
    identity = "\n".join([page.doc_id, dataset, licence, candidate.source, source_sha256, *masks])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    if (page.doc_id, key) in kept:
        return kept[page.doc_id, key]
    rgb = load_image(blob).rgb
    others = [a for a in kept.values() if a.record.doc_id == page.doc_id and a.record.dataset != dataset]
    if twin := _twin(rgb, source_sha256, others):
        report.twins.append(f"{candidate.source}: as {twin.record.source} of {twin.record.dataset}")
        return None
    mask = candidate.mask(rgb.shape[0], rgb.shape[1]) if candidate.mask_paths else None
    record = Attached(
        doc_id=page.doc_id,
        product=page.product,
        defect_type=page.defect_type,
        label=candidate.full_label,
        dataset=dataset,
        source=candidate.source,
        source_sha256=source_sha256,
        source_bytes=len(blob),
        is_test=candidate.is_test,
        licence=licence,
        picture_sha256="",
        crop_sha256="",
        mask_sha256="",
        picture_hash=f"{difference_hash(rgb):016x}",
        key=key,
    )
    report.made += 1
    return keep(folder, record, rgb, mask)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _twin(rgb: NDArray[np.uint8], sha256: str, others: Collection[Attachment]) -> Attachment | None:
    mine = fingerprint(rgb) if others else None
    for other in others:
        if other.record.source_sha256 == sha256:
            return other
        near = mine is not None and hamming(int(other.record.picture_hash, 16), mine.bits) <= MAX_DISTANCE_BITS
        if near and mine is not None and are_twins(fingerprint(read_picture(other)), mine):
            return other
    return None
