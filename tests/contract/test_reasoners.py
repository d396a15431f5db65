"""What every registered reasoner must do with thin, full and closing evidence."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flawscope.agent.errors import ConfigError
from flawscope.agent.reasoner import REASONERS, DraftReport, EvidenceBundle, Reasoner, load_reasoner
from flawscope.agent.schemas import Evidence, Region, Verdict
from flawscope.agent.settings import load_settings
from flawscope.agent.verifier import verify
from flawscope.agent.vision_language import Generated, LetterAnswer, Message
from flawscope.agent.vision_language.loading import MODELS

NOTHING = EvidenceBundle(product=None, image_score=None, threshold=None, probability=None, calibrated=False)
FULL = EvidenceBundle(
    product="plate",
    image_score=3.0,
    threshold=2.0,
    probability=0.9,
    calibrated=True,
    percentile=0.99,
    regions=(Region(id="R1", box=(1, 2, 30, 40), area_px=200, peak=0.8, place="upper left"),),
    items=(
        Evidence(id="M1", kind="measurement", text="", values={"score": 3.0, "threshold": 2.0}),
        Evidence(id="R1", kind="region", text="", values={"x0": 1, "y0": 2, "x1": 30, "y1": 40, "area_px": 200}),
    ),
)


class Composed:
    """A model that reads the score out of its prompt and answers as it was told to."""

    name = "composed"

    def generate(self, messages: Sequence[Message], **_: Any) -> Generated:
        found = re.search(r"Score ([\d.]+), alarm from ([\d.]+)", messages[-1].text)
        if found is None:
            said: dict[str, Any] = {"verdict": "REVIEW", "defect_type": "none", "region": "none", "sentences": []}
        else:
            verdict = "NG" if float(found[1]) >= float(found[2]) else "OK"
            text = "The score is above the alarm threshold." if verdict == "NG" else "The score is below the threshold."
            sentence = {"about": "verdict", "text": text, "cites": ["M1"]}
            said = {"verdict": verdict, "defect_type": "none", "region": "none", "sentences": [sentence]}
        return Generated(json.dumps(said), None, "stop")

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        return LetterAnswer(letters[0], None, None, letters[0])


@pytest.fixture(params=sorted(REASONERS))
def reasoner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reasoner:
    """Each of the registry; in the place of weights and servers stands a model that can read."""
    for name in MODELS:
        monkeypatch.setitem(MODELS, name, lambda loaded: Composed())
    return load_reasoner(load_settings({"reasoner": request.param}))


def test_every_model_is_a_reasoner() -> None:
    assert set(MODELS) == set(REASONERS) - {"evidence"}


def test_vectors_are_refused_where_they_cannot_be_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "openai_api", lambda loaded: Composed())
    with pytest.raises(ConfigError, match="needs a model in this process"):
        load_reasoner(load_settings({"reasoner": "openai_api", "latent": True}))


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
