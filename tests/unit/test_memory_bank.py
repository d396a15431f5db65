from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flawscope.agent.errors import ProductError
from flawscope.tools.ad_expert import memory_bank
from flawscope.tools.ad_expert.memory_bank import MemoryBank, assign, greedy_coreset


def unit(count: int, dim: int = 8, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def bank_of(tokens: NDArray[np.float32]) -> MemoryBank:
    return MemoryBank(tokens, np.zeros(len(tokens), np.int32))


def test_chord_of_known_angles() -> None:
    bank = bank_of(np.array([[1.0, 0.0]], np.float32))
    query = np.array([[1, 0], [0, 1], [-1, 0], [np.sqrt(0.5), np.sqrt(0.5)]], np.float32)
    expected = [0.0, np.sqrt(2), 2.0, 2 * np.sin(np.pi / 8)]
    np.testing.assert_allclose(bank.distances(query), expected, atol=1e-6)


def test_a_reference_is_at_no_distance_from_itself() -> None:
    tokens = unit(50)
    # float32 cosines err by about 1e-7, whose chord is about 5e-4
    np.testing.assert_allclose(bank_of(tokens).distances(tokens), 0.0, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_another_reference_never_raises_a_distance(seed: int) -> None:
    first, more, query = unit(20, seed=seed), unit(20, seed=seed + 100), unit(30, seed=seed + 200)
    fewer = bank_of(first).distances(query)
    assert (bank_of(np.concatenate([first, more])).distances(query) <= fewer + 1e-6).all()


def test_scores_do_not_depend_on_what_else_is_asked() -> None:
    bank, query = bank_of(unit(40)), unit(30, seed=1)
    alone = np.concatenate([bank.distances(row[None]) for row in query])
    np.testing.assert_allclose(bank.distances(query), alone, atol=1e-5)


@pytest.mark.parametrize("block", [(1, 1), (7, 3), (7, 40), (64, 16)])
def test_blocks_do_not_change_what_is_nearest(block: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, query = unit(40), unit(30, seed=1)
    tokens[31] = tokens[2]  # equals: the first one stands for both
    query[5] = tokens[2]
    squared = ((query[:, None].astype(np.float64) - tokens[None]) ** 2).sum(axis=2)
    monkeypatch.setattr(memory_bank, "BLOCK", block)
    assert assign(query, tokens).tolist() == squared.argmin(axis=1).tolist()
    np.testing.assert_allclose(bank_of(tokens).distances(query), np.sqrt(squared.min(axis=1)), atol=1e-3)


@pytest.mark.parametrize(
    ("tokens", "owners"),
    [
        (np.zeros((0, 4), np.float32), np.zeros(0, np.int32)),
        (np.ones((2, 4), np.float32), np.zeros(3, np.int32)),
        (np.ones(4, np.float32), np.zeros(4, np.int32)),
        (np.array([[np.nan, 1.0]], np.float32), np.zeros(1, np.int32)),
    ],
)
def test_a_bank_that_cannot_be_used_is_refused_with_the_remedy(
    tokens: NDArray[np.float32], owners: NDArray[np.int32]
) -> None:
    with pytest.raises(ProductError, match="Enrol"):
        MemoryBank(tokens, owners)


def test_nothing_is_thinned_that_fits() -> None:
    kept, standing_for = greedy_coreset(unit(10), 10)
    assert kept.tolist() == standing_for.tolist() == list(range(10))


def test_the_coreset_takes_one_of_each_cluster() -> None:
    rng = np.random.default_rng(3)
    # Three tight clusters, one of them rare: a random sample of three would usually miss it, the greedy one cannot.
    centres = np.eye(3, 6, dtype=np.float32)
    labels = np.array([0] * 4 + [1] * 4 + [2])
    tokens = (centres[labels] + 0.01 * rng.normal(size=(9, 6))).astype(np.float32)
    kept, standing_for = greedy_coreset(tokens, 3)
    assert sorted(labels[kept]) == [0, 1, 2]
    np.testing.assert_array_equal(labels[kept][standing_for], labels)


def test_the_coreset_covers_better_than_chance_and_repeats_itself() -> None:
    tokens = unit(1200, dim=6)
    kept, standing_for = greedy_coreset(tokens, 100)
    again, _ = greedy_coreset(tokens, 100)
    np.testing.assert_array_equal(kept, again)
    assert len(set(kept.tolist())) == 100
    random = np.random.default_rng(1).choice(1200, 100, replace=False)
    assert bank_of(tokens[kept]).distances(tokens).max() < bank_of(tokens[random]).distances(tokens).max()
    np.testing.assert_array_equal(standing_for, assign(tokens, tokens[kept]))


def test_enrolment_reports_its_progress_to_the_end() -> None:
    steps: list[tuple[int, int]] = []
    greedy_coreset(unit(60), 20, progress=lambda _, done, total: steps.append((done, total)))
    assert steps[0] == (0, 20)
    assert steps[-1] == (20, 20)
