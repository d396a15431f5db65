"""The tiny CLIP in the hands of AnomalyCLIP's and WinCLIP's code, and in ours: see ``tests/data/README.md``."""

from __future__ import annotations

import copy
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from full.tiny_clip import build_tiny_clip
from numpy.typing import NDArray

from flawscope.tools.ad_expert.learned_prompts import LearnedPrompts
from flawscope.tools.ad_expert.memory_bank import MemoryBank
from flawscope.tools.ad_expert.prompt_ensemble import ensemble_anchors, load_ensemble
from flawscope.tools.ad_expert.text_anchors import GENERIC, TextAnchors, mean_direction
from flawscope.tools.ad_expert.zero_shot import ZeroShotConfig, ZeroShotExpert, scores_of
from flawscope.tools.backbones.clip import ClipBackbone, load_clip
from flawscope.tools.backbones.clip_tower import text_forward, vision_forward

TOLERANCE = 1e-5
LAYERS = 24
SIZES_PX = (48, 72)

Recorded = dict[str, NDArray[np.float32]]


def read(name: str) -> Recorded:
    with np.load(Path(__file__).parents[1] / "data" / name, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def anomalyclip() -> Recorded:
    return read("anomalyclip_tiny.npz")


@pytest.fixture(scope="module")
def winclip() -> Recorded:
    return read("winclip_tiny.npz")


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory, anomalyclip: Recorded) -> dict[int, ClipBackbone]:
    folder = build_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny", layers=LAYERS)
    loaded = {
        size: load_clip(folder, "tiny", image_size_px=size, home_models=Path("/nowhere"), device="cpu")
        for size in SIZES_PX
    }
    drawn = loaded[48].model.visual.proj[:4].detach().numpy()
    np.testing.assert_allclose(drawn, anomalyclip["probe"], atol=1e-6, err_msg="the tiny CLIP is another: record anew")
    return loaded


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def as_anchors(text: NDArray[np.float32]) -> TextAnchors:
    normal, abnormal = unit(text)
    return TextAnchors(normal, abnormal[None], (GENERIC,))


# --- AnomalyCLIP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES_PX)
def test_patch_tokens_of_all_four_layers_are_those_of_anomalyclip(
    size: int, anomalyclip: Recorded, backbones: dict[int, ClipBackbone]
) -> None:
    found = backbones[size].encode_image(anomalyclip[f"pictures_{size}"]).patch_tokens
    expected = unit(anomalyclip[f"tokens_{size}"][:, 1:])  # the first is the class token
    assert backbones[size].layers == (6, 12, 18, 24)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours[0], theirs, atol=TOLERANCE)
    for one, following in pairwise(expected):  # a layer taken for its neighbour is noticed
        assert np.abs(one - following).max() > 100 * TOLERANCE


def test_learnt_prompts_give_the_text_features_of_anomalyclip(
    anomalyclip: Recorded, backbones: dict[int, ClipBackbone]
) -> None:
    backbone = backbones[48]
    prompts = LearnedPrompts(backbone.token_ids, 32)
    prompts.normal_context.data = torch.tensor(anomalyclip["ctx_pos"][0, 0])
    prompts.abnormal_context.data = torch.tensor(anomalyclip["ctx_neg"][0, 0])
    with torch.no_grad():
        shallow = torch.cat(prompts(partial(text_forward, backbone.model)))
        for index, tokens in enumerate(prompts.deep):
            tokens.data = torch.tensor(anomalyclip[f"deep_{index}"])
        found = torch.cat(prompts(partial(text_forward, backbone.model)))
    expected = unit(anomalyclip["text"])
    np.testing.assert_allclose(found.numpy(), expected, atol=TOLERANCE)
    assert np.abs(shallow.numpy() - expected).max() > 100 * TOLERANCE  # the deep tokens count


