"""What becomes of a part: change these rules to your plant's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHOICES = ("ship", "rework", "scrap", "use as is", "hold")


@dataclass(frozen=True)
class Rule:
    """What is done with a bad part.

    Attributes:
        at_least: severity of the control plan, 1 to 10, from which on the rule holds.
        do: one of CHOICES, unless the control plan names a disposition itself.
        ask: whether a person confirms it.
    """

    at_least: int
    do: str
    ask: bool


RULES: dict[str, tuple[Rule, ...]] = {
    "": (Rule(9, "scrap", ask=True), Rule(4, "rework", ask=False), Rule(1, "use as is", ask=True)),
    "textile": (Rule(7, "scrap", ask=False), Rule(1, "rework", ask=False)),  # cheap by the metre: nobody is asked
}
"""By product, most severe first; the empty name is for the others."""


def disposition_of(report: dict[str, Any], rules: dict[str, tuple[Rule, ...]]) -> dict[str, Any]:
    """Where a part goes by its report, with the reason, and whether a person is asked."""
    if report["verdict"] == "OK":
        return {"do": "ship", "severity": None, "why": "no defect found", "ask": False}
    if report["verdict"] == "REVIEW":
        return {"do": "hold", "severity": None, "why": report["verdict_reason"] or "in doubt", "ask": True}
    planned = next((item["values"] for item in report["evidence"] if item["kind"] == "plan"), {})
    severity, planned_do = planned.get("severity"), planned.get("disposition")
    if not isinstance(severity, int):
        why = "the control plan gives this defect no severity in numbers"
        return {"do": planned_do or "hold", "severity": severity, "why": why, "ask": True}
    why = f"severity {severity} of the control plan, version {planned['version']}"
    for rule in rules.get(report["product"] or "", rules[""]):
        if severity >= rule.at_least:
            return {"do": planned_do or rule.do, "severity": severity, "why": why, "ask": rule.ask}
    return {"do": planned_do or "hold", "severity": severity, "why": f"{why}, for which there is no rule", "ask": True}
