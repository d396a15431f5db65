"""The CLIP backbone against open_clip, against OpenAI's arithmetic, and against the formula of the V-V path."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from full.tiny_clip import MODEL_CFG, build_tiny_clip, tiny_model

from flawscope.agent.errors import BackendError, ConfigError, WeightsError
from flawscope.agent.settings import load_settings
from flawscope.tools.backbones import Backbone, clip_checkpoint, load_backbone
from flawscope.tools.backbones.clip import ClipBackbone, fit_grid, load_clip
from flawscope.tools.backbones.clip_tower import default_layers, interpolate_positions, text_forward, vision_forward
from flawscope.tools.weights import CATALOGUE, Weights, WeightsFile, sha256_of

NOWHERE = Path("/nowhere")
PROMPTS = ("a photo of a flawless part", "a photo of a damaged part", "scratch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> ClipBackbone:
    return load_clip(folder, "tiny", image_size_px=48, home_models=NOWHERE, device="cpu")


@pytest.fixture(scope="module")
def large(folder: Path) -> ClipBackbone:
    """The same weights at one and a half times their native size."""
    return load_clip(folder, "tiny", image_size_px=72, home_models=NOWHERE, device="cpu")


def pictures(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def as_numpy(module: Any) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().astype(np.float64) for name, value in module.state_dict().items()}


# --- independent arithmetic: CLIP as OpenAI wrote it down, in NumPy and double precision ------------------------------


def layer_norm(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def heads_of(x: np.ndarray, count: int) -> np.ndarray:
    return x.reshape(len(x), count, -1).transpose(1, 0, 2)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, count: int, mask: np.ndarray | float = 0.0) -> np.ndarray:
    """One picture or prompt: (N, C) each -> (N, C), before the output projection."""
    q, k, v = (heads_of(part, count) for part in (q, k, v))
    weights = softmax(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]) + mask)
    return (weights @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)


class ReferenceBlock:
    """One residual block; x is (N, C)."""

    def __init__(self, w: dict[str, np.ndarray], name: str, heads: int) -> None:
        self.w, self.name, self.heads = w, name, heads

    def qkv(self, x: np.ndarray) -> list[np.ndarray]:
        heard = layer_norm(x, self.w, f"{self.name}.ln_1")
        merged = heard @ self.w[f"{self.name}.attn.in_proj_weight"].T + self.w[f"{self.name}.attn.in_proj_bias"]
        return np.split(merged, 3, axis=-1)

    def project(self, x: np.ndarray) -> np.ndarray:
        return x @ self.w[f"{self.name}.attn.out_proj.weight"].T + self.w[f"{self.name}.attn.out_proj.bias"]

    def original(self, x: np.ndarray, mask: np.ndarray | float = 0.0) -> np.ndarray:
        x = x + self.project(attend(*self.qkv(x), self.heads, mask))
        hidden = layer_norm(x, self.w, f"{self.name}.ln_2") @ self.w[f"{self.name}.mlp.c_fc.weight"].T
        hidden = hidden + self.w[f"{self.name}.mlp.c_fc.bias"]
        hidden = hidden / (1.0 + np.exp(-1.702 * hidden))  # QuickGELU
        return x + hidden @ self.w[f"{self.name}.mlp.c_proj.weight"].T + self.w[f"{self.name}.mlp.c_proj.bias"]

    def value_value(self, x: np.ndarray) -> np.ndarray:
        v = self.qkv(x)[2]
        return self.project(attend(v, v, v, self.heads))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def reference_image(model: Any, pixels: np.ndarray, heads: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """(3, S, S) normalised -> CLIP's feature (D,), and the V-V path's tokens after each block from a quarter on."""
    w = as_numpy(model.visual)
    p, depth = model.visual.patch_size[0], len(model.visual.transformer.resblocks)
    side = pixels.shape[1] // p
    cut = pixels.reshape(3, side, p, side, p).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
    tokens = cut @ w["conv1.weight"].reshape(w["conv1.weight"].shape[0], -1).T
    x = np.concatenate([w["class_embedding"][None], tokens]) + w["positional_embedding"]
    x = layer_norm(x, w, "ln_pre")
    dense, found = None, {}
    for index in range(1, depth + 1):
        block = ReferenceBlock(w, f"transformer.resblocks.{index - 1}", heads)
        if index >= depth // 4:
            dense = (x if dense is None else dense) + block.value_value(x)
            found[index] = unit(layer_norm(dense[1:], w, "ln_post") @ w["proj"])
        x = block.original(x)
    return unit(layer_norm(x[0], w, "ln_post") @ w["proj"]), found


def reference_text(model: Any, ids: np.ndarray, heads: int) -> np.ndarray:
    w = as_numpy(model)
    x = w["token_embedding.weight"][ids] + w["positional_embedding"]
    causal = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for index in range(len(model.transformer.resblocks)):
        x = ReferenceBlock(w, f"transformer.resblocks.{index}", heads).original(x, causal)
    return unit(layer_norm(x, w, "ln_final")[int(ids.argmax())] @ w["text_projection"])


# --- parity ---------------------------------------------------------------------------------------------------------


def test_features_are_those_of_open_clip(backbone: ClipBackbone) -> None:
    batch = pictures(3, 48, 48)
    pixels, valid, grid = backbone.letterbox(batch)
    model = tiny_model()
    with torch.inference_mode():
        image = model.encode_image(pixels, normalize=True).numpy()
        text = model.encode_text(open_clip.tokenize(list(PROMPTS)), normalize=True).numpy()
    assert grid == (6, 6)
    assert bool(valid.all())
    np.testing.assert_allclose(backbone.encode_image(batch).global_features, image, atol=1e-5)
    np.testing.assert_allclose(backbone.encode_text(PROMPTS), text, atol=1e-5)


def test_preprocessing_is_that_of_open_clip(backbone: ClipBackbone) -> None:
    from PIL import Image

    batch = pictures(1, 96, 96)
    transform = open_clip.image_transform(48, is_train=False)
    np.testing.assert_allclose(backbone.letterbox(batch)[0][0], transform(Image.fromarray(batch[0])), atol=1e-5)


def test_a_standard_architecture_agrees_with_open_clip() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = open_clip.create_model("ViT-S-32").eval()
    with torch.inference_mode():
        pixels = torch.randn(2, 3, 224, 224)
        ids = open_clip.tokenize(list(PROMPTS))
        seen = vision_forward(model.visual, pixels, layers=(3, 6, 9, 12))
        np.testing.assert_allclose(seen.global_features, model.encode_image(pixels, normalize=True), atol=1e-4)
        np.testing.assert_allclose(text_forward(model, ids), model.encode_text(ids, normalize=True), atol=1e-4)
    assert [layer.shape for layer in seen.patch_tokens] == [(2, 49, 384)] * 4


def test_openai_arithmetic_and_the_value_value_formula(backbone: ClipBackbone) -> None:
    batch = pictures(2, 48, 48, seed=3)
    pixels = backbone.letterbox(batch)[0].numpy().astype(np.float64)
    found = backbone.encode_image(batch)
    for number in range(2):
        feature, tokens = reference_image(backbone.model, pixels[number], heads=4)
        np.testing.assert_allclose(found.global_features[number], feature, atol=1e-5)
        for layer, given in zip(backbone.layers, found.patch_tokens, strict=True):
            np.testing.assert_allclose(given[number], tokens[layer], atol=1e-5)
    ids = backbone.token_ids(PROMPTS).numpy()
    for number, row in enumerate(ids):
        np.testing.assert_allclose(
            backbone.encode_text(PROMPTS)[number], reference_text(backbone.model, row, 4), atol=1e-5
        )


def test_quickgelu_is_not_gelu(backbone: ClipBackbone) -> None:
    other = open_clip.model.CLIP(**{**MODEL_CFG, "quick_gelu": False}).eval()
    other.load_state_dict(backbone.model.state_dict())
    pixels = backbone.letterbox(pictures(1, 48, 48))[0]
    with torch.inference_mode():
        features = vision_forward(other.visual, pixels, layers=(8,)).global_features.numpy()
    assert np.abs(features - backbone.encode_image(pictures(1, 48, 48)).global_features).max() > 1e-4


# --- the contract -----------------------------------------------------------------------------------------------------


def test_it_keeps_the_contract(backbone: ClipBackbone) -> None:
    assert isinstance(backbone, Backbone)
    assert (backbone.name, backbone.has_text, backbone.layers) == ("clip", True, (2, 4, 6, 8))
    found = backbone.encode_image(pictures(2, 30, 60))
    assert found.grid == (3, 6)
    assert found.global_features.shape == (2, 32)
    for layer in found.patch_tokens:
        assert layer.shape == (2, 18, 32)
        assert layer.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(layer, axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.global_features, axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize(("depth", "layers"), [(24, (6, 12, 18, 24)), (12, (3, 6, 9, 12)), (4, (1, 2, 3, 4))])
def test_the_layers_are_the_ends_of_the_quarters(depth: int, layers: tuple[int, ...]) -> None:
    assert default_layers(depth) == layers


@pytest.mark.parametrize(
    ("size", "side", "grid"),
    [((100, 100), 37, (37, 37)), ((100, 50), 37, (37, 18)), ((31, 200), 37, (6, 37)), ((1, 5000), 37, (2, 37))],
)
def test_the_longer_side_fills_the_canvas(size: tuple[int, int], side: int, grid: tuple[int, int]) -> None:
    assert fit_grid(*size, side) == grid


def test_a_batch_is_its_pictures_and_repeats_itself(backbone: ClipBackbone) -> None:
    batch = pictures(3, 40, 52)
    together, again = backbone.encode_image(batch), backbone.encode_image(batch)
    alone = backbone.encode_image(batch[1:2])
    for layer, same, single in zip(together.patch_tokens, again.patch_tokens, alone.patch_tokens, strict=True):
        np.testing.assert_array_equal(layer, same)
        np.testing.assert_allclose(layer[1], single[0], atol=1e-5)
    np.testing.assert_allclose(together.global_features[1], alone.global_features[0], atol=1e-5)


@pytest.mark.parametrize("batch", [np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32)])
def test_what_is_no_picture_is_refused(backbone: ClipBackbone, batch: np.ndarray) -> None:
    with pytest.raises(BackendError, match="expected uint8 pictures"):
        backbone.encode_image(batch)


# --- letterbox and positions ----------------------------------------------------------------------------------------


def test_the_padding_has_no_colour(backbone: ClipBackbone) -> None:
    pixels, valid, _ = backbone.letterbox(pictures(2, 24, 48))
    loud = torch.where(valid.reshape(1, 1, 6, 6).repeat_interleave(8, 2).repeat_interleave(8, 3), pixels, 9.0)
    assert not torch.equal(loud, pixels)
    visual = backbone.model.visual
    with torch.inference_mode():
        dropped, other = (vision_forward(visual, p, layers=backbone.layers, valid=valid) for p in (pixels, loud))
        each = valid.expand(2, -1)
        masked = [vision_forward(visual, p, layers=backbone.layers, valid=each) for p in (pixels, loud)]
    for number, layer in enumerate(dropped.patch_tokens):
        torch.testing.assert_close(other.patch_tokens[number], layer, atol=0, rtol=0)
        for hidden in masked:  # hidden from attention, or never computed: the same
            torch.testing.assert_close(hidden.patch_tokens[number][:, valid], layer, atol=1e-5, rtol=0)
            assert not hidden.patch_tokens[number][:, ~valid].any()
    torch.testing.assert_close(masked[1].global_features, dropped.global_features, atol=1e-5, rtol=0)


def test_a_picture_with_the_canvas_ratio_is_not_padded(large: ClipBackbone) -> None:
    pixels, valid, grid = large.letterbox(pictures(1, 100, 100))
    assert (grid, bool(valid.all()), tuple(pixels.shape)) == ((9, 9), True, (1, 3, 72, 72))


def test_the_grid_lies_where_the_picture_changes(large: ClipBackbone) -> None:
    plain = np.full((1, 72, 72, 3), 120, np.uint8)
    marked = plain.copy()
    marked[0, 56:64, 16:24] = (250, 10, 10)  # patch of row 7, column 2
    before, after = (large.encode_image(p).patch_tokens[0][0] for p in (plain, marked))
    assert divmod(int(np.linalg.norm(after - before, axis=1).argmax()), 9) == (7, 2)


def test_interpolated_positions() -> None:
    constant = torch.ones(1 + 24 * 24, 3) * torch.tensor([1.0, -2.0, 0.5])
    torch.testing.assert_close(interpolate_positions(constant, (37, 37)), constant[:1].expand(1 + 37 * 37, -1))
    ramp = torch.cat([torch.tensor([[7.0]]), torch.arange(2.0).repeat(2)[:, None]])  # columns 0 and 1 of a 2x2 grid
    found = interpolate_positions(ramp, (1, 4))
    # sample centres at -0.25, 0.25, 0.75, 1.25 of the two columns, the outer ones held at the edge
    torch.testing.assert_close(found[:, 0], torch.tensor([7.0, 0.0, 0.25, 0.75, 1.0]))
    assert interpolate_positions(ramp, (2, 2)) is ramp


@pytest.mark.parametrize("image_size_px", [48, 72])
def test_without_positions_all_patches_of_one_colour_are_alike(folder: Path, image_size_px: int) -> None:
    backbone = load_clip(folder, "tiny", image_size_px=image_size_px, home_models=NOWHERE, device="cpu")
    backbone.model.visual.positional_embedding.data.fill_(0.3)
    for layer in backbone.encode_image(np.full((1, 50, 50, 3), 77, np.uint8)).patch_tokens:
        np.testing.assert_allclose(layer[0], layer[0, :1].repeat(layer.shape[1], 0), atol=1e-5)


# --- prompts in the towers ------------------------------------------------------------------------------------------


def test_stage_prompts_stand_for_one_stage_each(backbone: ClipBackbone) -> None:
    visual, pixels = backbone.model.visual, backbone.letterbox(pictures(2, 24, 48))[0]
    valid = backbone.letterbox(pictures(2, 24, 48))[1]
    shown: list[tuple[int, tuple[int, ...]]] = []

    def prompts(stage: int, tokens: torch.Tensor) -> torch.Tensor | None:
        shown.append((stage, tuple(tokens.shape)))
        return tokens[:, : stage + 1] if stage != 1 else None

    plain = vision_forward(visual, pixels, layers=backbone.layers, valid=valid)
    none = vision_forward(visual, pixels, layers=backbone.layers, valid=valid, stage_prompts=lambda *_: None)
    some = vision_forward(visual, pixels, layers=backbone.layers, valid=valid, stage_prompts=prompts)
    masked = vision_forward(visual, pixels, layers=backbone.layers, valid=valid.expand(2, -1), stage_prompts=None)
    assert shown == [(stage, (2, 18, 64)) for stage in range(4)]
    for a, b, c, d in zip(plain.patch_tokens, none.patch_tokens, some.patch_tokens, masked.patch_tokens, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)
        torch.testing.assert_close(a, d[:, valid], atol=1e-5, rtol=0)
        assert a.shape == c.shape
        assert not torch.allclose(a, c, atol=1e-4)


def test_stage_prompts_and_context_take_gradients(backbone: ClipBackbone) -> None:
    visual, pixels = backbone.model.visual, backbone.letterbox(pictures(1, 48, 48))[0]
    learnt = torch.zeros(4, 1, 2, 64, requires_grad=True)
    seen = vision_forward(visual, pixels, layers=backbone.layers, stage_prompts=lambda stage, _: learnt[stage])
    seen.patch_tokens[-1].sum().backward()
    assert learnt.grad is not None
    assert bool((learnt.grad.abs().sum(dim=(1, 2, 3)) > 0).all())

    context = torch.zeros(3, 4, 32, requires_grad=True)
    deep = [None, *(torch.full((2, 32), 0.1, requires_grad=True) for _ in range(3))]
    ids = backbone.token_ids([f"x x x x {prompt}" for prompt in PROMPTS])
    text_forward(backbone.model, ids, context=context, deep=deep).sum().backward()
    assert context.grad is not None
    assert bool((context.grad.abs().sum(dim=-1) > 0).all())
    assert all(tokens is None or bool((tokens.grad.abs().sum(dim=-1) > 0).all()) for tokens in deep)


def test_a_context_of_the_words_themselves_changes_nothing(backbone: ClipBackbone) -> None:
    model, ids = backbone.model, backbone.token_ids(PROMPTS[:2])
    with torch.inference_mode():
        words = model.token_embedding(ids)[:, 1:4]
        plain = text_forward(model, ids)
        torch.testing.assert_close(text_forward(model, ids, context=words), plain)
        torch.testing.assert_close(text_forward(model, ids, deep=[None, None]), plain)
        deep = text_forward(model, ids, deep=[None, torch.ones(2, 32)])
    assert not torch.allclose(deep, plain, atol=1e-3)


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_does_not_depend_on_its_company(backbone: ClipBackbone) -> None:
    forward, backward = backbone.encode_text(PROMPTS), backbone.encode_text(PROMPTS[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)
    long = "a very long sentence about one small part " * 3
    np.testing.assert_allclose(backbone.encode_text((PROMPTS[0], long))[0], forward[0], atol=1e-5)
    assert backbone.encode_text(()).shape == (0, 32)


def test_a_prompt_set_is_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_clip(folder, "tiny", image_size_px=48, home_models=NOWHERE, device="cpu")
    first = backbone.encode_text(list(PROMPTS))
    monkeypatch.setattr(backbone, "_embed_prompts", None)
    assert backbone.encode_text(tuple(PROMPTS)) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(backbone: ClipBackbone) -> None:
    with pytest.raises(BackendError, match=r"longer than CLIP reads \(75 tokens\)"):
        backbone.encode_text(["part " * 76])


# --- loading ----------------------------------------------------------------------------------------------------------


def test_the_settings_lead_to_the_backbone(folder: Path, home: Path) -> None:
    loaded = load_settings({"backbone": "clip", "clip_weights": folder, "clip_image_size_px": 70}, environ={})
    found = load_backbone("clip", loaded)
    assert isinstance(found, ClipBackbone)
    assert found.image_size_px == 64  # whole patches of 8 px
    assert found.weights_sha256 == sha256_of(folder / "open_clip_model.safetensors")


def test_every_form_of_file_gives_the_same_model(folder: Path, backbone: ClipBackbone, tmp_path: Path) -> None:
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    state = {f"module.{key}": value for key, value in tiny_model().state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "training.pt")
    batch = pictures(1, 48, 48)
    for file in (folder / "open_clip_pytorch_model.pt", tmp_path / "training.pt"):
        found = load_clip(file, "ignored", image_size_px=48, home_models=NOWHERE, device="cpu").encode_image(batch)
        np.testing.assert_array_equal(found.global_features, backbone.encode_image(batch).global_features)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home's models with a TorchScript program in half precision, as OpenAI publishes, and its catalogue entry."""
    model = tiny_model()
    inputs = {"encode_image": torch.zeros(1, 3, 48, 48), "encode_text": open_clip.tokenize("x")}
    path = tmp_path / "models" / "tiny-openai" / "tiny.pt"
    path.parent.mkdir(parents=True)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch speaks against TorchScript and against tracing attention
        program = torch.jit.trace_module(model, inputs, check_trace=False)
        torch.jit.save(program.half(), path)
    files = (WeightsFile(path.name, "https://example.org/tiny.pt", sha256_of(path)),)
    entry = Weights("tiny-openai", "CLIP backbone", "MIT", 1, files, "tiny-quickgelu")
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    configs = {"tiny-quickgelu": MODEL_CFG, "tiny": {**MODEL_CFG, "quick_gelu": False}}
    monkeypatch.setattr(open_clip, "list_models", lambda: list(configs))
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: json.loads(json.dumps(configs[name])))
    return tmp_path / "models"