@pytest.mark.parametrize("size", SIZES_PX)
def test_the_map_from_picture_to_pixels_is_that_of_anomalyclip(
    size: int, anomalyclip: Recorded, backbones: dict[int, ClipBackbone]
) -> None:
    expert = ZeroShotExpert(backbones[size], as_anchors(anomalyclip["text"]))
    _, anomaly_map = expert.score(anomalyclip[f"pictures_{size}"][0])
    # they sum over the four layers, we average
    np.testing.assert_allclose(4 * anomaly_map, anomalyclip[f"maps_{size}"][0], atol=TOLERANCE)
    assert np.ptp(anomaly_map) > 100 * TOLERANCE


@pytest.mark.parametrize("size", SIZES_PX)
def test_the_image_score_is_that_of_anomalyclip_but_for_the_norm_that_it_leaves_out(
    size: int, anomalyclip: Recorded, backbones: dict[int, ClipBackbone]
) -> None:
    backbone, anchors = backbones[size], as_anchors(anomalyclip["text"])
    pixels, valid, _ = backbone.letterbox(anomalyclip[f"pictures_{size}"])
    without = copy.deepcopy(backbone.model.visual)
    without.ln_post = torch.nn.Identity()
    with torch.no_grad():
        bare, whole = (
            vision_forward(visual, pixels, layers=backbone.layers, valid=valid).global_features.numpy()
            for visual in (without, backbone.model.visual)
        )
    np.testing.assert_allclose(bare, unit(anomalyclip[f"global_{size}"]), atol=TOLERANCE)
    expected = anomalyclip[f"scores_{size}"][0]
    assert float(scores_of(bare, anchors, ZeroShotConfig())[0]) == pytest.approx(float(expected), abs=TOLERANCE)
    assert np.abs(whole - bare).max() > 100 * TOLERANCE  # CLIP's own feature, which ours is, has the norm


def test_sentences_of_a_state_are_averaged_as_in_anomalyclips_ensemble(anomalyclip: Recorded) -> None:
    for state, expected in zip(("normal", "abnormal"), anomalyclip["ensemble"], strict=True):
        np.testing.assert_allclose(mean_direction(anomalyclip[f"{state}_sentences"]), expected, atol=1e-6)


# --- WinCLIP --------------------------------------------------------------------------------------------------------


def test_the_image_score_from_the_same_words_is_that_of_winclip(
    winclip: Recorded, backbones: dict[int, ClipBackbone]
) -> None:
    seen = backbones[48].encode_image(winclip["pictures_48"]).global_features
    np.testing.assert_allclose(seen, unit(winclip["global"]), atol=TOLERANCE)
    found = scores_of(seen, as_anchors(winclip["text"]), ZeroShotConfig())
    np.testing.assert_allclose(found, winclip["scores"], atol=TOLERANCE)
    assert abs(found[0] - found[1]) > 10 * TOLERANCE


def test_the_ensemble_differs_from_winclips_by_the_lengths_of_its_sentences_alone(
    winclip: Recorded, backbones: dict[int, ClipBackbone]
) -> None:
    # anomalib averages sentences as long as the text tower makes them, we (and AnomalyCLIP) those of unit length
    backbone, ensemble = backbones[48], load_ensemble()
    ours = ensemble_anchors(backbone, "metal nut")
    for states, anchor, theirs in (
        (ensemble.normal, ours.normal, winclip["text"][0]),
        (ensemble.abnormal, ours.abnormal[0], winclip["text"][1]),
    ):
        with torch.inference_mode():
            ids = backbone.token_ids(ensemble.sentences(states, "metal nut"))
            as_long_as_made = torch.cat([backbone.model.encode_text(part) for part in ids.split(64)]).numpy()
        np.testing.assert_allclose(as_long_as_made.mean(axis=0), theirs, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(mean_direction(as_long_as_made), anchor, atol=TOLERANCE)
    found = scores_of(winclip["global"], ours, ZeroShotConfig())
    np.testing.assert_allclose(found, winclip["scores"], atol=1e-3)


def test_distances_to_a_reference_are_winclips_association(winclip: Recorded) -> None:
    patches, reference = unit(winclip["patches"])
    bank = MemoryBank(reference, np.zeros(len(reference), np.int32))
    # it halves 1 - cosine, we take the chord: d^2 / 4 = (1 - cosine) / 2
    np.testing.assert_allclose(bank.distances(patches) ** 2 / 4, winclip["association"], atol=1e-6)
