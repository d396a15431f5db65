"""Logical checks, template comparison and measurement as tools of an agent; boxes: pixels of the original picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ...agent.errors import InputError, ProductError
from ..calls import Image, Product, Record, _look

if TYPE_CHECKING:
    from ...agent.inspector import InspectionDeps, Inspector
    from ..product_model import ProductModel
    from .checks import LogicModel


def logic_of(product: ProductModel, deps: InspectionDeps) -> LogicModel:
    """What the product's good parts hold; learnt from its stored tokens on first use.

    Raises:
        ProductError: too few references.
    """
    import numpy as np

    from .checks import fit_logic

    if product.fingerprint not in deps.logic:
        stored = [product.reference_tokens[owner] for owner in sorted(product.reference_tokens)]
        tokens = [rows.astype(np.float32) for rows, _ in stored]
        deps.logic[product.fingerprint] = fit_logic(tokens, [grid for _, grid in stored])
    return deps.logic[product.fingerprint]


def compare_with_template(
    inspector: Inspector,
    image: Image,
    product: Product = None,
    template: Annotated[
        str | None,
        Field(description="path of a picture of a defect-free part in the same pose; the first good reference if left"),
    ] = None,
) -> Record:
    """Missing and extra material against a template.

    Raises:
        FlawscopeError: a picture cannot be read, or the two cannot be aligned.
    """
    from .. import template as templates
    from ..imaging import load_image

    nodes, state = _look(inspector, image, product, ())
    known = inspector.deps.product(product)
    assert known is not None  # noqa: S101  # _look refuses to go on without a product
    good = load_image(template or known.reference_files[0], max_pixels=inspector.deps.settings.max_pixels)
    found = templates.compare_with_template(templates.grey_of(good.rgb), templates.grey_of(nodes._rgb(state)))
    scale, regions = state["picture"]["scale"], []
    for number, region in enumerate(found.regions, start=1):
        box = [round(v / scale[i % 2]) for i, v in enumerate(region.box)]
        regions.append({"id": f"X{number}", "box": box, "kind": region.kind, "area_px": region.area_px})
    return {
        "note": f"{len(regions)} places differ from the template.",
        "regions": regions,
        "score": found.score,
        "correlation": found.registration.correlation,
        "turn_deg": found.registration.turn_deg,
        "shift_px": list(found.registration.shift_px),
    }


def check_parts(inspector: Inspector, image: Image, product: Product = None) -> Record:
    """Count, presence and arrangement of parts; a score above 1 is more than any good reference deviates.

    Raises:
        FlawscopeError: the picture, the product or the weights cannot be used.
    """
    from ..ad_expert.expert import expert_tokens

    nodes, state = _look(inspector, image, product, ("encode",))
    known = inspector.deps.product(product)
    assert known is not None  # noqa: S101  # _look refuses to go on without a product
    features: Any = nodes._features(state)
    found = logic_of(known, inspector.deps).check(expert_tokens(features), features.grid)
    return {
        "checks": [
            {"check": f.check, "score": f.score, "beyond_good_parts": f.score > 1.0, "note": f.text} for f in found
        ]
    }


def measure_region(
    inspector: Inspector,
    image: Image,
    product: Product = None,
    box: Annotated[
        list[int] | None,
        Field(min_length=4, max_length=4, description="x0, y0, x1, y1, picture pixels; the whole picture if left out"),
    ] = None,
    scale_px_per_mm: Annotated[
        float | None, Field(gt=0, description="pixels a millimetre; the product's control plan states it if left out")
    ] = None,
) -> Record:
    """Width, height and diagonal of a box in millimetres.

    Raises:
        ProductError: neither the call nor the product's control plan states a scale.
        InputError: the box is none, or leaves the picture.
    """
    from ..measurement import measure_box

    _, state = _look(inspector, image, product, ())
    width, height = state["picture"]["original_size_px"]
    x0, y0, x1, y1 = box or (0, 0, width, height)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(f"the box {[x0, y0, x1, y1]} is none in a picture of {width} x {height} px.")
    planned = inspector.deps.plan(product)
    scale, doubt = scale_px_per_mm, None
    if scale is None and planned is not None:
        scale, doubt = planned[0].scale_px_per_mm, planned[0].scale_uncertainty
    if scale is None:
        raise ProductError("the scale of the picture is not known.", hint="State scale_px_per_mm in the control plan.")
    found = measure_box((x0, y0, x1, y1), scale, scale_uncertainty=doubt)
    named = {"width": found.width, "height": found.height, "diagonal": found.diagonal}
    return {
        "note": ", ".join(f"{name} {length}" for name, length in named.items()),
        **{f"{name}_mm": length.mm for name, length in named.items()},
        **{f"{name}_expanded_uncertainty_mm": length.expanded_mm for name, length in named.items()},
    }
