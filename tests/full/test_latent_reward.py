"""The reward's arithmetic, the choice of patches and the ways to move, on numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flawscope.agent.vision_language.latent import LatentSettings
from flawscope.agent.vision_language.latent.patches import map_on_grid, patch_scores, pick, share_inside, standardised
from flawscope.agent.vision_language.latent.reward import (
    Reward,
    divergence,
    normalised_entropy,
    option_shares,
    top_entropy,
)
from flawscope.agent.vision_language.latent.updates import (
    GradientUpdate,
    OneSample,
    SubspaceEvolution,
    centred_ranks,
    principal_directions,
    project,
    root_mean_square,
)

ONE_EACH = [[0], [1]]
NEVER = -math.inf


def reward(settings: LatentSettings | None = None, evidence: dict[str, float] | None = None) -> Reward:
    """For two options that were even without think tokens."""
    even = torch.tensor([0.5, 0.5])
    return Reward(("A", "B"), ONE_EACH, even, torch.ones(2, 3), evidence, settings or LatentSettings())


# --- entropy ----------------------------------------------------------------------------------------------------------


def test_entropy_of_even_and_certain_options() -> None:
    assert float(normalised_entropy(torch.full((5,), 0.2))) == pytest.approx(1.0)
    certain = torch.tensor([1.0, 0.0, 0.0], requires_grad=True)
    entropy = normalised_entropy(certain)
    assert float(entropy.detach()) == 0.0
    entropy.backward()
    assert certain.grad is not None
    assert bool(torch.isfinite(certain.grad).all())
    # .9 and .1 of two: (.9 log .9 + .1 log .1) / log 2
    assert float(normalised_entropy(torch.tensor([0.9, 0.1]))) == pytest.approx(0.468996, abs=1e-6)


@given(st.lists(st.floats(-20, 20), min_size=30, max_size=30))
def test_the_entropy_of_the_likeliest_is_never_above_that_of_all(logits: list[float]) -> None:
    row = torch.tensor([logits])
    logp = row.double().log_softmax(dim=1)
    whole = float(-(logp.exp() * logp).sum())
    assert float(top_entropy(row, 5)) * math.log(5) <= whole + 1e-4
    assert float(top_entropy(row, 5)) <= 1.0 + 1e-6
    assert float(top_entropy(row, 30)) * math.log(30) == pytest.approx(whole, abs=1e-4)


def test_tokens_of_an_option_add_up_and_the_rest_is_missing_mass() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    found = option_shares(logits, [[0, 1], [2]])
    assert found.shares.tolist() == pytest.approx([0.5, 0.5])
    assert found.mass == pytest.approx(0.6)


@pytest.mark.parametrize("logits", [[NEVER, 0.0, 0.0], [NEVER, NEVER, 0.0], [0.0, NEVER, NEVER]])
def test_forbidden_tokens_leave_reward_and_gradient_finite(logits: list[float]) -> None:
    given_logits = torch.tensor(logits, requires_grad=True)
    scored = reward()(given_logits, None, torch.ones(2, 3))
    assert math.isfinite(scored.value)
    scored.total.backward()
    assert given_logits.grad is not None
    assert bool(torch.isfinite(given_logits.grad).all())


# --- reward -----------------------------------------------------------------------------------------------------------


def test_the_reward_term_by_term() -> None:
    logits = torch.tensor([0.72, 0.18, 0.1]).log()  # shares .8 and .2, mass .9
    tokens = torch.ones(2, 3)
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2)) / math.log(2)
    assert reward()(logits, None, tokens).value == pytest.approx(-entropy)
    agreed = reward(evidence={"A": 0.5, "B": -0.5})(logits, None, tokens).value
    assert agreed == pytest.approx(-entropy + 0.5 * (0.8 * 0.5 - 0.2 * 0.5))
    # One coordinate of six moved by 1: a sixth of the squared length, times .1.
    moved = tokens.clone()
    moved[0, 0] += 1.0
    assert reward()(logits, None, moved).value == pytest.approx(-entropy - 0.1 / 6)


def test_mass_that_leaves_the_options_costs() -> None:
    lost = torch.tensor([0.36, 0.09, 0.55]).log()  # the same shares, mass .45: half of what is asked
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2)) / math.log(2)
    assert reward()(lost, None, torch.ones(2, 3)).value == pytest.approx(-entropy + 0.5 * math.log(0.5))
    empty = torch.tensor([1e-9, 0.0, 1.0]).log()  # a refusal: certain, and worth nothing
    even = torch.tensor([0.5, 0.5, 0.0]).log()
    assert reward()(empty, None, torch.ones(2, 3)).value < reward()(even, None, torch.ones(2, 3)).value - 5.0


def test_a_distribution_more_than_a_nat_from_the_base_costs() -> None:
    far = Reward(("A", "B"), ONE_EACH, torch.tensor([0.01, 0.99]), torch.ones(1, 3), None, LatentSettings())
    certain = torch.tensor([0.999, 0.001]).log()
    gap = 0.999 * math.log(0.999 / 0.01) + 0.001 * math.log(0.001 / 0.99)
    assert float(divergence(torch.tensor([0.999, 0.001]), torch.tensor([0.01, 0.99]))) == pytest.approx(gap, rel=1e-4)
    scored = far(certain, None, torch.ones(1, 3))
    assert scored.value == pytest.approx(-0.05 - 0.2 * (gap - 1.0), abs=1e-4)  # below the floor nothing more is earned
    assert float(divergence(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))) < math.inf


def test_no_entropy_below_the_floor_is_rewarded() -> None:
    tokens = torch.ones(2, 3)
    values = [reward()(torch.tensor([p, 1 - p]).log(), None, tokens).value for p in (0.9975, 0.9999, 1.0)]
    assert values == pytest.approx([-0.05, -0.05, -0.05])
    logits = torch.tensor([8.0, -8.0], requires_grad=True)
    reward()(logits, None, tokens).total.backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-6


def test_the_published_reward_reads_the_think_positions() -> None:
    answer, think = torch.tensor([0.5, 0.5]).log(), torch.zeros(2, 4)
    published = reward(LatentSettings(reward_at="think"))(answer, think, torch.ones(2, 3))
    sharp = torch.tensor([[50.0, 0.0, 0.0, 0.0]] * 2)
    assert published.value == pytest.approx(-1.0)
    assert reward(LatentSettings(reward_at="think"))(answer, sharp, torch.ones(2, 3)).value == pytest.approx(-0.05)
    assert reward(LatentSettings(reward_at="both"))(answer, sharp, torch.ones(2, 3)).value == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="think positions"):
        reward(LatentSettings(reward_at="think"))(answer, None, torch.ones(2, 3))


# --- patches ----------------------------------------------------------------------------------------------------------


def test_the_map_counts_by_its_highest_value_in_a_cell() -> None:
    anomaly_map = np.zeros((6, 4), np.float32)
    anomaly_map[5, 0] = 0.7
    assert map_on_grid(anomaly_map, (3, 2)).tolist() == pytest.approx([0, 0, 0, 0, 0.7, 0])


def test_flat_scores_tell_nothing_and_choose_nothing() -> None:
    assert standardised(torch.full((6,), 0.3)).tolist() == [0.0] * 6
    flat = torch.full((6,), 0.3)
    scores = patch_scores("both", attention=flat, usual=flat, expert=None, count=6)
    assert pick(scores, (3, 2), 2) == ()
    assert pick(patch_scores("expert", attention=None, usual=None, expert=None, count=6), (3, 2), 2) == ()


def test_what_is_looked_at_for_any_question_is_taken_off() -> None:
    attention = torch.tensor([0.5, 0.2, 0.1, 0.1])
    usual = torch.tensor([0.5, 0.0, 0.1, 0.1])
    scores = patch_scores("attention", attention=attention, usual=usual, expert=None)
    assert pick(scores, (2, 2), 1) == (1,)
    expert = torch.tensor([0.0, 0.0, 0.0, 1.0])
    both = patch_scores("both", attention=attention, usual=usual, expert=expert)
    assert set(pick(both, (1, 4), 2)) == {1, 3}
    assert pick(patch_scores("expert", attention=None, usual=None, expert=expert, count=4), (2, 2), 1) == (3,)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 6), st.integers(0, 5))
def test_picks_are_new_apart_and_few(rows: int, columns: int, count: int, seed: int) -> None:
    scores = torch.rand(rows * columns, generator=torch.Generator().manual_seed(seed))
    taken = (0,)
    found = pick(scores, (rows, columns), count, taken)
    assert len(found) == len(set(found)) <= count
    assert not set(found) & set(taken)
    for one in found:
        for other in found:
            apart = abs(one // columns - other // columns) + abs(one % columns - other % columns)
            assert one == other or apart > 1
    assert [float(scores[i]) for i in found] == sorted((float(scores[i]) for i in found), reverse=True)


def test_the_random_control_depends_on_its_seed_alone() -> None:
    draws = [patch_scores("random", attention=None, usual=None, expert=None, seed=s, count=9) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_share_of_patches_inside_the_defect_beside_chance() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    assert share_inside((0, 3), (2, 2), mask) == (0.5, 0.25)
    assert share_inside((), (2, 2), mask) == (None, 0.25)


# --- updates ----------------------------------------------------------------------------------------------------------


def toward(target: torch.Tensor) -> object:
    return lambda tokens: -float((tokens - target).square().sum())


def test_the_gradient_step_climbs_by_its_rate() -> None:
    initial = torch.full((2, 4), 0.5)
    update = GradientUpdate(initial, LatentSettings(learning_rate=0.02), torch.Generator())
    slope = torch.tensor([[1.0, -2.0, 0.5, 3.0]] * 2)
    moved = update(initial, slope, toward(initial))  # type: ignore[arg-type]
    torch.testing.assert_close(moved - initial, 0.01 * slope.sign(), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="gradient"):
        update(initial, None, toward(initial))  # type: ignore[arg-type]


def test_a_constant_reward_moves_evolution_nowhere_and_the_published_step_anywhere() -> None:
    initial = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    settings = LatentSettings(rank=8)
    context = torch.randn(60, 40, generator=torch.Generator().manual_seed(1))
    evolution = SubspaceEvolution(initial, settings, torch.Generator().manual_seed(2), context)
    torch.testing.assert_close(evolution(initial, None, lambda _: 0.7), initial)
    published = OneSample(initial, settings, torch.Generator().manual_seed(2))
    assert float((published(initial, None, lambda _: 0.7) - initial).norm()) > 0.0


def test_a_constant_added_to_the_reward_changes_nothing_in_evolution() -> None:
    initial = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    context = torch.randn(60, 40, generator=torch.Generator().manual_seed(1))
    steps = []
    for shift in (0.0, -1000.0):
        evolution = SubspaceEvolution(initial, LatentSettings(), torch.Generator().manual_seed(2), context)
        steps.append(evolution(initial, None, lambda tokens, shift=shift: float(tokens.sum()) + shift))
    torch.testing.assert_close(steps[0], steps[1])


def test_eight_pairs_in_a_subspace_find_the_slope_that_one_sample_misses() -> None:
    width, generator = 512, torch.Generator().manual_seed(0)
    context = torch.randn(64, width, generator=generator)
    initial = torch.randn(4, width, generator=generator)
    basis = principal_directions(context, 32)
    slope = torch.randn(4, len(basis), generator=generator) @ basis
    found: dict[str, list[float]] = {"nes": [], "one": []}
    for seed in range(20):
        drawn = torch.Generator().manual_seed(seed)
        nes = SubspaceEvolution(initial, LatentSettings(rank=32), drawn, context)
        one = OneSample(initial, LatentSettings(), drawn)
        for name, update in (("nes", nes), ("one", one)):
            step = update(initial, None, lambda tokens: float((tokens * slope).sum())) - initial
            found[name].append(float((step * slope).sum() / (step.norm() * slope.norm())))
    assert np.mean(found["nes"]) > 0.2
    assert np.mean(found["nes"]) > 3 * abs(float(np.mean(np.abs(found["one"]))))


def test_ranks_share_ties() -> None:
    assert centred_ranks(torch.tensor([3.0, 1.0, 2.0])).tolist() == pytest.approx([0.5, -0.5, 0.0])
    assert centred_ranks(torch.tensor([1.0, 1.0, 5.0])).tolist() == pytest.approx([-0.25, -0.25, 0.5])


def test_directions_are_orthonormal_and_those_that_vary_most() -> None:
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(50, 6, generator=generator) * torch.tensor([9.0, 4.0, 0.1, 0.1, 0.1, 0.1])
    found = principal_directions(context, 2)
    torch.testing.assert_close(found @ found.T, torch.eye(2), atol=1e-5, rtol=0)
    assert abs(float(found[0, 0])) > 0.99
    assert len(principal_directions(torch.ones(5, 6), 4)) == 1


@given(st.integers(0, 200), st.floats(0.0, 30.0))
def test_projection_bounds_rows_and_move_and_is_done_once(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    initial = torch.randn(4, 12, generator=generator)
    settings = LatentSettings()
    found = project(initial + scale * torch.randn(4, 12, generator=generator), initial, settings)
    longest = float(initial.norm(dim=1).max())
    assert float(found.norm(dim=1).max()) <= 1.25 * longest * (1 + 1e-5)
    assert float((found - initial).norm()) <= 0.5 * float(initial.norm()) * (1 + 1e-5)
    torch.testing.assert_close(project(found, initial, settings), found, atol=1e-5, rtol=0)
    torch.testing.assert_close(project(initial, initial, settings), initial)


def test_units_are_those_of_the_tokens() -> None:
    assert root_mean_square(torch.tensor([[3.0, 4.0], [0.0, 5.0]])) == pytest.approx(math.sqrt(12.5))
