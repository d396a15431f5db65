"""The inspection graph's state: plain data only, so that any checkpointer can store it.

Arrays (the picture, its features, the anomaly map) are in the artifact store; the state holds their references.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

# Not typing's own: pydantic makes JSON Schemas of those (a graph server asks for them) from Python 3.12 on only.
from typing_extensions import TypedDict

Action = Literal["zoom", "reference", "self_consistency", "more_docs", "refute", "latent"]


def merge(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Later rounds replace what has the same key and add the rest."""
    return {**left, **right}


def append(left: list[Any], right: list[Any]) -> list[Any]:
    """Later rounds add to the list."""
    return left + right


def first(left: dict[str, Any] | None, right: dict[str, Any] | None) -> dict[str, Any] | None:
    """The first failure stands, also when both parallel paths fail in one step."""
    return left or right


class InspectionInput(TypedDict):
    """What a caller sends.

    Attributes:
        image: path of the picture.
        product: enrolled product, None when there is none.
        instruction: what the engineer asks, may be empty.
    """

    image: str
    product: NotRequired[str | None]
    instruction: NotRequired[str]


class InspectionState(InspectionInput):
    """Everything a run knows.

    Attributes:
        picture: sha256, size_px, flags and the artifact reference ``rgb``.
        features: artifact references ``tokens/0`` ... and the grid; ``key``, the image part, once retrieval made it.
        expert: references ``anomaly_map`` and ``patch_scores``, regions as dicts, threshold and basis.
        scores: raw image score per view; a new view is new evidence.
        documents: what was retrieved, by evidence id.
        defect_type: the type comparison's answer.
        evidence: by id.
        draft: the reasoner's latest answer, verified.
        decision: score, threshold, probability and basis from all views so far.
        entropy: decision entropy of the latest round, None when uncalibrated.
        entropy_source: where it comes from.
        doubt: P(correct) of that round by a calibrator and up to which doubt it stands; empty without one.
        answer: what a model's latest answer tells beyond its words: parts of the entropy, usage, log-probabilities.
        again: what a model said when it was asked again: ``samples`` and ``permuted``; empty when it was not.
        problems: what could not be used of it, and what the verifier found.
        done: actions taken, each at most once.
        trace: one entry per step.
        started: time.time() of the start.
        fatal: whether they refuted the verdict.
        category: the kind of part that the reasoner was told of, and who says so.
        gate: what of the expert's map a model was told; empty for reasoners that look at no pictures.
        refutation: what came of explaining the suspicion away.
        human: a person's decision.
        error: set by the first failure; every later step then passes through.
        report: the finished report.
    """

    picture: NotRequired[dict[str, Any]]
    features: NotRequired[dict[str, Any]]
    expert: NotRequired[dict[str, Any]]
    scores: Annotated[dict[str, float], merge]
    documents: Annotated[dict[str, Any], merge]
    defect_type: NotRequired[dict[str, Any] | None]
    evidence: Annotated[dict[str, Any], merge]
    draft: NotRequired[dict[str, Any]]
    decision: NotRequired[dict[str, Any]]
    entropy: NotRequired[float | None]
    entropy_source: NotRequired[str]
    doubt: NotRequired[dict[str, Any]]
    answer: NotRequired[dict[str, Any]]
    again: NotRequired[dict[str, list[str | None]]]
    problems: NotRequired[list[str]]
    fatal: NotRequired[bool]
    done: Annotated[list[str], append]
    trace: Annotated[list[dict[str, Any]], append]
    started: NotRequired[float]
    category: NotRequired[dict[str, Any]]
    gate: NotRequired[dict[str, Any]]
    refutation: NotRequired[dict[str, Any] | None]
    human: NotRequired[dict[str, Any] | None]
    error: Annotated[dict[str, Any] | None, first]
    report: NotRequired[dict[str, Any]]


class InspectionOutput(TypedDict):
    """What a caller gets: the report as plain data (``InspectionReport.model_validate`` reads it)."""

    report: dict[str, Any]
