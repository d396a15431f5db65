"""Inspecting by words: alone when there are no references, and beside them when there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Plant, save
from fakes import ColourWords, FunctionReasoner, texture, with_square
from PIL import Image

from flawscope.agent.errors import ProductError
from flawscope.agent.inspector import Inspector
from flawscope.agent.reasoner import DraftReport, EvidenceBundle, ReasonerReply
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.agent.session import inspect_all
from flawscope.agent.settings import LoadedSettings
from flawscope.tools import calls
from flawscope.tools.ad_expert.anchor_source import TypePrompts
from flawscope.tools.ad_expert.prompt_ensemble import ensemble_anchors
from flawscope.tools.ad_expert.text_guidance import align
from flawscope.tools.ad_expert.type_centroids import TypeCentroids, defect_key
from flawscope.tools.ad_expert.type_store import save_centroids
from flawscope.tools.ad_expert.zero_shot import ZeroShotExpert
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.defect_features import defect_weights
from flawscope.tools.enrolment import fit_product
from flawscope.tools.product_files import load_product, manifest_hash
from flawscope.tools.product_model import ProductModel
from flawscope.tools.products import enroll_product


@pytest.fixture(autouse=True)
def _words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "colour-words", lambda loaded: ColourWords())


@pytest.fixture(scope="module")
def shared(plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> LoadedSettings:
    """A home for tests that only inspect: its knowledge base is built once."""
    return plant.loaded(home=tmp_path_factory.mktemp("words"), backbone="colour-words")


@pytest.fixture
def words(plant: Plant, tmp_path: Path) -> LoadedSettings:
    """A home of the test's own."""
    return plant.loaded(home=tmp_path / "home", backbone="colour-words")


@pytest.fixture
def inspector(shared: LoadedSettings) -> Iterator[Inspector]:
    with Inspector(shared) as inspector:
        yield inspector


def reply(verdict: str, entropy: float | None) -> ReasonerReply:
    return ReasonerReply(DraftReport(verdict=Verdict(verdict)), entropy, "scripted")


# Words alone


def test_without_references_the_place_is_found_and_a_person_decides(inspector: Inspector, plant: Plant) -> None:
    report = inspector.inspect(plant.square)
    assert report.verdict is Verdict.REVIEW
    assert (report.probability, report.threshold, report.uncertainty.entropy) == (None, None, None)
    assert not report.uncertainty.calibrated
    assert report.image_score is not None
    assert report.image_score > 0.5
    x0, y0, x1, y1 = report.regions[0].box  # the square covers 60..160 x 70..170
    assert abs(x0 - 60) < 25
    assert abs(x1 - 160) < 25
    assert abs(y0 - 70) < 25
    assert abs(y1 - 170) < 25
    assert "person must decide" in report.verdict_reason
    assert InspectionReport.model_validate_json(report.model_dump_json()) == report


def test_the_measurement_says_that_it_is_uncalibrated_and_what_it_may_weigh(inspector: Inspector, plant: Plant) -> None:
    report = inspector.inspect(plant.square)
    (measured,) = [item for item in report.evidence if item.kind == "measurement"]
    assert measured.values["calibrated"] is False
    assert measured.values["weight"] == 0.5
    assert measured.values["image_score"] == report.image_score
    assert all("not calibrated" in item.text for item in report.evidence if item.kind == "region")
    assert report.provenance["problems"] == []


def test_the_report_names_weights_prompts_and_mode(inspector: Inspector, plant: Plant) -> None:
    provenance = inspector.inspect(plant.square).provenance
    assert provenance["backbone"]["weights_sha256"] == "1" * 64
    assert len(provenance["text"]["prompts_sha256"]) == 64
    assert provenance["text"]["loc_mode"] == "softmax"
    assert provenance["text"]["anchors"] == ["generic"]


def test_the_mode_is_a_setting(plant: Plant, shared: LoadedSettings) -> None:
    scores = {}
    for mode in ("softmax", "paper"):
        with Inspector(plant.loaded(home=shared.home.root, backbone="colour-words", loc_mode=mode)) as inspector:
            report = inspector.inspect(plant.square)
        assert report.provenance["text"]["loc_mode"] == mode
        scores[mode] = report.image_score
    assert scores["softmax"] > scores["paper"] > 0.5


def test_a_good_picture_is_no_ok_either(inspector: Inspector, plant: Plant) -> None:
    report = inspector.inspect(plant.new_good)
    assert report.verdict is Verdict.REVIEW
    assert report.image_score is not None
    assert report.image_score < 0.5
    assert all(region.peak < 0.5 for region in report.regions)


@pytest.mark.parametrize("verdict", ["OK", "NG"])
def test_no_reasoner_can_decide_by_words_alone(verdict: str, shared: LoadedSettings, plant: Plant) -> None:
    bundles: list[EvidenceBundle] = []

    def sure(evidence: EvidenceBundle) -> ReasonerReply:
        bundles.append(evidence)
        return reply(verdict, 0.0)

    with Inspector(shared) as inspector:
        inspector.deps.__dict__["reasoner"] = FunctionReasoner(sure)
        report = inspector.inspect(plant.square)
    assert bundles[0].zero_shot
    assert report.verdict is Verdict.REVIEW
    assert "without a calibrated score" in " ".join(report.provenance["problems"])


