"""What every registered reasoner must do with thin, full and closing evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flawscope.agent.reasoner import REASONERS, DraftReport, EvidenceBundle, Reasoner, load_reasoner
from flawscope.agent.schemas import Evidence, Region, Verdict
from flawscope.agent.settings import load_settings
from flawscope.agent.verifier import verify

NOTHING = EvidenceBundle(product=None, image_score=None, threshold=None, probability=None, calibrated=False)
FULL = EvidenceBundle(
    product="plate",
    image_score=3.0,
    threshold=2.0,
    probability=0.9,
    calibrated=True,
    regions=(Region(id="R1", box=(1, 2, 30, 40), area_px=200, peak=0.8, place="upper left"),),
    items=(
        Evidence(id="M1", kind="measurement", text="", values={"score": 3.0, "threshold": 2.0}),
        Evidence(id="R1", kind="region", text="", values={"x0": 1, "y0": 2, "x1": 30, "y1": 40, "area_px": 200}),
    ),
)


@pytest.fixture(params=["evidence"])
def reasoner(request: pytest.FixtureRequest) -> Reasoner:
    """Those that need no server and no weights."""
    return load_reasoner(load_settings({"reasoner": request.param}))


def test_it_is_one_and_knows_its_name(reasoner: Reasoner) -> None:
    assert isinstance(reasoner, Reasoner)
    assert REASONERS[reasoner.name]


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("bundle", [NOTHING, FULL], ids=["nothing", "full"])
def test_its_answer_stands_up_to_the_verifier(reasoner: Reasoner, bundle: EvidenceBundle, final: bool) -> None:
    given = replace(bundle, final=final)
    reply = reasoner.reason(given, [], DraftReport)
    assert verify(reply.draft, given).problems == ()
    assert reply.entropy is None or 0.0 <= reply.entropy <= 1.0
    assert reply.entropy_source


def test_without_evidence_it_judges_nothing_and_knows_no_entropy(reasoner: Reasoner) -> None:
    reply = reasoner.reason(NOTHING, [], DraftReport)
    assert reply.draft.verdict is Verdict.REVIEW
    assert reply.entropy is None


def test_the_same_evidence_gives_the_same_answer(reasoner: Reasoner) -> None:
    assert reasoner.reason(FULL, [], DraftReport).draft == reasoner.reason(FULL, [], DraftReport).draft
