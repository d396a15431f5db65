"""Type-level prompts on CLIP's own architecture: from labelled pictures to the anchors of a second look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from full.tiny_clip import build_tiny_clip

from flawscope.agent.home import Home
from flawscope.tools.ad_expert.prompt_ensemble import ensemble_anchors
from flawscope.tools.ad_expert.type_centroids import MIN_EXAMPLES, fit_centroids
from flawscope.tools.ad_expert.type_examples import TypeExample, describe_examples, weigh_by_mask, weighing_by_map
from flawscope.tools.ad_expert.type_prompts import anchors_of_picture, type_anchors
from flawscope.tools.ad_expert.type_store import load_centroids, save_centroids
from flawscope.tools.ad_expert.zero_shot import ZeroShotConfig, ZeroShotExpert, patch_scores_of
from flawscope.tools.backbones.clip import ClipBackbone, load_clip
from flawscope.tools.imaging import load_image


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> ClipBackbone:
    folder = build_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")
    return load_clip(folder, "tiny", image_size_px=48, home_models=Path("/nowhere"), device="cpu")


def examples(folder: Path) -> list[TypeExample]:
    """Pictures with a square, five to a label, upright and lying: the grid of patches is never square."""
    from PIL import Image

    found = []
    for number in range(2 * MIN_EXAMPLES):
        height, width = (60, 96) if number % 2 else (96, 60)
        picture = np.random.default_rng(number).integers(100, 140, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), bool)
        mask[20:40, 10:30] = True
        picture[mask] = (250, 30, 30) if number < MIN_EXAMPLES else (10, 10, 10)
        path = folder / f"{number}.png"
        Image.fromarray(picture).save(path)
        label = "different colour spot" if number < MIN_EXAMPLES else "hole"
        found.append(TypeExample(path, "plate", label, lambda *_, mask=mask: mask))
    return found


def test_from_labelled_pictures_to_the_anchors_of_a_second_look(backbone: ClipBackbone, tmp_path: Path) -> None:
    given = examples(tmp_path)
    described = describe_examples(given, backbone, weigh_by_mask)
    texts = {name: type_anchors(backbone, [name], form="cls").abnormal[0] for name in ("colour_spot", "hole", "dent")}
    fitted = fit_centroids(described.keys, described.labels, texts)
    assert fitted.names == ("colour_spot", "dent", "hole")
    np.testing.assert_allclose(np.linalg.norm(fitted.vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(fitted.vectors[1], texts["dent"], atol=1e-6)

    home = Home(tmp_path / "home")
    save_centroids(home, backbone, fitted, {"weighting": "mask", "refined": False, "sources": [], "left_out": []})
    stored = load_centroids(home, backbone)
    assert stored is not None

    seen = backbone.encode_image(load_image(given[0].path).rgb[None])
    first = patch_scores_of(seen, ensemble_anchors(backbone), ZeroShotConfig())[0]
    anchors, match = anchors_of_picture(
        backbone, stored.centroids, seen, first, form="both", noun="plate", folder=tmp_path / "anchors"
    )
    assert anchors.names == (match.names or ("generic",))
    look = ZeroShotExpert(backbone, anchors).localise(seen, np.zeros((96, 60, 3), np.uint8))
    assert look.anomaly_map.shape == (96, 60)
    assert np.isfinite(look.anomaly_map).all()


def test_examples_name_themselves_by_mask(backbone: ClipBackbone, tmp_path: Path) -> None:
    described = describe_examples(examples(tmp_path), backbone, weigh_by_mask)
    fitted = fit_centroids(described.keys, described.labels)
    nearest = [fitted.names[int(fitted.shares(key).argmax())] for key in described.keys]
    assert nearest == list(described.labels)


def test_the_map_of_words_weighs_where_nobody_drew_a_mask(backbone: ClipBackbone, tmp_path: Path) -> None:
    given = [TypeExample(e.path, e.product, e.label, lambda *_: None) for e in examples(tmp_path)]
    assert describe_examples(given, backbone, weigh_by_mask).labels == ()
    assert len(describe_examples(given, backbone, weighing_by_map(backbone, None)).labels) == len(given)


def test_no_types_are_the_generic_ensemble_to_the_bit(backbone: ClipBackbone) -> None:
    generic, typed = ensemble_anchors(backbone, "plate"), type_anchors(backbone, (), form="both", noun="plate")
    np.testing.assert_array_equal(typed.normal, generic.normal)
    np.testing.assert_array_equal(typed.abnormal, generic.abnormal)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)
    seen = backbone.encode_image(pixels)
    maps = [patch_scores_of(seen, anchors, ZeroShotConfig()) for anchors in (generic, typed)]
    np.testing.assert_array_equal(*maps)
