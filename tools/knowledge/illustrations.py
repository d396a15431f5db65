"""The pictures of a page: the sound surface, the defect, and the defect with a line around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ...agent.errors import InputError
from ..imaging import load_image
from .builder import PICTURE_SIDE_PX
from .drawings import DRAWN_TYPES, draw_defect
from .schema import GOOD, KnowledgeDocument
from .sections import printable, words

Picture = NDArray[np.uint8]
_GAP_PX, _LINE_PX = 5, 3
"""Between the defect and the line around it, so that its edge can be seen, and the line's own width."""
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


def illustrate(document: KnowledgeDocument, folder: Path | None = None) -> Illustration:
    """The pictures of a page: its drawing, its own picture, or the drawing of the general type it stands for.

    The drawing is variant 0 at the size at which it is embedded. A picture that cannot be read leaves a note in its
    place, since the words of the page are of use without it.

    Args:
        document: the page.
        folder: what the path of the page's own picture is relative to; None when there is none.
    """
    if document.drawing in DRAWN_TYPES:
        return Illustration(_drawn(document.drawing), "Drawn example; no photograph.")
    if document.page_image is not None and document.drawing is None:
        return _photographed(document, folder)
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


def _photographed(document: KnowledgeDocument, folder: Path | None) -> Illustration:
    name = printable(document.page_image or "")
    if folder is None:
        return Illustration((), f"The picture {name} is not at hand.")
    try:
        rgb = load_image(folder / (document.page_image or "")).rgb
    except InputError as error:
        return Illustration((), f"The picture {name} cannot be shown. {printable(error.message)}")
    caption = "Sound" if document.defect_type == GOOD else f"With {words(document.defect_type)}"
    return Illustration((Panel(rgb, caption),), "")


def mark_defect(rgb: Picture, mask: NDArray[np.bool_]) -> Picture:
    """A picture with a line around its defect, which stays uncovered.

    Args:
        rgb: uint8 (H, W, 3).
        mask: bool (H, W), where the defect is.

    Returns:
        uint8 (H, W, 3); the line is left out where it would lie outside the picture.
    """
    from scipy.ndimage import distance_transform_edt

    away = distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    marked = rgb.copy()
    marked[(away > _GAP_PX) & (away <= _GAP_PX + _LINE_PX + 1)] = _LINE_EDGE
    marked[(away > _GAP_PX) & (away <= _GAP_PX + _LINE_PX)] = _LINE
    return marked