def test_a_flat_picture_has_no_map(inspector: Inspector, plant: Plant) -> None:
    report = inspector.inspect(plant.flat)
    assert report.verdict is Verdict.REVIEW
    assert report.image_score is None
    assert report.regions == ()
    assert "flat colour" in report.verdict_reason


def test_the_prompts_are_embedded_once_for_all_inspectors(words: LoadedSettings, plant: Plant) -> None:
    for embedded in (12 * 35, 0):
        with Inspector(words) as inspector:
            inspector.prepare()
            inspector.inspect(plant.square)
            assert inspector.deps.backbone.embedded == embedded


def test_the_overlay_shows_what_stands_out(shared: LoadedSettings, plant: Plant, tmp_path: Path) -> None:
    (report,) = inspect_all(shared, [plant.square], None, [], tmp_path / "out", None, lambda step: None)
    heat = np.asarray(Image.open(report.artifacts["heatmap"]))
    inside, outside = heat[90:150, 80:140], heat[300:, 300:]
    assert inside.max(axis=2).min() > 100
    assert outside.max() == 0
    assert Path(report.artifacts["overlay"]).is_file()


def test_an_agents_tool_locates_by_words(inspector: Inspector, plant: Plant) -> None:
    found = calls.locate_anomalies(inspector, str(plant.square))
    assert found["regions"]
    assert (found["threshold"], found["probability"], found["basis"]) == (None, None, "uncalibrated")
    with pytest.raises(ProductError):
        calls.zoom(inspector, str(plant.square))


# Types


@pytest.fixture
def typed(words: LoadedSettings, plant: Plant) -> LoadedSettings:
    """A home where ``hole`` looks as the red square does, and ``scratch`` as nothing does."""
    backbone = ColourWords()
    features = backbone.encode_image(np.asarray(Image.open(plant.square))[None])
    scores = ZeroShotExpert(backbone).localise(features, np.zeros((480, 480, 3), np.uint8)).patch_scores
    hole = defect_key(features, defect_weights(scores), joint=True)
    vectors = np.stack([hole / np.linalg.norm(hole), np.eye(ColourWords.dim)[7]]).astype(np.float32)
    centroids = TypeCentroids(("hole", "scratch"), np.array([9, 9]), vectors)
    origin = {"weighting": "map", "refined": False, "sources": [], "left_out": []}
    save_centroids(words.home, backbone, centroids, origin)
    return words


def test_types_built_before_name_the_defect_and_its_page(typed: LoadedSettings, plant: Plant) -> None:
    with Inspector(typed) as inspector:
        report = inspector.inspect(plant.square)
        found = calls.name_defect_type(inspector, str(plant.square))
    assert report.verdict is Verdict.REVIEW
    assert report.defect_type is not None
    assert report.defect_type.name == found["defect_type"]["name"] == "hole"
    assert report.defect_type.posterior is not None
    assert report.defect_type.posterior > 0.9
    assert report.provenance["text"]["anchors"] == ["hole"]
    assert len(report.provenance["text"]["types_sha256"]) == 64
    assert any(item.source == "general.hole" for item in report.evidence if item.kind == "document")
    assert report.provenance["problems"] == []


def test_without_types_the_words_name_none(inspector: Inspector, plant: Plant) -> None:
    report = inspector.inspect(plant.square)
    assert report.defect_type is not None
    assert (report.defect_type.name, report.defect_type.posterior) == ("unknown", None)
    assert report.provenance["text"]["types_sha256"] is None
    assert "kb types build" in calls.name_defect_type(inspector, str(plant.square))["reason"]


def test_no_likely_type_is_the_generic_ensemble_to_the_bit(words: LoadedSettings, plant: Plant) -> None:
    backbone = ColourWords()
    rgb = np.asarray(Image.open(plant.square))
    plain = ZeroShotExpert(backbone).score(rgb)
    vectors = np.eye(ColourWords.dim, dtype=np.float32)[[5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]]
    nowhere = TypeCentroids(tuple("abcdefghijk"), np.full(11, 9), vectors)  # eleven equal shares, each below a tenth
    prompts = TypePrompts(nowhere, words.home.anchors, "0" * 64)
    score, anomaly_map = ZeroShotExpert(backbone, type_prompts=prompts).score(rgb)
    assert score == plain[0]
    assert (anomaly_map == plain[1]).all()


# Words beside references


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("words")
    return {
        "good": [save(folder, f"good{seed}.png", texture(seed)) for seed in range(8)],
        "red": save(folder, "red.png", with_square(texture(30), 40, 40, 12, (190, 90, 90))),
        "new": save(folder, "new.png", texture(35)),
    }


