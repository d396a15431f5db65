"""A trained head in inspections: its file, the same scores as the benchmark's, and products that remember it."""

from __future__ import annotations

import gc
import hashlib
import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Plant
from fakes import ColourWords, PatchStatistics
from numpy.typing import NDArray
from tiny_head import DIMS, save_head, sparse_weights, tiny_config, tiny_weights, untrained_weights

from flawscope.agent.errors import ConfigError, ProductError, WeightsError
from flawscope.agent.settings import load_settings
from flawscope.benchmarks import head as bench
from flawscope.benchmarks.datasets import LabelledPicture, ProductData
from flawscope.benchmarks.fewshot import draw_references
from flawscope.tools.ad_expert.anomaly_map import grid_to_pixels, smooth_grid
from flawscope.tools.ad_expert.appearance import picture_statistics
from flawscope.tools.ad_expert.expert import ExpertConfig, prepare
from flawscope.tools.ad_expert.head_expert import HeadExpert, HeadFit, HeadScale, refuse_unjudged
from flawscope.tools.ad_expert.head_file import configured_head, load_head
from flawscope.tools.ad_expert.reference_head import (
    FIRST_SPREADS,
    FORMAT,
    HeadInputs,
    HeadMemory,
    MemoryFit,
    ReferenceHead,
    picture_width,
)
from flawscope.tools.ad_expert.reference_views import fit_references
from flawscope.tools.backbones import VisualFeatures
from flawscope.tools.enrolment import fit_product
from flawscope.tools.imaging import load_image
from flawscope.tools.product_files import load_product
from flawscope.tools.product_model import ProductModel
from flawscope.tools.products import describe, enroll_product
from flawscope.tools.views import VIEWS
from flawscope.training.features import FeatureCache

BACKBONE = PatchStatistics()
FEW = 5


class HalfStatistics(PatchStatistics):
    """Features that half precision holds exactly, as the benchmark keeps them."""

    def encode_image(self, batch: NDArray[np.uint8]) -> VisualFeatures:
        seen = super().encode_image(batch)
        return replace(seen, patch_tokens=tuple(t.astype(np.float16).astype(np.float32) for t in seen.patch_tokens))


@pytest.fixture
def head(tmp_path: Path) -> ReferenceHead:
    return load_head(save_head(tmp_path / "head.npz"), BACKBONE.weights_sha256)


