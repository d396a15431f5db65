"""The benchmark of a model's reports: counts by hand, and a run in which the model says what a script has."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Plant
from report_plates import write_plates
from tiny_head import save_head

from flawscope.agent.errors import BackendError, ConfigError
from flawscope.agent.vision_language import loading
from flawscope.agent.vision_language.fakes import ScriptedModel, spoken
from flawscope.benchmarks import reports
from flawscope.benchmarks.datasets import LabelledPicture, ProductData
from flawscope.benchmarks.reports import draw, run_reports
from flawscope.benchmarks.reports_tables import EVIDENCE, MODEL, Share, figures, render, share


def looked(verdict: str, **more: Any) -> dict[str, Any]:
    """What a reasoner without a model leaves of a picture."""
    nothing = dict.fromkeys(("type", "entropy", "usable", "repaired", "said_verdict", "said_type", "written"))
    return {**nothing, "verdict": verdict, "retries": [], "kept": 2, "seconds": 0.1, **more}


def answered(verdict: str, said: str | None, *, written: int = 3, kept: int = 2, **more: Any) -> dict[str, Any]:
    """What a model leaves; ``said`` None for an answer that could not be used."""
    told = {"usable": False, "repaired": True, "kept": 0}
    if said is not None:
        told = {"usable": True, "repaired": False, "said_verdict": said, "written": written, "kept": kept}
    return looked(verdict, **{"seconds": 1.0, **told, **more})


def record(number: int, truth: str, evidence: dict[str, Any], model: dict[str, Any], **more: Any) -> dict[str, Any]:
    part = {"picture": f"plate/{number}", "product": "plate", "truth": truth, "nameable": truth == "hole", **more}
    return {**part, EVIDENCE: evidence, MODEL: model}


RECORDS = [
    record(0, "good", looked("OK"), answered("OK", "OK", seconds=1.0)),
    record(1, "good", looked("OK"), answered("NG", "NG", seconds=2.0, repaired=True)),
    record(2, "good", looked("REVIEW", retries=["zoom"]), answered("REVIEW", "OK", kept=0, seconds=3.0)),
    record(3, "hole", looked("NG", type="hole"), answered("NG", "NG", type="hole", seconds=4.0)),
    record(4, "hole", looked("NG", type="dent"), answered("NG", "NG", type="unknown", seconds=5.0)),
    record(5, "hole", looked("OK"), answered("OK", "OK", seconds=6.0)),
    record(6, "hole", looked("NG", type="hole"), answered("REVIEW", None, retries=["zoom", "refute"], seconds=7.0)),
    record(7, "odd", looked("REVIEW"), answered("NG", "NG", type="hole", seconds=8.0)),
]
"""Three good pictures, four holes and a defect of which there were no examples."""


def counts(found: dict[str, Any] | None) -> tuple[int, int] | None:
    return None if found is None else (found["hits"], found["of"])


def test_counts_by_hand() -> None:
    found = figures(RECORDS)["products"]["all"]
    expected = {
        "usable_at_once": (6, 8),
        "usable_repaired": (1, 8),
        "unusable": (1, 8),
        "decided": (6, 8),
        "right": (4, 6),  # pictures 0, 3, 4, 7
        "ng_of_good": (1, 3),
        "ok_of_defective": (1, 5),
        "sentences": (12, 21),  # seven answers of three; two of each kept but for picture 2
        "named": (1, 2),  # of pictures 3 and 4; 7 shows what nobody taught
        "named_right": (1, 1),
        "looked_again": (1, 8),
    }
    assert {key: counts(found[MODEL][key]) for key in expected} == expected
    assert (found[MODEL]["retries"], found[MODEL]["p50_s"], found[MODEL]["p95_s"]) == (2, 4.5, pytest.approx(7.65))
    beside = {"decided": (6, 8), "right": (5, 6), "named": (3, 3), "named_right": (2, 3), "looked_again": (1, 8)}
    assert {key: counts(found[EVIDENCE][key]) for key in beside} == beside


def test_a_reasoner_without_a_model_says_nothing_of_its_answers() -> None:
    found = figures(RECORDS)["products"]["plate"][EVIDENCE]
    silent = ("usable_at_once", "usable_repaired", "unusable", "sentences", "entropy_auroc")
    assert [found[key] for key in silent] == [None] * 5


def test_both_on_the_same_pictures() -> None:
    assert figures(RECORDS)["together"] == {
        "both_decided": 5,  # 0, 1, 3, 4, 5
        "same": 4,  # all of them but 1
        "model_alone": 1,  # 7
        "evidence_alone": 1,  # 6
        "model_wrong": 2,  # 1 and 5
        "shared": 1,  # 5
    }


def test_a_share_of_nothing_is_none_and_a_dash() -> None:
    found = Share(0, 0).plain()
    assert found == {"hits": 0, "of": 0, "share": None, "low": None, "high": None}
    assert share(found) == share(None) == "–"
    nothing = figures(RECORDS[2:3])["products"]["all"][MODEL]
    assert (nothing["right"]["share"], nothing["named"]["share"], nothing["entropy_auroc"]) == (None, None, None)


def test_shares_of_pictures_have_exact_intervals_and_sentences_have_none() -> None:
    all_of_four = Share(4, 4).plain()
    assert (all_of_four["low"], all_of_four["high"]) == (pytest.approx(0.025**0.25), 1.0)  # Clopper-Pearson, k = n
    assert share(all_of_four) == "4/4 = 100.0% [39.8, 100.0]"
    assert share(Share(1, 2).plain(pictures=False)) == "1/2 = 50.0%"


def test_entropy_is_judged_by_what_was_answered_before_the_last_check() -> None:
    right = [record(i, "good", looked("OK"), answered("REVIEW", "OK", entropy=0.1 + 0.01 * i)) for i in range(5)]
    wrong = [record(i, "hole", looked("NG"), answered("REVIEW", "OK", entropy=0.5)) for i in range(5, 9)]
    silent = record(9, "hole", looked("NG"), answered("REVIEW", None))
    assert figures([*right, *wrong, silent])["products"]["all"][MODEL]["entropy_auroc"] is None  # four are too few
    low = record(10, "hole", looked("NG"), answered("REVIEW", "REVIEW", entropy=0.125))
    found = figures([*right, *wrong, low])["products"]["all"][MODEL]["entropy_auroc"]
    assert found["value"] == pytest.approx((4 * 5 + 3) / 25)  # .125 lies above three of the five right ones
    assert found["low"] < found["value"] <= found["high"]


def product(good: int, **defects: int) -> ProductData:
    tests = [LabelledPicture(Path(f"good/{i}.png"), "good") for i in range(good)]
    tests += [LabelledPicture(Path(f"{kind}/{i}.png"), kind) for kind, count in defects.items() for i in range(count)]
    return ProductData("plate", (Path("r.png"),), tuple(tests))


def test_a_draw_sets_examples_aside_and_takes_types_in_turn() -> None:
    drawn = draw(product(10, dent=1, hole=10, odd=3), limit=8, examples=3, seed=0)
    assert {kind: len(paths) for kind, paths in drawn.examples.items()} == {"hole": 3, "odd": 1}  # half of 3 is 1
    kinds = [picture.defect_type for picture in drawn.tests]
    assert kinds == ["good"] * 4 + ["dent", "hole", "odd", "hole"]
    assert not {path for paths in drawn.examples.values() for path in paths} & {picture.path for picture in drawn.tests}


def test_a_draw_goes_by_its_seed_and_takes_everything_without_a_limit() -> None:
    plate = product(3, hole=12)
    assert draw(plate, 6, 2, seed=1) == draw(plate, 6, 2, seed=1)
    assert draw(plate, 6, 2, seed=1) != draw(plate, 6, 2, seed=2)
    assert len(draw(plate, None, 2, seed=1).tests) == 13
    assert [p.is_defective for p in draw(plate, 10, 2, seed=1).tests] == [False] * 3 + [True] * 7  # few good ones
    assert draw(plate, None, 0, seed=1).examples == {}


def words(verdict: str, kind: str, *sentences: tuple[str, str, tuple[str, ...]]) -> str:
    made = [{"about": about, "text": text, "cites": cites} for about, text, cites in sentences]
    return json.dumps({"verdict": verdict, "defect_type": kind, "region": "none", "sentences": made})


BELOW = ("verdict", "The score is below the alarm threshold.", ("M1",))
ABOVE = ("verdict", "The score is above the alarm threshold.", ("M1",))
BARE = ("description", "There is a deviation.", ())
"""Cites nothing, so it is cut."""
FINE, HOLE = spoken(words("OK", "none", BELOW)), spoken(words("NG", "hole", ABOVE, BARE))
SCRIPT = (FINE, FINE, spoken("It looks fine."), FINE, HOLE, spoken("no"), spoken("no"))
"""For a reference that is not counted, two good pictures and two holes: at once, repaired, at once, never."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plates(tmp_path_factory.mktemp("data"))


