"""Learnable prompts and HSP on the tiny CLIP of random weights: the real towers, small."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from full.tiny_clip import MODEL_CFG, tiny_model
from safetensors.torch import load_file, save_file

from flawscope.tools.ad_expert.hsp import HierarchicalSparsePrompts
from flawscope.tools.ad_expert.hsp_clip import ClipSparsePrompts
from flawscope.tools.ad_expert.learned_prompts import LearnedPrompts
from flawscope.tools.backbones.clip_tower import text_forward, vision_forward

WIDTH, TEXT_WIDTH, FEATURES = (
    MODEL_CFG["vision_cfg"]["width"],
    MODEL_CFG["text_cfg"]["width"],
    MODEL_CFG["embed_dim"],
)
SIDE_PX, PATCHES = 48, 36
LAYERS = (2, 4, 6, 8)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenize() -> Any:
    return open_clip.tokenizer.SimpleTokenizer()


def learned(tokenize: Any, **given: Any) -> LearnedPrompts:
    torch.manual_seed(1)
    return LearnedPrompts(tokenize, TEXT_WIDTH, **given)


def clip_prompts() -> ClipSparsePrompts:
    torch.manual_seed(2)
    core = HierarchicalSparsePrompts((WIDTH,) * 4, dim=12, atoms=6)
    return ClipSparsePrompts(core, width=WIDTH, text_width=TEXT_WIDTH)


def test_the_parameters_are_those_of_the_paper(tokenize: Any) -> None:
    prompts = LearnedPrompts(tokenize, 768)
    sizes = {name: tuple(p.shape) for name, p in prompts.named_parameters()}
    assert sizes["normal_context"] == sizes["abnormal_context"] == (12, 768)
    # nine layers are prompted: the first by the context itself, eight by tokens of their own
    assert [sizes[f"deep.{i}"] for i in range(8)] == [(4, 768)] * 8
    assert len(sizes) == 10


def test_the_placeholders_stand_where_the_context_goes(tokenize: Any) -> None:
    prompts = learned(tokenize)
    normal, abnormal = prompts.normal_ids[0].tolist(), prompts.abnormal_ids[0].tolist()
    x, point, damaged, thing = (tokenize([word])[0, 1].item() for word in ("X", ".", "damaged", "object"))
    start, end = 49406, 49407
    assert normal[:16] == [start, *[x] * 12, thing, point, end]
    assert abnormal[:17] == [start, *[x] * 12, damaged, thing, point, end]


def test_a_tokenizer_that_splits_the_placeholder_is_refused() -> None:
    def splits(texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([list(text.encode()) for text in (t.ljust(60)[:60] for t in texts)])

    with pytest.raises(ValueError, match="token of its own"):
        LearnedPrompts(splits, 8)


def test_the_placeholders_own_embeddings_give_clips_own_text_features(model: Any, tokenize: Any) -> None:
    prompts = learned(tokenize, deep_layers=1)
    x = model.token_embedding(tokenize(["X"])[0, 1])
    with torch.no_grad():
        prompts.normal_context.copy_(x.expand(12, -1))
        prompts.abnormal_context.copy_(x.expand(12, -1))
        found = torch.cat(prompts(partial(text_forward, model)))
        slots = " ".join("X" * 12)
        expected = model.encode_text(tokenize([f"{slots} object.", f"{slots} damaged object."]), normalize=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_only_the_prompts_learn(model: Any, tokenize: Any) -> None:
    prompts = learned(tokenize)
    normal, abnormal = prompts(partial(text_forward, model))
    assert normal.shape == abnormal.shape == (1, FEATURES)
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(1))
    (normal * abnormal).sum().backward()
    for name, parameter in prompts.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_deep_tokens_reach_the_layers_after_the_first(model: Any, tokenize: Any) -> None:
    given: list[Any] = []

    def spy(token_ids: torch.Tensor, *, context: Any, deep: Any) -> torch.Tensor:
        given.append((context, deep))
        return text_forward(model, token_ids, context=context, deep=deep)

    prompts = learned(tokenize)
    before = prompts(spy)[0]
    context, deep = given[0]
    assert context.shape == (2, 12, TEXT_WIDTH)
    assert deep[0] is None
    assert [tokens.shape for tokens in deep[1:]] == [(4, TEXT_WIDTH)] * 8
    with torch.no_grad():
        prompts.deep[1].copy_(torch.randn(4, TEXT_WIDTH))  # not a constant: the layer norm would take it out
    assert not torch.allclose(before, prompts(spy)[0])


def test_an_offset_makes_one_abnormal_prompt_a_picture_and_zero_changes_nothing(model: Any, tokenize: Any) -> None:
    prompts, encode = learned(tokenize), partial(text_forward, model)
    normal, abnormal = prompts(encode)
    same, three = prompts(encode, torch.zeros(3, TEXT_WIDTH))
    assert three.shape == (3, FEATURES)
    torch.testing.assert_close(three, abnormal.expand(3, -1), atol=1e-6, rtol=0)
    offsets = torch.zeros(3, TEXT_WIDTH)
    offsets[1] = torch.randn(TEXT_WIDTH)
    same, three = prompts(encode, offsets)
    torch.testing.assert_close(same, normal, atol=1e-6, rtol=0)
    torch.testing.assert_close(three[0], abnormal[0], atol=1e-6, rtol=0)
    assert not torch.allclose(three[1], abnormal[0], atol=1e-3)


def test_weights_survive_a_safetensors_file(tokenize: Any, tmp_path: Path) -> None:
    saved, fresh = learned(tokenize), LearnedPrompts(tokenize, TEXT_WIDTH, abnormal="broken object")
    save_file(saved.state_dict(), tmp_path / "weights.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(fresh.abnormal_ids, saved.abnormal_ids)
    assert torch.equal(fresh.deep[1], saved.deep[1])


# --- HSP in the same towers ---------------------------------------------------------------------------------------


def test_untrained_hsp_leaves_clip_as_it_is_to_the_bit(model: Any, tokenize: Any) -> None:
    pixels, prompts, texts = torch.randn(2, 3, SIDE_PX, SIDE_PX), clip_prompts(), learned(tokenize)
    with torch.no_grad():
        plain = vision_forward(model.visual, pixels, layers=LAYERS)
        run = prompts.start()
        prompted = vision_forward(model.visual, pixels, layers=LAYERS, stage_prompts=run)
        assert torch.equal(plain.global_features, prompted.global_features)
        assert all(torch.equal(a, b) for a, b in zip(plain.patch_tokens, prompted.patch_tokens, strict=True))
        assert len(run.codes) == 4
        encode, offset = partial(text_forward, model), prompts.text_offset(run.prompt)
        none, zero = texts(encode, torch.zeros_like(offset)), texts(encode, offset)
    assert all(torch.equal(a, b) for a, b in zip(none, zero, strict=True))


def test_open_hsp_changes_the_towers_and_learns_through_them(model: Any, tokenize: Any) -> None:
    pixels, prompts, texts = torch.randn(2, 3, SIDE_PX, SIDE_PX), clip_prompts(), learned(tokenize)
    plain = vision_forward(model.visual, pixels, layers=LAYERS)
    prompts.open_visual()
    with torch.no_grad():
        prompts.text_gate.fill_(0.5)
    run = prompts.start()
    seen = vision_forward(model.visual, pixels, layers=LAYERS, stage_prompts=run)
    assert not torch.allclose(seen.patch_tokens[-1], plain.patch_tokens[-1], atol=1e-4)
    assert seen.patch_tokens[-1].shape == plain.patch_tokens[-1].shape
    normal, abnormal = texts(partial(text_forward, model), prompts.text_offset(run.prompt))
    logits = [torch.einsum("bnd,bd->bn", layer, abnormal) - layer @ normal[0] for layer in seen.patch_tokens]
    (torch.stack(logits).square().mean() + 0.1 * run.loss().total).backward()
    for name, parameter in prompts.named_parameters():
        if not name.startswith("hsp.significance"):  # these learn from the mask alone
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name


def test_hidden_padding_reaches_no_query(model: Any) -> None:
    pixels, prompts = torch.randn(2, 3, SIDE_PX, SIDE_PX), clip_prompts()
    prompts.open_visual()
    valid = torch.ones(2, PATCHES, dtype=torch.bool)
    valid[:, -6:] = False
    found = []
    for filler in (0.0, 5.0):
        padded = pixels.clone()
        padded[:, :, -8:] = filler  # the last row of patches
        run = prompts.start(valid)
        with torch.no_grad():
            seen = vision_forward(model.visual, padded, layers=LAYERS, valid=valid, stage_prompts=run)
        found.append((run.prompt, seen.patch_tokens[-1]))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