@pytest.fixture(scope="module")
def model(plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> ProductModel:
    """Five references, fitted with the tiny head."""
    head = load_head(save_head(tmp_path_factory.mktemp("head") / "head.npz"))
    return fit_product("plate", [str(path) for path in plant.good[:FEW]], BACKBONE, head=head)


def look(model: ProductModel, path: Path) -> Any:
    rgb = load_image(path).rgb
    return model.localise(model.expert.encode(model.backbone, rgb), rgb)


# The file


def save_arrays(path: Path, weights: dict[str, NDArray[Any]], **changed: Any) -> Path:
    """A head's file with weights that no head would take."""
    header = json.dumps({"format": FORMAT, **tiny_config(**changed)}).encode()
    arrays: dict[str, Any] = {"header.json": np.frombuffer(header, np.uint8), **weights}
    np.savez(path, **arrays)
    return path


def some_inputs() -> HeadInputs:
    """What a head reads of a picture of four patches."""
    rng, width = np.random.default_rng(0), picture_width(len(DIMS))
    patches, picture, distances = (rng.random(shape).astype(np.float32) for shape in ((4, 5), width, 4))
    residuals = tuple(rng.random((4, depth)).astype(np.float32) for depth in DIMS)
    return HeadInputs(patches, picture, residuals, distances, (2, 2))


def test_a_head_comes_back_with_the_hash_of_its_file(tmp_path: Path) -> None:
    path = save_head(tmp_path / "head.npz")
    found = load_head(path, BACKBONE.weights_sha256)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.config == json.loads(json.dumps(tiny_config()))
    for name, value in tiny_weights().items():
        np.testing.assert_array_equal(found.weights[name], value)


@pytest.mark.parametrize(
    "change",
    [
        {"gains": np.full(5, np.nan, np.float32)},
        {"gains": -np.ones(5, np.float32)},
        {"gains": np.ones(4, np.float32)},
        {"gains": np.array(["a"] * 5)},
        {"scale": np.zeros(9, np.float32)},
        {"centre": np.zeros((9, 1), np.float32)},
        {"first.bias": np.zeros(2, np.float32)},
        {"first.weight": np.ones((3, 8), np.float32)},
        {"last.weight": np.full((1, 3), np.inf, np.float32)},
        {"last.bias": np.zeros((), np.float32)},
        {"prompt.gate": np.ones(9, np.float32)},
    ],
)
def test_weights_that_cannot_judge_are_refused(change: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    path = save_arrays(tmp_path / "head.npz", {**tiny_weights(), **change})
    with pytest.raises(WeightsError, match=r"Train it again") as raised:
        load_head(path, BACKBONE.weights_sha256)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


STAGE = "prompt.hsp.stages.1."


@pytest.mark.parametrize(
    "change",
    [
        {STAGE + "solver.rho": np.array(-0.1)},
        {STAGE + "solver.rho": np.array(np.nan)},
        {STAGE + "solver.dictionary": np.full((5, 4), np.inf, np.float32)},
        {STAGE + "solver.dictionary": np.ones((5, 3), np.float32)},
        {STAGE + "solver.dictionary": np.ones((0, 4), np.float32)},
        {STAGE + "solver.dictionary": None},
        {STAGE + "solver.maps": np.ones((8, 4, 5), np.float32)},
        {STAGE + "query.weight": np.ones((4, 6), np.float32)},
        {"prompt.hsp.stages.2.solver.dictionary": np.ones((5, 4), np.float32)},
        {"prompt.to_features.weight": np.ones((9, 7), np.float32)},
        {"prompt.gate": None},
    ],
)
def test_sparse_prompts_that_cannot_judge_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    assert load_head(save_arrays(path, sparse_weights(), prompt="sparse")).support(some_inputs()) > 0
    kept = {name: value for name, value in {**sparse_weights(), **change}.items() if value is not None}
    save_arrays(path, kept, prompt="sparse")
    with pytest.raises(WeightsError, match=r"Train it again") as raised:
        load_head(path, BACKBONE.weights_sha256)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("name", sorted(tiny_weights()))
def test_a_missing_tensor_is_refused(name: str, tmp_path: Path) -> None:
    kept = {key: value for key, value in tiny_weights().items() if key != name}
    path = save_arrays(tmp_path / "head.npz", kept)
    with pytest.raises(WeightsError, match=r"Train it again"):
        load_head(path)


@pytest.mark.parametrize("keep", [0, 1, 40, 500, -1, -30])
def test_a_torn_file_is_refused(keep: int, tmp_path: Path) -> None:
    path = save_head(tmp_path / "head.npz")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="cannot read the trained head"):
        load_head(path)


@pytest.mark.parametrize("header", [b"[]", b"3", b"\xff", b"[" * 100_000, b'{"format": "else"}', b"{}"])
def test_a_header_of_another_kind_is_refused(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    np.savez(path, **{"header.json": np.frombuffer(header, np.uint8)})
    with pytest.raises(WeightsError, match="Train it again"):
        load_head(path)


@pytest.mark.parametrize(
    "changed", [{"layer_dims": [6]}, {"layer_dims": [6, -1]}, {"layer_dims": 3}, {"prompt": "sparse"}]
)
def test_a_description_of_other_weights_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    path = save_arrays(tmp_path / "head.npz", tiny_weights(), **changed)
    with pytest.raises(WeightsError, match="Train it again"):
        load_head(path)


def test_files_that_would_run_something_or_hold_something_else_are_refused(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"header.json": np.array([{"format": "flawscope-reference-head-1"}], object)}
    np.savez(tmp_path / "pickled.npz", **arrays)
    np.save(tmp_path / "array.npy", np.ones(3))
    for name in ("pickled.npz", "array.npy", "nothing.npz", "."):
        with pytest.raises(WeightsError, match="Train it again"):
            load_head(tmp_path / name)


def test_a_head_for_other_weights_is_refused(tmp_path: Path) -> None:
    path = save_head(tmp_path / "head.npz", backbone_sha256="f" * 64)
    with pytest.raises(
        WeightsError, match=r"made for other weights \(sha256 ffffffffffff…\) than these \(000000000000…"
    ):
        load_head(path, BACKBONE.weights_sha256)


def test_the_setting_names_it_for_backbones_without_words(tmp_path: Path) -> None:
    path = save_head(tmp_path / "head.npz")
    loaded = load_settings({"trained_head": path}, environ={})
    assert configured_head(BACKBONE, load_settings(environ={})) is None
    found = configured_head(BACKBONE, loaded)
    assert found is not None
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match=r"setting trained_head \(flag\) is for the embedded backbone"):
        configured_head(ColourWords(), loaded)


# The scores


def test_an_inspection_scores_as_the_benchmark_does(
    plant: Plant, head: ReferenceHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[tuple[float, NDArray[np.float32]]] = []
    add = bench.Tally.add

    def record(self: bench.Tally, score: float, grid: NDArray[np.float32], *rest: Any) -> None:
        recorded.append((score, grid))
        add(self, score, grid, *rest)

    monkeypatch.setattr(bench.Tally, "add", record)
    tests = tuple(LabelledPicture(path, path.stem) for path in (plant.new_good, plant.square, plant.scratch))
    product = ProductData("plate", plant.good[:6], tests)
    backbone, config = HalfStatistics(), ExpertConfig()
    run: Any = SimpleNamespace(expert=config)
    bench._judge(product, {"none": head}, FeatureCache(tmp_path / "cache", backbone, config), FEW, 3, run)
    drawn = [str(product.references[i]) for i in draw_references(6, FEW, 3)]
    model = fit_product("plate", drawn, backbone, head=head)
    assert isinstance(model.expert, HeadExpert)
    scale = model.expert.scale
    assert scale.slope > 0
    for test, (score, logits) in zip(tests, recorded[1::2], strict=True):
        found = look(model, test.path)
        expected = grid_to_pixels(smooth_grid(logits), *found.anomaly_map.shape)
        np.testing.assert_allclose((found.anomaly_map - scale.offset) / scale.slope, expected, atol=1e-4)
        assert (found.image_score - scale.offset) / scale.slope == pytest.approx(score, abs=1e-4)


def test_an_untrained_head_ranks_every_patch_and_picture_as_no_head_does(plant: Plant, tmp_path: Path) -> None:
    head = load_head(save_head(tmp_path / "head.npz", untrained_weights()))
    good = [str(path) for path in plant.good[:FEW]]
    with_head, plain = fit_product("plate", good, BACKBONE, head=head), fit_product("plate", good, BACKBONE)
    assert isinstance(with_head.expert, HeadExpert)
    memory, scale = with_head.expert.memory, with_head.expert.scale
    slope = scale.slope / float(memory.spread[-1])
    offset = scale.offset - scale.slope * (float(memory.centre[-1] / memory.spread[-1]) + FIRST_SPREADS)
    for path in (plant.new_good, plant.square):
        judged, before = look(with_head, path), look(plain, path)
        np.testing.assert_allclose(judged.patch_scores, slope * before.patch_scores + offset, atol=1e-5)
        assert judged.image_score == pytest.approx(slope * before.image_score + offset, abs=1e-5)
    assert slope == pytest.approx(1.0, abs=0.2)  # good patches keep their mean and spread
    assert with_head.pixel_scale.threshold == pytest.approx(plain.pixel_scale.threshold, rel=0.2)


def test_the_calibration_is_of_scores_through_the_head(plant: Plant, model: ProductModel) -> None:
    plain = fit_product("plate", [str(path) for path in plant.good[:FEW]], BACKBONE)
    assert model.calibration.views == plain.calibration.views
    through = dict(zip(model.calibration.views, model.calibration.scores.T, strict=True))
    without = dict(zip(plain.calibration.views, plain.calibration.scores.T, strict=True))
    assert not np.allclose(through["whole"], without["whole"])
    assert not np.allclose(through["self_consistency"], without["self_consistency"])
    np.testing.assert_array_equal(through["reference"], without["reference"])
    good, bad = look(model, plant.new_good), look(model, plant.square)
    assert not model.regions(good.anomaly_map)
    assert model.regions(bad.anomaly_map)[0].place.startswith("upper left")
    limit = model.calibration.scores[:, 0].max()
    assert good.image_score < 1.1 * limit < bad.image_score


def test_a_whole_look_and_its_parts_agree(plant: Plant, model: ProductModel) -> None:
    rgb = load_image(plant.square).rgb
    features = model.expert.encode(BACKBONE, rgb)
    found = look(model, plant.square)
    np.testing.assert_array_equal(found.patch_scores, model.expert.score_grid(features))
    assert found.image_score == pytest.approx(model.expert.image_score(found.patch_scores, features), abs=1e-6)
    look_of_it, alignment = model.expert.appearance, model.expert.alignment
    assert look_of_it is not None
    assert alignment is None  # so nothing is taken off, and the look of the whole is all that is added
    added = found.image_score - model.expert.local_score(found.patch_scores)
    assert look_of_it.gain > 0
    assert added == pytest.approx(look_of_it.added_score(picture_statistics(features)), abs=1e-5)


def test_only_the_memory_in_use_is_held(plant: Plant, head: ReferenceHead, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product may have hundreds of references, and a memory without one of them is nearly as large as the whole."""
    made: list[weakref.ref[HeadMemory]] = []
    without = MemoryFit.without

    def watched(self: MemoryFit, owner: int) -> HeadMemory:
        memory = without(self, owner)
        made.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(MemoryFit, "without", watched)
    prepared = [prepare(load_image(path).rgb, ExpertConfig()) for path in plant.good[:FEW]]
    features = [BACKBONE.encode_image(picture[None]) for picture in prepared]
    fit = HeadFit(head, fit_references(prepared, features, BACKBONE, ExpertConfig()), features)
    assert len(made) == FEW
    experts = [fit.without(owner) for owner in (0, 1)]
    gc.collect()
    assert sum(memory() is not None for memory in made) == len(experts)


def test_looking_again_works_with_a_head(plant: Plant, model: ProductModel) -> None:
    plain = fit_product("plate", [str(path) for path in plant.good[:FEW]], BACKBONE)
    rgb = load_image(plant.square).rgb
    features = model.expert.encode(BACKBONE, rgb)
    peak = (80, 80)
    scores = {name: view(model, rgb, features, peak).score for name, view in VIEWS.items()}
    assert scores["reference"] == VIEWS["reference"](plain, rgb, features, peak).score  # untrained, calibrated so
    assert set(scores) <= set(model.calibration.views)
    for name, score in scores.items():
        assert score > model.calibration.scores[:, model.calibration.views.index(name)].max(), name


# The product


def test_a_product_remembers_its_head_and_refuses_another(
    plant: Plant, model: ProductModel, head: ReferenceHead, tmp_path: Path
) -> None:
    other = load_head(save_head(tmp_path / "other.npz", tiny_weights(1)))
    enroll_product(tmp_path, "plate", plant.good[:FEW], BACKBONE, head=head)
    again = load_product(tmp_path, "plate", BACKBONE, head)
    before, after = look(model, plant.square), look(again, plant.square)
    np.testing.assert_array_equal(before.anomaly_map, after.anomaly_map)
    assert (before.image_score, again.head_sha256) == (after.image_score, head.sha256)
    assert f"trained head: {head.sha256[:12]}…" in "\n".join(describe(again, 0.05))
    for given, named in ((other, f"the trained head {other.sha256[:12]}…"), (None, "no trained head")):
        with pytest.raises(ProductError) as raised:
            load_product(tmp_path, "plate", BACKBONE, given)
        assert f"enrolled with the trained head {head.sha256[:12]}…" in str(raised.value)
        assert f"now gives {named}. Enrol it again: flawscope enroll plate" in str(raised.value)


def test_products_without_a_head_stay_as_they_are(plant: Plant, head: ReferenceHead) -> None:
    folder = plant.home / "products"
    manifest = json.loads((folder / "plate" / "product.json").read_text())
    with np.load(folder / "plate" / "arrays.npz") as arrays:
        assert not [name for name in [*manifest, *arrays.files] if "head" in name]
    assert load_product(folder, "plate", BACKBONE).head_sha256 is None
    with pytest.raises(ProductError, match="enrolled with no trained head, the setting trained_head now gives the tr"):
        load_product(folder, "plate", BACKBONE, head)


def test_without_a_head_none_of_its_code_is_loaded(plant: Plant) -> None:
    probe = (
        "import sys; from pathlib import Path; from fakes import PatchStatistics\n"
        "from flawscope.tools.imaging import load_image; from flawscope.tools.product_files import load_product\n"
        f"model = load_product(Path({str(plant.home / 'products')!r}), 'plate', PatchStatistics())\n"
        f"rgb = load_image({str(plant.square)!r}).rgb; model.localise(model.expert.encode(model.backbone, rgb), rgb)\n"
        "print([name for name in sys.modules if name.endswith(('_head', '.head_expert', '.head_file'))])"
    )
    tests = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", probe], cwd=tests, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("config", "asked", "named"),
    [
        (ExpertConfig(), {"rotate": True, "large": False}, "quarter turns"),
        (ExpertConfig(), {"rotate": False, "large": True}, "seen in tiles"),
        (ExpertConfig(ignored=((0, 0, 1, 0.5),)), {"rotate": False, "large": False}, "regions that are not judged"),
    ],
)
def test_products_that_no_head_was_measured_on_are_refused(
    config: ExpertConfig, asked: dict[str, bool], named: str, plant: Plant, head: ReferenceHead
) -> None:
    with pytest.raises(ProductError, match=f"cannot be used with .*{named}"):
        refuse_unjudged(config, **asked)
    if not asked["large"]:
        good = [str(path) for path in plant.good[:3]]
        with pytest.raises(ProductError, match=named):
            fit_product("plate", good, BACKBONE, config=config, rotate=asked["rotate"], head=head)


def test_a_head_needs_two_references_and_the_pictures_it_was_made_for(
    plant: Plant, head: ReferenceHead, tmp_path: Path
) -> None:
    with pytest.raises(ProductError, match="needs 2 good references"):
        fit_product("plate", [str(plant.good[0])], BACKBONE, head=head)
    two = [str(path) for path in plant.good[:2]]
    assert fit_product("plate", two, BACKBONE, head=head).calibration.scores.shape[0] == 2
    for changed in ({"expert": {"short_side_px": 96}}, {"expert": {"unknown": 1}}):
        other = load_head(save_head(tmp_path / "head.npz", **changed))
        with pytest.raises(WeightsError, match="prepared in another way"):
            fit_product("plate", two, BACKBONE, head=other)
    other = load_head(save_head(tmp_path / "head.npz", layer_dims=[6, 11]))
    with pytest.raises(WeightsError, match="made for other features"):
        fit_product("plate", two, BACKBONE, head=other)


class Unseeing(PatchStatistics):
    """Nothing must be looked at."""

    def encode_image(self, batch: NDArray[np.uint8]) -> VisualFeatures:
        raise AssertionError("looked")


def test_a_head_that_cannot_fit_is_refused_before_anything_is_looked_at(
    plant: Plant, head: ReferenceHead, tmp_path: Path
) -> None:
    good = [str(path) for path in plant.good[:3]]
    with pytest.raises(ProductError, match="needs 2 good references"):
        fit_product("plate", good[:1], Unseeing(), head=head)
    with pytest.raises(ProductError, match="quarter turns"):
        fit_product("plate", good, Unseeing(), rotate=True, head=head)
    other = load_head(save_head(tmp_path / "other.npz", expert={"short_side_px": 96}))
    with pytest.raises(WeightsError, match="prepared in another way"):
        fit_product("plate", good, Unseeing(), head=other)


@pytest.mark.parametrize("line", [(0.0, 1.0), (-1.0, 0.0), (np.nan, 0.0), (np.inf, 0.0), (1.0, np.nan)])
def test_a_scale_that_would_turn_scores_around_is_refused(line: tuple[float, float]) -> None:
    with pytest.raises(ProductError, match="scale of this product is damaged"):
        HeadScale(*line)
