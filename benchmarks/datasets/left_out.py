"""Leave out the test pictures that are in the knowledge base: a detector that has read them must not be tested on them.

Within ``leaving_out`` every loader of this package gives products without those pictures. A picture is known by its
file; in a product of the same name also by its looks, since a smaller copy of it is the same picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...agent.errors import InputError
from ...tools.imaging import load_image
from ...tools.knowledge.attachments import Attachment, read_picture
from ...tools.knowledge.known_pictures import KnownPicture, KnownPictures
from ...tools.knowledge.twins import fingerprint
from .pictures import LabelledPicture, ProductData


@dataclass
class LeftOut:
    """Test pictures that are in a knowledge base, and which of them were met.

    Attributes:
        attached: the pictures of the knowledge base.
        met: files that were left out of a product so far.
    """

    attached: Sequence[Attachment]
    met: set[Path] = field(default_factory=set)

    def without(self, product: ProductData) -> ProductData:
        """The product without the test pictures that are known."""
        if not self.attached:
            return product
        sizes = {attachment.record.source_bytes for attachment in self.attached}
        hashes = {attachment.record.source_sha256 for attachment in self.attached}
        same = [a for a in self.attached if a.record.product.lower() == product.name.lower()]
        looks = KnownPictures(
            KnownPicture(
                a.record.source,
                a.record.source_sha256,
                int(a.record.picture_hash, 16),
                lambda a=a: fingerprint(read_picture(a)),  # type: ignore[misc]
            )
            for a in same
        )
        kept = tuple(picture for picture in product.tests if not self._knows(picture, sizes, hashes, looks))
        return replace(product, tests=kept) if len(kept) < len(product.tests) else product

    def _knows(self, picture: LabelledPicture, sizes: set[int], hashes: set[str], looks: KnownPictures) -> bool:
        known = picture.path.stat().st_size in sizes and _sha256(picture.path) in hashes
        if not known and len(looks):
            try:
                known = looks.find("", fingerprint(load_image(picture.path).rgb)) is not None
            except InputError:  # whoever reads it later says so
                known = False
        if known:
            self.met.add(picture.path)
        return known


_current: ContextVar[LeftOut | None] = ContextVar("left_out", default=None)


@contextmanager
def leaving_out(attached: Sequence[Attachment]) -> Iterator[LeftOut]:
    """Let loaders leave out the test pictures among these, in this block.

    Args:
        attached: pictures of a knowledge base.

    Yields:
        What is left out; its ``met`` fills as products are loaded.
    """
    left_out = LeftOut([attachment for attachment in attached if attachment.record.is_test])
    token = _current.set(left_out)
    try:
        yield left_out
    finally:
        _current.reset(token)


def without_left_out(product: ProductData) -> ProductData:
    """The product without what is left out now."""
    current = _current.get()
    return product if current is None else current.without(product)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
