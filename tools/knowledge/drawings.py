"""Example pictures of every general defect type, drawn by the project itself.

Each drawing comes as a pair with the same piece of material before the damage, so that it serves as the page image
of a knowledge document, as a key for features of the defect alone, and as a test image with an exact mask.
The pictures are plausible, not photographs: take them as a last resort where no real example exists.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import KnowledgeError
from . import drawings_boards as boards
from . import drawings_parts as parts
from . import drawings_rupture as rupture
from . import drawings_surface as surface
from .drawings_base import Picture
from .drawings_materials import (
    Material,
    asphalt,
    brushed_metal,
    cast_metal,
    ceramic,
    cloth,
    dark_plastic,
    ground_face,
    leather,
    light_plastic,
    painted,
    solar_cell,
    strip_steel,
)

_MEANINGFUL_LEVELS = 10  # of 255: less than this is within the grain of the materials


class DefectDrawing(NamedTuple):
    """A defective surface, where it is defective, and the same surface without the defect.

    Attributes:
        image: (S, S, 3) uint8, sRGB.
        mask: (S, S) bool, where image and clean differ visibly, small gaps closed.
        clean: (S, S, 3) uint8, the same material, light and noise.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    clean: NDArray[np.uint8]


SurfacePainter = Callable[[np.random.Generator, Picture], Picture]
PartPainter = Callable[[np.random.Generator, int, int], tuple[Picture, Picture]]

_ON_SURFACE: dict[str, tuple[SurfacePainter, tuple[Material, ...]]] = {
    "scratch": (surface.scratch, (brushed_metal, painted, dark_plastic, ground_face)),
    "dent": (surface.dent, (brushed_metal, painted, strip_steel)),
    "pitting": (surface.pitting, (strip_steel, brushed_metal, ground_face)),
    "stain": (surface.stain, (cloth, light_plastic, brushed_metal, leather)),
    "contamination": (surface.contamination, (ceramic, painted, brushed_metal)),
    "corrosion": (surface.corrosion, (brushed_metal, strip_steel, cast_metal)),
    "discolouration": (surface.discolouration, (light_plastic, cloth, ceramic)),
    "wear": (surface.wear, (leather, cloth, ground_face, dark_plastic)),
    "uneven_surface": (surface.uneven_surface, (ground_face, strip_steel, brushed_metal)),
    "patches": (surface.patches, (strip_steel, brushed_metal, cast_metal)),
    "colour_spot": (surface.colour_spot, (leather, cloth, ceramic)),
    "burn": (surface.burn, (light_plastic, cloth, brushed_metal)),
    "inclusion": (surface.inclusion, (strip_steel, ground_face, ceramic)),
    "rolled_in_scale": (surface.rolled_in_scale, (strip_steel, ground_face, cast_metal)),
    "porosity": (surface.porosity, (ground_face, brushed_metal, cast_metal)),
    "bubble": (surface.bubble, (painted, light_plastic, dark_plastic)),
    "glue_residue": (surface.glue_residue, (leather, cloth, light_plastic)),
    "paint_run": (surface.paint_run, (painted, painted, light_plastic)),
    "crack": (rupture.crack, (ground_face, ceramic, asphalt, cast_metal)),
    "crazing": (rupture.crazing, (ceramic, strip_steel, painted)),
    "hole": (rupture.hole, (brushed_metal, cloth, leather, light_plastic)),
    "poke": (rupture.poke, (leather, light_plastic, cloth)),
    "cut": (rupture.cut, (leather, dark_plastic, cloth)),
    "fold": (rupture.fold, (leather, cloth, light_plastic)),
    "wrinkle": (rupture.wrinkle, (painted, light_plastic, brushed_metal)),
    "delamination": (rupture.delamination, (painted, light_plastic, dark_plastic)),
    "inactive_area": (rupture.inactive_area, (solar_cell, solar_cell, solar_cell)),
}

_OF_PARTS: dict[str, PartPainter] = {
    "chip": parts.chip,
    "broken": parts.broken,
    "burr": parts.burr,
    "deformation": parts.deformation,
    "swelling": parts.swelling,
    "missing_part": parts.missing_part,
    "misplacement": parts.misplacement,
    "bent": parts.bent,
    "foreign_object": parts.foreign_object,
    "short_circuit": boards.short_circuit,
    "open_circuit": boards.open_circuit,
    "mouse_bite": boards.mouse_bite,
    "spur": boards.spur,
    "spurious_copper": boards.spurious_copper,
    "pinhole": boards.pinhole,
    "cold_solder": boards.cold_solder,
    "print_error": boards.print_error,
    "thread_pull": boards.thread_pull,
    "broken_yarn": boards.broken_yarn,
    "weave_fault": boards.weave_fault,
    "texture_change": boards.texture_change,
}

DRAWN_TYPES: tuple[str, ...] = tuple(sorted({**_ON_SURFACE, **_OF_PARTS}))


def draw_defect(defect_type: str, *, variant: int = 0, size: int = 320) -> DefectDrawing:
    """Draw a general defect type; equal arguments give equal pixels.

    Args:
        defect_type: one of `DRAWN_TYPES`.
        variant: which example; material, place and form differ from one to the next.
        size: side of the square picture in pixels, at least 64.

    Raises:
        KnowledgeError: no drawing of that type exists.
        ValueError: the variant is negative or the size too small to show anything.
    """
    if size < 64 or variant < 0:
        raise ValueError(f"size {size} must be at least 64 and variant {variant} not negative")
    # crc32, since the built-in hash of a string differs from process to process
    rng = np.random.default_rng([zlib.crc32(defect_type.encode()), variant])
    if defect_type in _ON_SURFACE:
        painter, materials = _ON_SURFACE[defect_type]
        clean = materials[variant % len(materials)](rng, size)
        image = painter(rng, clean)
    elif defect_type in _OF_PARTS:
        clean, image = _OF_PARTS[defect_type](rng, size, variant)
    else:
        raise KnowledgeError(f"No drawing of '{defect_type}'.", hint=f"Drawn types: {', '.join(DRAWN_TYPES)}.")
    image_levels, clean_levels = _levels(image), _levels(clean)
    return DefectDrawing(image_levels, _visible_difference(image_levels, clean_levels), clean_levels)


def _levels(picture: Picture) -> NDArray[np.uint8]:
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _visible_difference(image: NDArray[np.uint8], clean: NDArray[np.uint8]) -> NDArray[np.bool_]:
    difference = np.abs(image.astype(np.int16) - clean.astype(np.int16)).max(axis=2) > _MEANINGFUL_LEVELS
    return ~_dilated(~_dilated(difference, 2), 2)


def _dilated(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Grow a mask by ``reach`` pixels to all sides; what lies beyond the border counts as empty."""
    padded = np.pad(mask, reach)
    height, width = mask.shape
    wide = np.zeros((height + 2 * reach, width), dtype=bool)
    for shift in range(2 * reach + 1):
        wide |= padded[:, shift : shift + width]
    grown = np.zeros_like(mask)
    for shift in range(2 * reach + 1):
        grown |= wide[shift : shift + height]
    return grown