def test_a_published_program_is_opened_by_its_hash_only(published: Path, backbone: ClipBackbone) -> None:
    found = load_clip(None, "tiny-quickgelu", image_size_px=48, home_models=published, device="cpu")
    batch = pictures(1, 48, 48)
    ours, whole = (b.encode_image(batch).global_features for b in (found, backbone))
    np.testing.assert_allclose(ours, whole, atol=5e-3)  # half precision on the way
    file = published / "tiny-openai" / "tiny.pt"
    CATALOGUE["tiny-openai"] = replace(CATALOGUE["tiny-openai"], files=(WeightsFile("tiny.pt", "https://x", "0" * 64),))
    with pytest.raises(WeightsError, match="TorchScript program whose sha256"):
        load_clip(file, "tiny-quickgelu", image_size_px=48, home_models=published)


def test_published_weights_are_refused_with_the_other_activation(published: Path) -> None:
    file = published / "tiny-openai" / "tiny.pt"
    with pytest.raises(
        WeightsError, match=r"trained with QuickGELU, but tiny computes GELU\. Set clip_model to tiny-q"
    ):
        load_clip(file, "tiny", image_size_px=48, home_models=published)


@pytest.mark.parametrize(
    ("file", "model_name", "trained_with"),
    [
        ("anything.pt", "ViT-L-14-336", "QuickGELU"),  # only OpenAI published this architecture
        ("clip-openai.pt", "ViT-B-16", "QuickGELU"),
        ("laion2b_s34b_b88k.bin", "ViT-B-16-quickgelu", "GELU"),
    ],
)
def test_an_unknown_file_is_judged_by_what_was_published(
    tmp_path: Path, file: str, model_name: str, trained_with: str
) -> None:
    (tmp_path / file).write_bytes(b"not read before the activation is settled")
    with pytest.raises(WeightsError, match=f"was trained with {trained_with}, but {model_name} computes"):
        load_clip(tmp_path / file, model_name, image_size_px=224, home_models=NOWHERE)


