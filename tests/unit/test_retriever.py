"""Trained key and lock projections at inspection time: numpy, no torch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import PatchStatistics

from flawscope.agent.errors import MissingExtraError
from flawscope.agent.settings import Settings
from flawscope.tools.knowledge.builder import content_hash, open_knowledge_base
from flawscope.tools.knowledge.features import LockSpace
from flawscope.tools.knowledge.retriever import Projection, Tower, canvas_of, configured_retriever, load_retriever
from flawscope.tools.knowledge.schema import load_documents

FEW = tuple(page for page in load_documents() if page.doc_id in {"general.scratch", "general.hole", "textile.good"})


def tensors(depth: int = 2, hidden: int = 1, up: float = 0.0) -> dict[str, np.ndarray]:
    found = {"mean": np.zeros(depth, np.float32), "spread": np.ones(depth, np.float32)}
    for side in ("key", "lock"):
        found[f"{side}.down"] = np.ones((hidden, depth), np.float32)
        found[f"{side}.bias"] = np.zeros(hidden, np.float32)
        found[f"{side}.up"] = np.full((depth, hidden), up if side == "key" else 0.0, np.float32)
    return found


def test_a_tower_by_hand() -> None:
    tower = Tower(np.array([[2.0, 0.0]], np.float32), np.array([0.0], np.float32), np.array([[0.0], [1.0]], np.float32))
    found = tower(np.array([1.0, 0.0], np.float32))
    silu = 2.0 / (1.0 + np.exp(-2.0))  # 1.7616
    np.testing.assert_allclose(found, np.array([1.0, silu]) / np.hypot(1.0, silu), rtol=1e-6)
    far = Tower(np.array([[-1e6, 0.0]], np.float32), np.zeros(1, np.float32), np.ones((2, 1), np.float32))
    np.testing.assert_allclose(far(np.array([1.0, 0.0], np.float32)), [1.0, 0.0], atol=1e-6)  # no overflow


def test_an_untrained_projection_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    mean, spread = rng.normal(size=5).astype(np.float32), np.full(5, 2.0, np.float32)
    projection = Projection.of({**tensors(5, 3), "mean": mean, "spread": spread})
    plain, projected = LockSpace(mean, spread), LockSpace(mean, spread, projection)
    image = rng.normal(size=5).astype(np.float32)
    for words in ("", "a scratch"):
        np.testing.assert_allclose(projected.key(image, words), plain.embed(image, words), atol=1e-6)
        np.testing.assert_allclose(projected.embed(image, words), plain.key(image, words), atol=1e-6)
    np.testing.assert_array_equal(projected.key(None, "a scratch"), plain.key(None, "a scratch"))


def test_key_and_lock_have_towers_of_their_own() -> None:
    space = LockSpace(np.zeros(2, np.float32), np.ones(2, np.float32), Projection.of(tensors(up=1.0)))
    image = np.array([1.0, 0.0], np.float32)
    moved, left = space.key(image, "")[:2], space.embed(image, "")[:2]
    np.testing.assert_allclose(left, [1.0, 0.0], atol=1e-6)
    assert moved[1] > 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key.up": None}, r"key\.up is missing"),
        ({"lock.down": np.ones((1, 3), np.float32)}, "the tensors of lock do not fit"),
        ({"spread": np.array([1.0, 0.0], np.float32)}, "mean and spread do not fit"),
        ({"spread": np.ones(3, np.float32)}, "mean and spread do not fit"),
        ({"key.bias": np.array([np.nan], np.float32)}, "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: dict[str, np.ndarray | None], message: str) -> None:
    broken = {name: value for name, value in {**tensors(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        Projection.of(broken)


def test_a_base_with_a_projection_is_another_base(tmp_path: Path) -> None:
    backbone = PatchStatistics()
    plain = open_knowledge_base(tmp_path, backbone, store="memory", documents=FEW)
    rng = np.random.default_rng(1)
    given = {**tensors(16, 4), "key.up": rng.normal(size=(16, 4)).astype(np.float32)}
    projection = Projection.of(given, "a" * 64)
    trained = open_knowledge_base(tmp_path, backbone, store="memory", documents=FEW, projection=projection)
    again = open_knowledge_base(tmp_path, backbone, store="memory", documents=FEW, projection=projection)
    assert plain.content_hash != trained.content_hash == again.content_hash
    assert content_hash(FEW, backbone) == plain.content_hash
    image = rng.normal(size=16).astype(np.float32)
    found = [base.retrieve(image, "", product=None, k=2).similarities for base in (plain, trained, again)]
    assert found[0] != found[1] == found[2]


def test_without_safetensors_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingExtraError, match=r"trained retriever.*flawscope\[retriever\]"):
        load_retriever(tmp_path / "retriever.safetensors", PatchStatistics())
    assert configured_retriever(Settings(), PatchStatistics()) is None  # and nothing is asked of who has none


def test_the_canvas_is_part_of_the_backbone() -> None:
    class Square(PatchStatistics):
        image_size_px = 518

    assert (canvas_of(PatchStatistics()), canvas_of(Square())) == ("none", "518")
