"""Look at an inspected picture again: magnify a region, or lay it beside the most similar good reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import InputError, ProductError
from .home import write_atomically
from .reasoner.evidence import number
from .schemas import InspectionReport, Region

if TYPE_CHECKING:
    from ..tools.imaging import LoadedImage
    from ..tools.product_model import ProductModel
    from .inspector import InspectionDeps

PANEL_PX = 420


@dataclass(frozen=True)
class Look:
    """What was seen: a sentence and the path of a picture."""

    text: str
    picture: str


def reload_picture(report: InspectionReport, deps: InspectionDeps) -> tuple[LoadedImage, ProductModel | None]:
    """The picture again, and its product where there is one.

    Raises:
        InputError: the file is gone or no longer the one that was inspected.
        ProductError: the product is unknown or damaged.
    """
    from ..tools.imaging import load_image

    product = deps.product(report.product)
    value_range = product.value_range if product else None
    picture = load_image(report.image, value_range=value_range, max_pixels=deps.settings.max_pixels)
    if picture.sha256 != report.sha256:
        raise InputError(f"{report.image} has changed since it was inspected.", hint="Inspect it again.")
    return picture, product


def _reload(report: InspectionReport, deps: InspectionDeps) -> tuple[LoadedImage, ProductModel]:
    """The picture and its product again.

    Raises:
        InputError: the file is gone or no longer the one that was inspected.
        ProductError: there are no references to look with.
    """
    if deps.product(report.product) is None:
        raise ProductError("there are no good references to compare with.")
    picture, product = reload_picture(report, deps)
    assert product is not None  # noqa: S101  # asked for above
    return picture, product


def _shown(region: Region, picture: LoadedImage) -> tuple[int, int, int, int]:
    """A region's box in the pixels that are looked at: tiny pictures are enlarged before inspection."""
    x0, y0, x1, y1 = region.box
    sx, sy = picture.meta.scale_x, picture.meta.scale_y
    return round(x0 * sx), round(y0 * sy), round(x1 * sx), round(y1 * sy)


def _save(deps: InspectionDeps, name: str, panels: list[NDArray[np.uint8]]) -> str:
    """Panels side by side as a PNG under the artifacts."""
    sized = []
    for panel in panels:
        picture = Image.fromarray(panel)
        picture = picture.resize(
            (max(1, round(picture.width * PANEL_PX / picture.height)), PANEL_PX), Image.Resampling.BICUBIC
        )
        sized.append(np.asarray(picture))
        sized.append(np.full((PANEL_PX, 6, 3), 255, np.uint8))
    path = deps.home.artifacts / "looks" / f"{name}.png"
    joined = Image.fromarray(np.concatenate(sized[:-1], axis=1))
    write_atomically(path, lambda temporary: joined.save(temporary, format="PNG"))
    return str(path)


def zoom_into(report: InspectionReport, deps: InspectionDeps, region: Region) -> Look:
    """Inspect one region at twice the resolution.

    Args:
        report: the inspection.
        deps: for the product.
        region: of the report.
    """
    from ..tools import views

    picture, product = _reload(report, deps)
    rgb = picture.rgb
    x0, y0, x1, y1 = _shown(region, picture)
    centre = ((x0 + x1) // 2, (y0 + y1) // 2)
    bx0, by0, bx1, by1 = views.window_around((rgb.shape[0], rgb.shape[1]), centre)
    path = _save(deps, f"{(report.sha256 or 'picture')[:12]}-{region.id}-zoom", [rgb, rgb[by0:by1, bx0:bx1]])
    if product.fine is None:
        text = f"{region.id} magnified. There are no more pixels than the first look used; it was not scored again."
        return Look(text, path)
    seen = views.zoom(product, rgb, None, centre)
    return Look(f"{region.id} at twice the resolution: {seen.note}", path)


def compare_with_reference(report: InspectionReport, deps: InspectionDeps) -> Look:
    """Lay the picture beside the good reference that it resembles most."""
    from ..tools import views
    from ..tools.imaging import load_image

    picture, product = _reload(report, deps)
    rgb = picture.rgb
    features = views.encode(deps.backbone, product, rgb)
    seen = views.reference(product, rgb, features, None)
    name = str(seen.values["reference"])
    reference = load_image(Path(product.reference_path(name)), value_range=product.value_range)
    panels = [rgb, reference.rgb]
    if report.regions:
        panels[0] = _marked(rgb, _shown(report.regions[0], picture))
    path = _save(deps, f"{(report.sha256 or 'picture')[:12]}-reference", panels)
    return Look(f"The most similar good reference is {name}. {seen.note} (deviation {number(seen.score)})", path)


def _marked(rgb: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    from PIL import ImageDraw

    picture = Image.fromarray(rgb)
    x0, y0, x1, y1 = box
    ImageDraw.Draw(picture).rectangle(
        [x0, y0, x1 - 1, y1 - 1], outline=(220, 40, 40), width=max(2, min(picture.size) // 150)
    )
    return np.asarray(picture)
