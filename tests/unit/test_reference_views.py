"""What references are worth beyond themselves."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import PatchStatistics, texture

from flawscope.tools.ad_expert import reference_views
from flawscope.tools.ad_expert.expert import ExpertConfig, ReferenceFit, expert_tokens, prepare
from flawscope.tools.ad_expert.reference_views import FEW, fit_references, moved_aside

CONFIG = ExpertConfig(short_side_px=128, bank_size=100_000)
BACKBONE = PatchStatistics()


def test_a_picture_moves_half_a_patch_and_is_mirrored_at_the_border() -> None:
    rows, columns = np.mgrid[:32, :48]
    picture = np.stack([rows, columns, rows], axis=-1).astype(np.uint8)
    moved = moved_aside(picture)
    assert moved.shape == picture.shape
    np.testing.assert_array_equal(moved[:24, :40], picture[8:, 8:])
    np.testing.assert_array_equal(moved[24:, 0, 0], np.arange(31, 23, -1))
    np.testing.assert_array_equal(moved[0, 40:, 1], np.arange(47, 39, -1))


@pytest.mark.parametrize(("count", "views"), [(1, 2), (FEW - 1, 2), (FEW, 1)])
def test_few_references_are_learnt_aside_too_and_leave_with_their_copies(
    count: int, views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_views, "NATURAL", 0.0)  # no mirror image is good enough
    pictures = [prepare(texture(seed), CONFIG) for seed in range(count)]
    fit = fit_references(pictures, [BACKBONE.encode_image(p[None]) for p in pictures], BACKBONE, CONFIG)
    patches = (128 // 16) ** 2
    assert np.bincount(fit.expert.bank.owners).tolist() == [views * patches] * count
    if count > 1:
        assert 0 not in fit.without(0).bank.owners


def test_a_part_that_lies_half_a_patch_aside_is_nearer_for_it() -> None:
    pictures = [prepare(texture(seed), CONFIG) for seed in range(3)]
    fit = fit_references(pictures, [BACKBONE.encode_image(p[None]) for p in pictures], BACKBONE, CONFIG)
    plain = ReferenceFit([expert_tokens(BACKBONE.encode_image(p[None])) for p in pictures], range(3), CONFIG)
    aside = BACKBONE.encode_image(moved_aside(pictures[0])[None])
    assert fit.expert.score_grid(aside).mean() < 0.5 * plain.expert.score_grid(aside).mean()