def measured(
    plant: Plant, data: Path, out: Path, script: Any, monkeypatch: pytest.MonkeyPatch, seed: int = 0
) -> dict[str, Any]:
    model = ScriptedModel(script)
    monkeypatch.setitem(loading.MODELS, "openai_api", lambda loaded: model)
    loaded = plant.loaded(reasoner="openai_api", max_actions=0, time_budget_s=3600.0)
    result = run_reports(data, loaded, examples=2, seed=seed, out=out)
    assert not model.words
    return result


def test_a_run_goes_on_where_it_stood(
    plant: Plant, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(BackendError, match=r"was not inspected: .*down"):
        measured(plant, data, out, (*SCRIPT[:2], BackendError("the server is down.")), monkeypatch)
    result = measured(plant, data, out, (FINE, *SCRIPT[2:]), monkeypatch)
    found = result["figures"]["products"]["all"]
    assert counts(found[MODEL]["usable_at_once"]) == (2, 4)
    assert counts(found[MODEL]["usable_repaired"]) == (1, 4)
    assert counts(found[MODEL]["unusable"]) == (1, 4)
    assert counts(found[MODEL]["sentences"]) == (3, 4)
    assert (counts(found[MODEL]["decided"]), counts(found[MODEL]["right"])) == ((3, 4), (3, 3))
    assert (counts(found[MODEL]["named"]), counts(found[MODEL]["named_right"])) == ((1, 1), (1, 1))
    assert (counts(found[EVIDENCE]["decided"]), counts(found[EVIDENCE]["right"])) == ((4, 4), (4, 4))
    assert found[EVIDENCE]["unusable"] is None
    assert result["figures"]["together"]["evidence_alone"] == 1
    assert json.loads((out / "result.json").read_text())["figures"] == json.loads(json.dumps(result["figures"]))
    again = measured(plant, data, out, (), monkeypatch)  # nobody is asked, nothing is learnt
    assert again["records"] == result["records"]
    with pytest.raises(ConfigError, match="holds another run: seed differ"):
        measured(plant, data, out, (), monkeypatch, seed=1)
    text = render(again)
    assert "4 pictures, 2 good and 2 defective, seed 0. plate: 20 references, 2 examples at most of hole." in text
    assert (
        "| all | 4 | 2/4 = 50.0% [6.8, 93.2] | 1/4 = 25.0% [0.6, 80.6] | 1/4 = 25.0% [0.6, 80.6] | 3/4 = 75.0% | – |"
        in text
    )
    assert "by the evidence reasoner alone 1. Wrong decisions of the model: 0" in text


def test_products_are_learnt_with_the_head_of_the_settings(
    plant: Plant, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(*given: Any, head: Any = None, **options: Any) -> None:
        raise BackendError(f"learnt with {head and head.sha256}.")

    monkeypatch.setattr(reports, "fit_product", learn)
    monkeypatch.setitem(loading.MODELS, "openai_api", lambda loaded: ScriptedModel(()))
    path = save_head(tmp_path / "head.npz")
    with pytest.raises(BackendError, match=f"learnt with {hashlib.sha256(path.read_bytes()).hexdigest()}"):
        run_reports(data, plant.loaded(reasoner="openai_api", trained_head=path))


def test_what_cannot_be_measured_is_refused(plant: Plant, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a vision-language model"):
        run_reports(data, plant.loaded())
    with pytest.raises(ConfigError, match="a limit of 1 pictures"):
        run_reports(data, plant.loaded(reasoner="openai_api"), limit=1)
    few = write_plates(tmp_path)
    (few / "plate" / "train" / "good" / "00.png").unlink()
    with pytest.raises(ConfigError, match="has 20 references"):
        run_reports(few, plant.loaded(reasoner="openai_api"))
