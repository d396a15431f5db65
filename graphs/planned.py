"""What a product's control plan adds to an inspection; a product without one pays nothing and reports as before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..agent.reasoner.evidence import number, words
from ..agent.schemas import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..agent.inspector import InspectionDeps
    from ..tools.backbones import VisualFeatures
    from ..tools.product_model import ProductModel
    from .state import InspectionState

PLAN_ID = "P1"
TRAITS_ID = "P2"


@dataclass(frozen=True)
class PlannedAction:
    """What the plan says is to be done.

    Attributes:
        evidence: the plan's own entry, by id.
        claim: the sentence and what it cites.
    """

    evidence: dict[str, Any]
    claim: dict[str, Any]


def planned_evidence(
    features: VisualFeatures,
    rgb: NDArray[np.uint8],
    regions: Sequence[dict[str, Any]],
    product: ProductModel,
    deps: InspectionDeps,
) -> dict[str, Any]:
    """What the product's plan calls normal (P2), and evidence of its tools: L… checks, X… template, W… measurements.

    Args:
        features: of the picture.
        rgb: uint8 (H, W, 3).
        regions: as they will be reported, px of the original picture.
        product: that it is compared with.
        deps: for the plan.

    Raises:
        FlawscopeError: a tool cannot work on this picture or product.
    """
    planned = deps.plan(product.name)
    if planned is None:
        return {}
    plan, version = planned
    found: dict[str, Any] = {}
    if plan.normal_traits:
        text = "The control plan calls normal: " + " ".join(f"{trait.rstrip('.')}." for trait in plan.normal_traits)
        values = {"version": version.version, "traits": len(plan.normal_traits)}
        found |= _item(TRAITS_ID, text, f"control plan, version {version.version}", values, kind="plan")
    asked = [tool for tool in ("count", "presence", "arrangement") if tool in plan.tools]
    if asked:
        found |= _logic(features, asked, product, deps)
    if "template" in plan.tools:
        found |= _template(rgb, product, deps.settings.max_pixels)
    if "measurement" in plan.tools and plan.scale_px_per_mm is not None:
        from ..tools.measurement import measure_box

        for region in regions:
            x0, y0, x1, y1 = region["box"]
            size = measure_box((x0, y0, x1, y1), plan.scale_px_per_mm, scale_uncertainty=plan.scale_uncertainty)
            text = f"{region['id']} measures {size.width} by {size.height}, from the edges of its box."
            size_mm = {"width_mm": size.width.mm, "height_mm": size.height.mm, "region": region["id"]}
            found |= _item(f"W{region['id'][1:]}", text, "measurement", size_mm)
    return found


def _logic(
    features: VisualFeatures, asked: Sequence[Any], product: ProductModel, deps: InspectionDeps
) -> dict[str, Any]:
    from ..tools.ad_expert.expert import expert_tokens
    from ..tools.logic.calls import logic_of

    found: dict[str, Any] = {}
    checked = logic_of(product, deps).check(expert_tokens(features), features.grid, asked)
    for index, finding in enumerate(checked, start=1):
        beyond = finding.score > 1.0
        against = "more than" if beyond else "no more than"
        text = f"Check of {finding.check}: {finding.text} Deviation {number(finding.score)}, {against} good references."
        values = {**finding.values, "check": finding.check, "score": finding.score, "beyond": beyond}
        found |= _item(f"L{index}", text, "logic", values)
    return found


def _template(rgb: NDArray[np.uint8], product: ProductModel, max_pixels: int) -> dict[str, Any]:
    """The first reference is the template: the plan's tools say that this product must match it."""
    from ..tools.template import compare_with_template, grey_of

    seen = compare_with_template(grey_of(product.reference_picture(0, max_pixels)), grey_of(rgb))
    kinds = [region.kind for region in seen.regions]
    text = (
        f"Against the template {product.reference_names[0]}: {kinds.count('missing')} places with missing and "
        f"{kinds.count('extra')} with extra material."
    )
    values = {"missing": kinds.count("missing"), "extra": kinds.count("extra"), "beyond": bool(kinds)}
    return _item("X1", text, "template", {**values, "correlation": seen.registration.correlation})


def _item(
    item_id: str, text: str, source: str, values: dict[str, Any], *, kind: Literal["check", "plan"] = "check"
) -> dict[str, Any]:
    item = Evidence(id=item_id, kind=kind, text=text[:2000], source=source, values=values)
    return {item.id: item.model_dump(mode="json")}


def failed_checks(evidence: dict[str, Any]) -> dict[str, Any]:
    """The claim that planned checks speak against an OK; empty when none does."""
    failed = [item for item in evidence.values() if item["kind"] == "check" and item["values"].get("beyond")]
    if not failed:
        return {}
    text = "A check of the control plan speaks against OK: " + " ".join(item["text"] for item in failed)
    return {"field": "verdict", "text": text[:2000], "evidence_ids": [item["id"] for item in failed]}


def planned_action(state: InspectionState, said: dict[str, Any], deps: InspectionDeps) -> PlannedAction | None:
    """What the plan says is done with a bad part; None where it says nothing.

    Args:
        state: for the product.
        said: the words of the report, for the named type.
        deps: for the plan.
    """
    planned = deps.plan(state.get("product"))
    if planned is None:
        return None
    plan, version = planned
    named = (said.get("defect_type") or state.get("defect_type") or {}).get("name")
    what = plan.consequence_of(named)
    parts = []
    if what.severity is not None:
        parts.append(f"severity {what.severity}")
    if what.disposition is not None:
        parts.append(f"disposition: {what.disposition}")
    if what.reaction_plan is not None:
        parts.append(f"reaction: {what.reaction_plan.rstrip('.')}")
    if not parts:
        return None
    of = f" for {words(named)}" if named and named != "unknown" else ""
    text = f"The control plan says{of}: {'; '.join(parts)}."
    values = {"severity": what.severity, "disposition": what.disposition, "version": version.version}
    item = _item(PLAN_ID, text, f"control plan, version {version.version}", values, kind="plan")
    claim = {"field": "action", "text": text, "evidence_ids": [PLAN_ID]}
    return PlannedAction(item, claim)
