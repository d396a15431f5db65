"""Centroids of defect types, where they are kept, and the prompts that they choose."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawscope.agent.errors import BackendError, InputError, KnowledgeError
from flawscope.agent.home import Home
from flawscope.tools.ad_expert.prompt_ensemble import embed_state, ensemble_anchors, load_ensemble
from flawscope.tools.ad_expert.type_centroids import TypeCentroids, defect_key, fit_centroids, mask_weights
from flawscope.tools.ad_expert.type_examples import TypeExample, describe_examples, weigh_by_mask, weighing_by_map
from flawscope.tools.ad_expert.type_prompts import anchors_of_picture, centroids_of_names, type_anchors, type_texts
from flawscope.tools.ad_expert.type_store import centroids_folder, list_cards, load_centroids, save_centroids
from flawscope.tools.ad_expert.zero_shot import ZeroShotConfig, patch_scores_of, soft_maximum
from flawscope.tools.backbones import VisualFeatures

WIDTH = 8


class WordsAndPatches:
    """A backbone whose texts are directions drawn from their letters and whose patches are grey levels."""

    name = "words-and-patches"
    weights_sha256 = "a" * 64
    has_text = True

    def __init__(self) -> None:
        self.embedded = 0

    def encode_image(self, batch: np.ndarray) -> VisualFeatures:
        grey = batch.astype(np.float32).mean(axis=3)
        h, w = grey.shape[1] // 8, grey.shape[2] // 8
        cells = grey[:, : h * 8, : w * 8].reshape(-1, h, 8, w, 8).mean(axis=(2, 4)).reshape(len(batch), h * w, 1)
        tokens = np.concatenate([cells / 255, np.ones((len(batch), h * w, WIDTH - 1), np.float32)], axis=2)
        return VisualFeatures((tokens, 2 * tokens), tokens.mean(axis=1), (h, w))

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        self.embedded += len(prompts)
        rows = [
            np.random.default_rng(int.from_bytes(hashlib.sha256(p.encode()).digest()[:8])).normal(size=WIDTH)
            for p in prompts
        ]
        return np.asarray([row / np.linalg.norm(row) for row in rows], np.float32)


@pytest.fixture
def backbone() -> WordsAndPatches:
    return WordsAndPatches()


# --- centroids --------------------------------------------------------------------------------------------------------


def test_a_centroid_is_seven_parts_look_and_three_parts_text() -> None:
    keys = np.tile([[2.0, 0.0]], (5, 1))
    fitted = fit_centroids(keys, ["dent"] * 5, {"dent": np.array([0.0, 3.0]), "scratch": np.array([0.0, -1.0])})
    assert fitted.names == ("dent", "scratch")
    assert fitted.counts.tolist() == [5, 0]
    np.testing.assert_allclose(fitted.vectors, [np.array([0.7, 0.3]) / np.hypot(0.7, 0.3), [0, -1]], atol=1e-7)


def test_fewer_than_five_examples_are_known_by_their_name_alone() -> None:
    texts = {"dent": np.array([0.0, 1.0])}
    assert fit_centroids(np.tile([[1.0, 0.0]], (4, 1)), ["dent"] * 4, texts).vectors.tolist() == [[0, 1]]
    with pytest.raises(InputError, match="5 pictures"):
        fit_centroids(np.tile([[1.0, 0.0]], (4, 1)), ["dent"] * 4)


def test_without_text_a_centroid_is_the_mean_direction() -> None:
    keys = np.array([[9.0, 0.0]] * 3 + [[0.0, 0.1]] * 3)
    fitted = fit_centroids(keys, ["dent"] * 6)
    np.testing.assert_allclose(fitted.vectors, [[0.5**0.5, 0.5**0.5]], atol=1e-7)


def test_refinement_moves_centroids_over_the_keys_and_is_off_by_default() -> None:
    angles = np.deg2rad([0, 0, 0, 0, 80, 90, 90, 90, 90, 90])
    keys = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = ["dent"] * 5 + ["scratch"] * 5  # the fifth dent lies among the scratches
    plain, refined = fit_centroids(keys, labels), fit_centroids(keys, labels, refine=True)
    assert np.rad2deg(np.arctan2(plain.vectors[0, 1], plain.vectors[0, 0])) > 10
    np.testing.assert_allclose(refined.vectors[0], [1, 0], atol=1e-7)


@pytest.mark.parametrize(
    ("keys", "labels"), [(np.ones((2, 3)), ["a"]), (np.full((1, 3), np.inf), ["a"]), (np.ones(3), ["a", "b", "c"])]
)
def test_keys_that_make_no_sense_are_refused(keys: np.ndarray, labels: list[str]) -> None:
    with pytest.raises(InputError, match="finite keys"):
        fit_centroids(keys, labels)


def test_texts_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="different widths"):
        fit_centroids(np.ones((5, 3)), ["dent"] * 5, {"dent": np.ones(2), "cut": np.ones(2)})


def centroids(*degrees: float) -> TypeCentroids:
    angles = np.deg2rad(degrees)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return TypeCentroids(tuple("abcdefghijklmnop"[: len(degrees)]), np.full(len(degrees), 9, np.int64), vectors)


def test_shares_are_a_softmax_of_cosines_at_temperature_one_twentieth() -> None:
    shares = centroids(0, 60).shares(np.array([4.0, 0.0]))
    assert shares.tolist() == pytest.approx([1 / (1 + np.exp(-10)), 1 / (1 + np.exp(10))], rel=1e-5)
    assert centroids(0, 60).match(np.array([4.0, 0.0])).names == ("a",)


def test_at_most_three_types_and_none_below_a_tenth() -> None:
    near = centroids(0, 1, 2, 3, 90)
    match = near.match(np.array([1.0, 0.0]))
    assert match.names == ("a", "b", "c")
    assert list(match.shares) == sorted(match.shares, reverse=True)
    assert min(match.shares) >= 0.1
    assert centroids(*[0.1 * i for i in range(12)]).match(np.array([1.0, 0.0])).names == ()  # each one twelfth


@pytest.mark.parametrize("key", [np.ones(3), np.array([np.nan, 0.0])])
def test_a_key_of_another_width_or_not_finite_is_refused(key: np.ndarray) -> None:
    with pytest.raises(InputError):
        centroids(0, 90).match(key)


def features() -> VisualFeatures:
    first = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]], np.float32)
    return VisualFeatures((first, first[..., ::-1]), first.mean(axis=1), (2, 2))


def test_a_key_is_the_weighted_mean_of_tokens_at_unit_length() -> None:
    weights = np.array([[3.0, 1.0], [0.0, 0.0]])
    apart = defect_key(features(), weights)
    np.testing.assert_allclose(apart, np.array([3, 1, 1, 3]) / np.sqrt(20), atol=1e-6)
    joint = defect_key(features(), weights, joint=True)  # both layers say the same here: the mean of (1, 0) and (0, 1)
    np.testing.assert_allclose(joint, [0.5**0.5, 0.5**0.5], atol=1e-6)


@pytest.mark.parametrize("weights", [np.ones(3), np.zeros(4), np.array([1, 1, 1, -1.0]), np.full(4, np.nan)])
def test_weights_that_make_no_sense_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(InputError):
        defect_key(features(), weights)


def test_layers_of_different_widths_have_no_mean() -> None:
    odd = VisualFeatures((np.ones((1, 1, 2), np.float32), np.ones((1, 1, 3), np.float32)), np.ones((1, 2)), (1, 1))
    with pytest.raises(InputError, match="share one width"):
        defect_key(odd, np.ones(1), joint=True)


def test_mask_weights_are_the_covered_share_of_each_patch() -> None:
    mask = np.zeros((4, 8), bool)
    mask[:2, :2] = True
    mask[3, 7] = True
    np.testing.assert_allclose(mask_weights(mask, (2, 2)), [[0.5, 0], [0, 0.125]])


# --- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["base", "obj", "cls", "both"])
def test_without_types_the_anchors_are_those_of_the_generic_ensemble_to_the_bit(
    backbone: WordsAndPatches, form: Any, tmp_path: Path
) -> None:
    noun = "metal nut" if form in ("obj", "both") else None
    generic = ensemble_anchors(backbone, noun)
    for folder in (None, tmp_path, tmp_path):
        typed = type_anchors(backbone, (), form=form, noun="metal nut", folder=folder)
        np.testing.assert_array_equal(typed.normal, generic.normal)
        np.testing.assert_array_equal(typed.abnormal, generic.abnormal)
        assert (typed.names, typed.prompts_sha256) == (generic.names, generic.prompts_sha256)


@pytest.mark.parametrize("form", ["base", "obj"])
def test_forms_without_a_type_ignore_types(backbone: WordsAndPatches, form: Any) -> None:
    typed = type_anchors(backbone, ["scratch"], form=form)
    assert typed.names == ("generic",)
    np.testing.assert_array_equal(typed.abnormal, ensemble_anchors(backbone).abnormal)


def test_each_type_has_an_anchor_of_its_own_words(backbone: WordsAndPatches) -> None:
    anchors = type_anchors(backbone, ["scratch", "colour_spot", "scratch"], form="both", noun="tile")
    ensemble = load_ensemble()
    words = ensemble.sentences(["broken {noun}, with color spot defect type"], "tile")
    assert anchors.names == ("scratch", "colour_spot")
    assert len(words) == len(ensemble.templates)
    np.testing.assert_array_equal(anchors.abnormal[1], embed_state(backbone, words))
    np.testing.assert_array_equal(anchors.normal, ensemble_anchors(backbone, "tile").normal)
    plain = type_anchors(backbone, ["scratch", "colour_spot"], form="cls", noun="tile")
    np.testing.assert_array_equal(plain.normal, ensemble_anchors(backbone).normal)
    assert len({anchors.prompts_sha256, plain.prompts_sha256, ensemble_anchors(backbone).prompts_sha256}) == 3


def test_anchors_are_kept_between_runs(backbone: WordsAndPatches, tmp_path: Path) -> None:
    first = type_anchors(backbone, ["scratch", "dent"], folder=tmp_path)
    spent = backbone.embedded
    again = type_anchors(backbone, ["scratch", "dent"], folder=tmp_path)
    assert backbone.embedded == spent > 0
    np.testing.assert_array_equal(again.abnormal, first.abnormal)
    for path in tmp_path.iterdir():
        path.write_bytes(b"half a file")
    damaged = type_anchors(backbone, ["scratch", "dent"], folder=tmp_path)
    np.testing.assert_array_equal(damaged.abnormal, first.abnormal)
    assert backbone.embedded > spent


@pytest.mark.parametrize("name", ["combined", "scratches", "nothing"])
def test_what_is_no_specific_type_is_refused(backbone: WordsAndPatches, name: str) -> None:
    with pytest.raises(InputError, match="no specific defect type"):
        type_anchors(backbone, [name])


def test_a_backbone_without_text_is_refused(embedded_backbone: Any) -> None:
    with pytest.raises(BackendError, match="no text tower"):
        type_anchors(embedded_backbone, ["scratch"])


def test_types_are_combined_by_logsumexp_less_log_of_their_number() -> None:
    cosines = np.array([[0.3, 0.1, -0.2], [0.2, 0.2, 0.2]])
    tau = 0.07
    expected = tau * (np.log(np.exp(cosines / tau).sum(axis=1)) - np.log(3))
    np.testing.assert_allclose(soft_maximum(cosines, tau), expected, atol=1e-12)
    np.testing.assert_array_equal(soft_maximum(cosines[:, :1], tau), cosines[:, 0])


def test_the_second_look_uses_the_types_that_the_first_one_finds(backbone: WordsAndPatches, tmp_path: Path) -> None:
    picture = np.full((1, 32, 32, 3), 40, np.uint8)
    picture[:, 8:16, 8:16] = 255
    seen = backbone.encode_image(picture)
    patch_scores = np.zeros((4, 4), np.float32)
    patch_scores[1, 1] = 1.0
    bright, dark = (np.array([level, *[1] * (WIDTH - 1)], np.float32) for level in (1.0, -3.0))
    known = fit_centroids(np.concatenate([np.tile(bright, (5, 1)), np.tile(dark, (5, 1))]), ["hole"] * 5 + ["dent"] * 5)
    anchors, match = anchors_of_picture(backbone, known, seen, patch_scores, folder=tmp_path)
    assert match.names == anchors.names == ("hole",)
    scores = patch_scores_of(seen, anchors, ZeroShotConfig())
    assert scores.shape == (1, 4, 4)
    base, nothing = anchors_of_picture(backbone, known, seen, patch_scores, form="base")
    assert nothing.names == ()
    np.testing.assert_array_equal(base.abnormal, ensemble_anchors(backbone).abnormal)


def test_names_alone_make_centroids_of_every_specific_type(backbone: WordsAndPatches, tmp_path: Path) -> None:
    texts = type_texts(backbone, folder=tmp_path)
    known = centroids_of_names(backbone, folder=tmp_path)
    assert known.names == tuple(sorted(texts))
    assert len(known.names) >= 70
    assert not known.counts.any()
    np.testing.assert_allclose(known.vectors[known.names.index("dent")], texts["dent"], atol=1e-6)
    assert known.match(texts["dent"]).names[0] == "dent"


# --- examples ---------------------------------------------------------------------------------------------------------


def example(path: Path, label: str, mask: np.ndarray | None, references: tuple[Path, ...] = ()) -> TypeExample:
    return TypeExample(path, "plate", label, lambda height, width: mask, references)


def test_examples_are_described_where_they_are_defective_and_others_are_counted(
    backbone: WordsAndPatches, plant: Any
) -> None:
    mask = np.zeros((480, 480), bool)
    mask[70:170, 60:160] = True
    given = [
        example(plant.square, "small holes", mask),
        example(plant.square, "holes", None),
        example(plant.square, "hole", np.zeros((480, 480), bool)),
        example(plant.square, "defective", mask),
        example(plant.square, "gremlins", mask),
    ]
    seen: list[tuple[str, int, int]] = []
    found = describe_examples(given, backbone, weigh_by_mask, lambda *step: seen.append(step))
    assert found.labels == ("hole",)
    assert found.keys.shape == (1, WIDTH)
    assert found.sources == ({"product": "plate", "label": "small holes", "type": "hole", "pictures": 1},)
    assert {(row["label"], row["reason"]) for row in found.left_out} == {
        ("holes", "no mask or map"),
        ("hole", "no mask or map"),
        ("defective", "the label says no type"),
        ("gremlins", "unknown label"),
    }
    assert seen[-1] == ("labelled defects", 5, 5)
    assert describe_examples([], backbone, weigh_by_mask).keys.shape == (0, 1)


def test_a_map_of_references_finds_the_defect_without_a_mask(embedded_backbone: Any, plant: Any) -> None:
    by_map = weighing_by_map(embedded_backbone, None)
    given = [example(plant.square, "hole", None, plant.good[:4]), example(plant.square, "hole", None)]
    found = describe_examples(given, embedded_backbone, by_map)
    mask = np.zeros((480, 480), bool)
    mask[70:170, 60:160] = True  # where the square is
    drawn = describe_examples([example(plant.square, "hole", mask)], embedded_backbone, weigh_by_mask)
    good = describe_examples([example(plant.square, "hole", ~mask)], embedded_backbone, weigh_by_mask)
    assert found.labels == ("hole",)
    assert found.keys[0] @ drawn.keys[0] > found.keys[0] @ good.keys[0]


def test_a_map_of_words_needs_no_references(backbone: WordsAndPatches, plant: Any) -> None:
    found = describe_examples([example(plant.square, "hole", None)], backbone, weighing_by_map(backbone, None))
    assert found.keys.shape == (1, WIDTH)


# --- the store --------------------------------------------------------------------------------------------------------

ORIGIN: dict[str, Any] = {"weighting": "mask", "refined": False, "sources": [], "left_out": []}


@pytest.fixture
def kept(backbone: WordsAndPatches, tmp_path: Path) -> tuple[Home, Path]:
    home = Home(tmp_path / "state")
    return home, save_centroids(home, backbone, centroids(0, 90), ORIGIN)


def test_centroids_are_read_back_as_they_were(backbone: WordsAndPatches, kept: tuple[Home, Path]) -> None:
    home, folder = kept
    stored = load_centroids(home, backbone)
    assert stored is not None
    np.testing.assert_array_equal(stored.centroids.vectors, centroids(0, 90).vectors)
    assert (stored.centroids.names, stored.centroids.counts.tolist()) == (("a", "b"), [9, 9])
    assert stored.card["backbone"] == "words-and-patches"
    assert list_cards(home) == [stored.card]
    first = (folder / "types.json").read_bytes()
    save_centroids(home, backbone, centroids(0, 90), ORIGIN)
    assert (folder / "types.json").read_bytes() == first  # the hash does not depend on when it was written


def test_a_home_without_centroids_has_none(backbone: WordsAndPatches, tmp_path: Path) -> None:
    assert load_centroids(Home(tmp_path), backbone) is None
    assert list_cards(Home(tmp_path)) == []


def _cut(folder: Path) -> None:
    whole = (folder / "centroids.npz").read_bytes()
    (folder / "centroids.npz").write_bytes(whole[: len(whole) // 2])


def _change(folder: Path, **fields: Any) -> None:
    card = json.loads((folder / "types.json").read_text())
    (folder / "types.json").write_text(json.dumps({**card, **fields}))


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        lambda folder: (folder / "centroids.npz").unlink(),
        lambda folder: (folder / "types.json").unlink(),
        lambda folder: (folder / "types.json").write_text("{"),
        lambda folder: (folder / "types.json").write_text("[]"),
        lambda folder: _change(folder, sha256="0" * 64),
        lambda folder: _change(folder, format_version=99),
        lambda folder: _change(folder, names=["a"]),
        lambda folder: _change(folder, names=["a", "b", "c"], counts=[1, 2, 3]),
        lambda folder: _change(folder, weights_sha256="b" * 64),
        lambda folder: _change(folder, sources="none"),
    ],
)
def test_damaged_centroids_are_refused_with_a_remedy(
    backbone: WordsAndPatches, kept: tuple[Home, Path], damage: Any
) -> None:
    home, folder = kept
    damage(folder)
    with pytest.raises(KnowledgeError, match="flawscope kb types build"):
        load_centroids(home, backbone)


def test_centroids_of_other_weights_are_not_used(backbone: WordsAndPatches, kept: tuple[Home, Path]) -> None:
    home, folder = kept
    backbone.weights_sha256 = "c" * 64
    assert load_centroids(home, backbone) is None
    shutil.copytree(folder, centroids_folder(home, backbone.weights_sha256))
    with pytest.raises(KnowledgeError, match="contradict"):
        load_centroids(home, backbone)
