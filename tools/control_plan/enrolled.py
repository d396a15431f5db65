"""Whether a product was enrolled with the regions that its control plan states now."""

from __future__ import annotations

from collections.abc import Sequence

from ...agent.errors import ProductError
from ..ad_expert.expert import ExpertConfig
from .schema import ProductPlan


def refuse_other_regions(plan: ProductPlan, config: ExpertConfig) -> None:
    """A threshold that was learnt with other regions says nothing about these.

    Raises:
        ProductError: the regions differ.
    """
    if _differ(plan.ignored_shares(), config.ignored) or _differ(plan.inspected_shares(), config.inspected):
        raise ProductError(
            f"the control plan of {plan.product!r} states other regions than it was enrolled with.",
            hint=f"Enrol it again: flawscope enroll {plan.product} good/*.jpg --replace",
        )


def _differ(planned: Sequence[Sequence[float]], enrolled: Sequence[Sequence[float]]) -> bool:
    return [list(box) for box in planned] != [list(box) for box in enrolled]