@pytest.fixture(scope="module")
def fitted(pictures: dict[str, Any]) -> ProductModel:
    backbone = ColourWords()
    return fit_product("plate", [str(p) for p in pictures["good"]], backbone, anchors=ensemble_anchors(backbone))


def test_words_become_a_calibrated_view(fitted: ProductModel) -> None:
    assert fitted.calibration.views[:2] == ("whole", "text")
    assert fitted.text is not None
    column = fitted.calibration.scores[:, 1]
    assert ((column > 0) & (column < 0.5)).all()


def test_text_scores_of_good_patches_are_brought_to_their_distances(fitted: ProductModel) -> None:
    assert fitted.text is not None
    rng = np.random.default_rng(0)
    distances = [rng.uniform(0.1, 0.5, (20, 20)).astype(np.float32) for _ in range(3)]
    scores = [(0.2 + 0.5 * grid).astype(np.float32) for grid in distances]
    offset, gain = align(distances, scores)
    assert gain == pytest.approx(2.0, rel=1e-3)
    assert offset == pytest.approx(-0.4, rel=1e-2)


def test_even_words_are_not_amplified() -> None:
    distances = [np.linspace(0.1, 0.3, 100, dtype=np.float32).reshape(10, 10)]
    _, gain = align(distances, [np.full((10, 10), 0.4, np.float32)])
    assert gain == pytest.approx(0.098 / 0.02, rel=1e-3)


def test_the_joint_map_is_the_mean_of_both(fitted: ProductModel, pictures: dict[str, Any]) -> None:
    rgb = np.asarray(Image.open(pictures["red"]))
    features = fitted.expert.encode(fitted.backbone, rgb)
    found = fitted.localise(features, rgb)
    assert fitted.text is not None
    assert found.text_score is not None
    distances = fitted.expert.score_grid(features)
    text_scores = fitted.text.look(features, *rgb.shape[:2]).patch_scores
    joined = fitted.text.joined(distances, text_scores)
    aligned = fitted.text.offset + fitted.text.gain * text_scores
    np.testing.assert_allclose(joined, (distances + aligned) / 2, rtol=1e-5)
    assert found.image_score == pytest.approx(fitted.expert.image_score(distances, features))


def test_an_enrolled_product_keeps_its_words(words: LoadedSettings, pictures: dict[str, Any], tmp_path: Path) -> None:
    with Inspector(words) as inspector:
        deps = inspector.deps
        enrolled = enroll_product(
            deps.home.products, "plate", pictures["good"], deps.backbone, anchors=deps.anchors, false_alarm=0.15
        )
        assert enrolled.text is not None
        bad, good = (inspector.inspect(pictures[name], product="plate") for name in ("red", "new"))
    assert bad.verdict is Verdict.NG
    assert good.verdict is Verdict.OK
    (measured,) = [item for item in bad.evidence if item.kind == "measurement"]
    assert {"raw_whole", "raw_text"} <= set(measured.values)
    assert bad.provenance["text"]["prompts_sha256"] == enrolled.text.anchors.prompts_sha256
    again = load_product(words.home.products, "plate", ColourWords())
    assert again.text is not None
    assert (again.text.offset, again.text.gain) == (enrolled.text.offset, enrolled.text.gain)


@pytest.mark.parametrize(
    "damage",
    [
        {"names": ["one", "two"]},
        {"config": {"loc_mode": "other"}},
        {"config": {"colour": 1}},
        {"gain": None},
        {"gain": -1.0},
        {"offset": float("nan")},
        "words",
    ],
)
def test_damaged_words_are_refused(
    damage: Any, words: LoadedSettings, pictures: dict[str, Any], tmp_path: Path
) -> None:
    backbone = ColourWords()
    enroll_product(tmp_path, "plate", pictures["good"][:2], backbone, anchors=ensemble_anchors(backbone))
    manifest = tmp_path / "plate" / "product.json"
    content = json.loads(manifest.read_text())
    content["text"] = {**content["text"], **damage} if isinstance(damage, dict) else damage
    manifest.write_text(json.dumps({**content, "sha256": manifest_hash(content)}))
    with pytest.raises(ProductError):
        load_product(tmp_path, "plate", backbone)


def test_another_canvas_is_another_product(pictures: dict[str, Any], tmp_path: Path) -> None:
    enroll_product(tmp_path, "plate", pictures["good"][:2], ColourWords())
    canvas = ColourWords()
    canvas.image_size_px = 336
    with pytest.raises(ProductError, match="336 px"):
        load_product(tmp_path, "plate", canvas)


def test_a_single_reference_leaves_words_out(pictures: dict[str, Any], shared: LoadedSettings) -> None:
    with Inspector(shared, references=[pictures["good"][0]]) as inspector:
        report = inspector.inspect(pictures["red"])
        assert inspector.deps.ad_hoc.text is None
    assert report.verdict is Verdict.REVIEW
    assert "text" not in report.provenance
