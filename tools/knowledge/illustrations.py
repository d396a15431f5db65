"""The pictures of a page: the sound surface, the defect, and the defect with a line around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...agent.errors import InputError, KnowledgeError
from ..imaging import load_image
from .attachments import Attachment, check, read_marked
from .builder import PICTURE_SIDE_PX
from .drawings import DRAWN_TYPES, draw_defect
from .plant_page import UNKNOWN, PlantPage
from .schema import GOOD, KnowledgeDocument
from .sections import printable, words

Picture = NDArray[np.uint8]
PagePicture = Path | Attachment
"""A page's own picture: the file of a plant's page, or what is attached to a shipped one."""
PHOTO_SIDE_PX = 640
"""Longer side to which photographs are reduced: twice what a page has room for."""
_REACH_PX, _GAP_PX, _LINE_PX = 13, 5, 3
"""Places nearer than twice the reach share one line; it keeps a gap, so that the defect's edge can be seen."""
_LINE, _LINE_EDGE = (0, 194, 255), (255, 255, 255)
"""Cyan in white: no material of the pages has it, and it differs from them in lightness as well."""


@dataclass(frozen=True)
class Panel:
    """One picture with its caption.

    Attributes:
        rgb: uint8 (H, W, 3), sRGB, any size.
        caption: what it shows; also what is read aloud in its place.
    """

    rgb: Picture
    caption: str


@dataclass(frozen=True)
class Illustration:
    """The pictures of a page, none to three, and what must be known about them.

    Attributes:
        panels: from sound to marked.
        note: where they come from, or why there are none.
    """

    panels: tuple[Panel, ...]
    note: str


def illustrate(document: KnowledgeDocument, picture: PagePicture | None = None) -> Illustration:
    """The pictures of a page: its own, its drawing, or the drawing of the general type it stands for.

    The drawing is variant 0 at the size at which it is embedded. A picture that cannot be read leaves a note in its
    place, since the words of the page are of use without it.

    Args:
        document: the page.
        picture: the page's own; None when it has none.
    """
    if isinstance(picture, Attachment):
        return _attached(document, picture)
    if picture is not None:
        return _photographed(document, picture)
    if document.drawing in DRAWN_TYPES:
        return Illustration(_drawn(document.drawing), "Drawn example; no photograph.")
    if document.page_image is not None:
        return Illustration((), f"The picture {printable(document.page_image)} is not at hand.")
    general = document.canonical_type
    if general in DRAWN_TYPES:
        note = f"No picture of its own. Drawn example of {words(general)} on any material, not on this product."
        return Illustration(_drawn(general), note)
    return Illustration((), "No picture yet.")


def _drawn(name: str) -> tuple[Panel, ...]:
    drawn = draw_defect(name, size=PICTURE_SIDE_PX)
    marked = mark_defect(drawn.image, drawn.mask)
    kind = words(name)
    return Panel(drawn.clean, "Sound"), Panel(drawn.image, f"With {kind}"), Panel(marked, f"The {kind}, marked")


def _photographed(document: KnowledgeDocument, picture: Path) -> Illustration:
    try:
        photo = load_image(picture).rgb
    except InputError as error:
        return Illustration((), f"The picture cannot be shown. {printable(error.message)}")
    small = Image.fromarray(photo)
    small.thumbnail((PHOTO_SIDE_PX, PHOTO_SIDE_PX), Image.Resampling.LANCZOS)
    rgb = np.asarray(small)
    kind = "defect" if document.defect_type == UNKNOWN else words(document.defect_type)
    caption = "Sound" if document.defect_type == GOOD else f"With {kind}"
    panels = [Panel(rgb, caption)]
    if isinstance(document, PlantPage) and document.box is not None:
        scale_x, scale_y = rgb.shape[1] / photo.shape[1], rgb.shape[0] / photo.shape[0]
        x0, y0, x1, y1 = document.box
        mask = np.zeros(rgb.shape[:2], bool)
        top, left = int(y0 * scale_y), int(x0 * scale_x)
        mask[top : max(top + 1, round(y1 * scale_y)), left : max(left + 1, round(x1 * scale_x))] = True
        panels.append(Panel(mark_defect(rgb, mask), f"The {kind}, marked"))
    return Illustration(tuple(panels), "Photograph from the plant." if isinstance(document, PlantPage) else "")


def _attached(document: KnowledgeDocument, picture: Attachment) -> Illustration:
    record, kind = picture.record, words(document.defect_type)
    note = (
        f"Photograph from your data set {printable(record.dataset)}: {printable(record.source)}."
        f" Licence: {printable(record.licence)}. Not part of Flawscope."
    )
    try:
        check(picture)
        rgb = load_image(picture.picture).rgb
        mask = read_marked(picture)
        crop = load_image(picture.crop).rgb if picture.crop is not None else None
    except (InputError, KnowledgeError) as error:
        return Illustration((), f"The picture cannot be shown. {printable(error.message)}")
    if document.defect_type == GOOD:
        return Illustration((Panel(rgb, "Sound"),), note)
    panels = [Panel(rgb, f"With {kind}")]
    if mask is not None:
        panels.append(Panel(mark_defect(rgb, mask), f"The {kind}, marked"))
    if crop is not None:
        panels.append(Panel(crop, f"The {kind}, close up"))
    return Illustration(tuple(panels), note)


def mark_defect(rgb: Picture, mask: NDArray[np.bool_]) -> Picture:
    """A picture with a line around its defect, which stays uncovered.

    Args:
        rgb: uint8 (H, W, 3).
        mask: bool (H, W), where the defect is.

    Returns:
        uint8 (H, W, 3); no line where it would lie outside the picture, as around a fault of the whole part.
    """
    from scipy.ndimage import distance_transform_edt

    marked = rgb.copy()
    if not mask.any() or mask.all():
        return marked
    near = distance_transform_edt(~mask) <= _REACH_PX
    # Grown by the reach and taken back but for the gap: many small places become one with a line around it.
    depth = distance_transform_edt(near) if not near.all() else np.full(mask.shape, np.inf)
    outer = _REACH_PX - _GAP_PX - _LINE_PX
    marked[(depth > outer - 1) & (depth <= outer + _LINE_PX + 1)] = _LINE_EDGE
    marked[(depth > outer) & (depth <= outer + _LINE_PX)] = _LINE
    return marked