def test_weights_must_come_from_the_file_to_the_last_tensor(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    state = tiny_model().state_dict()
    del state["visual.proj"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(WeightsError, match=r"does not fit .*visual\.proj"):
        load_clip(tmp_path / "less.pt", "tiny", image_size_px=48, home_models=NOWHERE)
    state = {**tiny_model().state_dict(), "visual.positional_embedding": torch.zeros(1 + 16, 64)}
    torch.save(state, tmp_path / "grid.pt")
    with pytest.raises(WeightsError, match=r"positions for a 4x4 grid, .* for 6x6"):
        load_clip(tmp_path / "grid.pt", "tiny", image_size_px=48, home_models=NOWHERE)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04garbage", b"PK\x03\x04 cut off", None], ids=["empty", "pickle", "zip", "cut"]
)
def test_damaged_files_are_named(folder: Path, tmp_path: Path, suffix: str, content: bytes | None) -> None:
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    whole = folder / {".pt": "open_clip_pytorch_model.pt", ".safetensors": "open_clip_model.safetensors"}[suffix]
    (tmp_path / f"bad{suffix}").write_bytes(whole.read_bytes()[:50_000] if content is None else content)
    with pytest.raises(WeightsError, match=f"cannot read the CLIP weights .*bad{re.escape(suffix)}"):
        load_clip(tmp_path / f"bad{suffix}", "tiny", image_size_px=48, home_models=NOWHERE)


def test_a_checkpoint_cannot_bring_code(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    torch.save({"state_dict": {"visual.proj": Path("/tmp")}}, tmp_path / "code.pt")
    with pytest.raises(WeightsError, match="cannot read the CLIP weights"):
        load_clip(tmp_path / "code.pt", "tiny", image_size_px=48, home_models=NOWHERE)


def test_other_towers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"")
    for name in ("RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32", "EVA02-B-16"):
        with pytest.raises(ConfigError, match=f"the CLIP model {name} cannot be used"):
            load_clip(tmp_path / "x.pt", name, image_size_px=224, home_models=NOWHERE)
    with pytest.raises(ConfigError, match=r"no model 'ViT-L-14-335'.*Did you mean ViT-L-14-336"):
        load_clip(tmp_path / "x.pt", "ViT-L-14-335", image_size_px=224, home_models=NOWHERE)


def test_folders_say_what_they_lack(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no open_clip_config\.json"):
        clip_checkpoint.find_checkpoint(tmp_path, "tiny", NOWHERE)
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(WeightsError, match="has no weights"):
        clip_checkpoint.find_checkpoint(tmp_path, "tiny", NOWHERE)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"cannot read .*open_clip_config"):
        load_clip(tmp_path, "tiny", image_size_px=48, home_models=NOWHERE)
