"""Loc and Vis tokens: shapes, hand-worked pooling, padding and scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flawscope.tools.ad_expert.evidence_tokens import (
    EvidenceTokenizer,
    LocTokenizer,
    VisTokenizer,
    loc_input,
    rescale_to,
    significance_pool,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dim", [2048, 3584])
def test_nine_loc_and_eight_vis_tokens_of_the_language_models_width(dim: int) -> None:
    tokenizer = EvidenceTokenizer(768, dim)
    tokens = tokenizer(torch.rand(2, 336, 336), torch.randn(2, 576, 768), (24, 24))
    assert tokens.shape == (2, 17, dim)
    assert tokenizer.loc(torch.rand(2, 2, 96, 96)).shape == (2, 9, dim)
    assert tokenizer.vis(torch.randn(2, 576, 768), torch.rand(2, 24, 24)).shape == (2, 8, dim)


def test_the_convolutions_are_two_to_256_wide_and_end_on_a_grid_of_three() -> None:
    loc = LocTokenizer(32)
    assert [block[0].out_channels for block in loc.blocks] == [16, 32, 64, 128, 256]
    assert loc.blocks(torch.zeros(1, 2, 96, 96)).shape == (1, 256, 3, 3)


def test_one_defect_pixel_survives_the_reduction_of_a_large_map() -> None:
    anomaly_map = torch.zeros(1, 960, 960)
    anomaly_map[0, 505, 555] = 1.0
    mean, peak = loc_input(anomaly_map)[0]
    assert mean.max().item() == pytest.approx(0.01)
    assert (peak == 1.0).nonzero().tolist() == [[r, c] for r in (49, 50, 51) for c in (54, 55, 56)]
    small = loc_input(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]))
    assert small.shape == (1, 2, 96, 96)
    assert small[0, 0, :48, 48:].min().item() == 1.0


def test_the_pool_is_the_weighted_mean_of_each_quarter_by_hand() -> None:
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    significance = torch.zeros(1, 4, 4)
    significance[0, 0, 0], significance[0, 1, 1] = 3.0, 1.0  # tokens 0 and 5
    significance[0, 2, 3] = 0.5  # token 11
    pooled = significance_pool(tokens, significance)[0, :, 0]
    torch.testing.assert_close(pooled, torch.tensor([1.25, 0.0, 0.0, 11.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("grid", [(37, 37), (24, 24), (5, 9), (2, 2), (1, 1)])
def test_a_map_of_zeros_gives_finite_tokens_and_gradients_on_any_grid(grid: tuple[int, int]) -> None:
    tokenizer = EvidenceTokenizer(6, 16)
    tokens = tokenizer(torch.zeros(1, 50, 70), torch.randn(1, grid[0] * grid[1], 6), grid)
    assert torch.isfinite(tokens).all()
    tokens.square().sum().backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_values_are_the_patch_tokens_themselves() -> None:
    vis = VisTokenizer(6, 16)
    same = torch.randn(1, 1, 6).expand(1, 9, 6)
    # whatever the attention, the mean of equal tokens is the token
    expected = vis.mlp(same[:, :1]).expand(1, 8, 16)
    torch.testing.assert_close(vis(same, torch.rand(1, 3, 3)), expected)


def test_padding_changes_nothing() -> None:
    vis = VisTokenizer(6, 16)
    tokens, significance = torch.randn(1, 16, 6), torch.rand(1, 4, 4)
    valid = (torch.arange(16) < 12)[None]
    polluted = torch.where(valid[..., None], tokens, torch.tensor(1e3))
    loud = torch.where(valid.view(1, 4, 4), significance, torch.tensor(9.0))
    torch.testing.assert_close(vis(tokens, significance, valid), vis(polluted, loud, valid))
    assert not torch.allclose(vis(tokens, significance, valid), vis(polluted, loud))


def test_tokens_follow_where_the_defect_is() -> None:
    tokenizer = EvidenceTokenizer(6, 16)
    patches = torch.randn(1, 16, 6)
    left, right = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64)
    left[:, 10:20, 5:15], right[:, 10:20, 45:55] = 1.0, 1.0
    assert not torch.allclose(tokenizer(left, patches, (4, 4)), tokenizer(right, patches, (4, 4)))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="maps"):
        LocTokenizer(8)(torch.zeros(1, 2, 64, 64))
    with pytest.raises(ValueError, match="does not cover"):
        VisTokenizer(6, 8)(torch.zeros(1, 16, 6), torch.zeros(1, 3, 3))


def test_rescaled_tokens_have_the_wanted_length_and_keep_their_proportions() -> None:
    tokens = torch.tensor([[[3.0, 4.0], [0.0, 5.0]], [[0.0, 1.0], [7.0, 0.0]]])
    scaled = rescale_to(tokens, 0.8)
    torch.testing.assert_close(scaled.square().sum(dim=2).mean(dim=1).sqrt(), torch.full((2,), 0.8))
    torch.testing.assert_close(scaled[0], tokens[0] * 0.16)
    torch.testing.assert_close(scaled[1, 1].norm() / scaled[1, 0].norm(), torch.tensor(7.0))
    assert (rescale_to(torch.zeros(1, 3, 4), 0.8) == 0).all()
    half = rescale_to(tokens.bfloat16() * 1e-3, 0.8)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), scaled, atol=1e-2, rtol=0)


def test_weights_survive_a_safetensors_file(tmp_path: Path) -> None:
    saved, fresh = EvidenceTokenizer(6, 16), EvidenceTokenizer(6, 16)
    save_file(saved.state_dict(), tmp_path / "weights.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    given = torch.rand(1, 20, 20), torch.randn(1, 4, 6), (2, 2)
    assert torch.equal(saved(*given), fresh(*given))
