"""Words among pictures: where a picture lies, how words are read, and how the third ranking joins the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import ColourWords, PatchStatistics, texture

from flawscope.agent.errors import BackendError
from flawscope.tools.backbones import VisualFeatures
from flawscope.tools.knowledge.features import LockSpace
from flawscope.tools.knowledge.fusion import fuse
from flawscope.tools.knowledge.in_memory import InMemoryStore
from flawscope.tools.knowledge.joint import JointPictures, PictureFeatures, encode_words, joint_part
from flawscope.tools.knowledge.part_cache import PartCache
from flawscope.tools.knowledge.schema import KnowledgeDocument
from flawscope.tools.knowledge.search import Found, Scope, search_pages
from flawscope.tools.knowledge.store import LockRecord


class Letters(ColourWords):
    """A text tower that reads a few words: how many of them are ``red``, and how many ``blue``."""

    room = 10

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        self.embedded += len(prompts)
        if longest := next((p for p in prompts if len(p.split()) > self.room), None):
            raise BackendError(f"the prompt {longest[:40]!r} is too long.")
        rows = [[1 + 9 * p.count("red"), 1 + 9 * p.count("blue")] for p in prompts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def test_half_of_a_picture_is_the_whole_and_half_the_marked_place_of_the_deepest_layer() -> None:
    shallow, deep = np.array([[[9.0, 9, 9]] * 2]), np.array([[[0.0, 2, 0], [0, 0, 4]]])
    features = VisualFeatures((np.float32(shallow), np.float32(deep)), np.float32([[3.0, 0, 0]]), (1, 2))
    root = np.sqrt(0.5)
    np.testing.assert_allclose(joint_part(features, np.float32([5, 0])), [root, root, 0], atol=1e-6)
    np.testing.assert_allclose(joint_part(features, np.float32([0, 1])), [root, 0, root], atol=1e-6)
    whole = joint_part(features)  # (1, 0, 0) and (0, 1, 2) / sqrt(5)
    np.testing.assert_allclose(whole, [root, root / np.sqrt(5), 2 * root / np.sqrt(5)], atol=1e-6)


def test_several_pictures_of_a_page_make_one_vector_of_unit_length() -> None:
    one, other = (PictureFeatures(np.float32(part), np.float32(j)) for part, j in (([1, 3], [1, 0]), ([3, 5], [0, 1])))
    mean = PictureFeatures.mean([one, other])
    assert mean.part.tolist() == [2, 4]
    assert mean.joint is not None
    np.testing.assert_allclose(mean.joint, [np.sqrt(0.5)] * 2, atol=1e-6)
    assert PictureFeatures.mean([PictureFeatures(one.part, None)]).joint is None
    encoded = PatchStatistics().encode_image(texture(1)[None])
    assert PictureFeatures.of(encoded, PatchStatistics()).joint is None  # its features lie in no joint space


def test_words_that_are_too_long_are_read_in_pieces_and_a_word_that_is_too_long_is_refused() -> None:
    class Wide(Letters):
        room = 60

    class Narrow(Letters):
        room = 0

    long = " ".join(["red"] * 9 + ["blue"] * 3)
    pieces = encode_words(Letters(), long)
    assert np.linalg.norm(pieces) == pytest.approx(1.0)
    assert pieces[0] > pieces[1] > 0.1
    np.testing.assert_allclose(encode_words(Letters(), "red"), encode_words(Wide(), " red\n"))
    with pytest.raises(BackendError, match="too long"):
        encode_words(Narrow(), "red blue")


def test_a_page_that_a_ranking_cannot_hold_counts_by_its_other_places() -> None:
    rankings = [["a", "b"], ["b"]]
    assert fuse(rankings)[0][0] == "b"
    shares = dict(fuse(rankings, {"a"}))
    assert shares == {"a": pytest.approx(2 / 61), "b": pytest.approx(1 / 62 + 1 / 61)}
    assert fuse(rankings, {"a"})[0][0] == "a"


def found(words: str, image: np.ndarray | None = None, *, joint: bool = True) -> tuple[Found, ...]:
    """Pages ``said`` (words alone), ``shown`` (blue picture), ``both`` (red picture), ``other`` (red picture)."""
    texts = {"said": "red mark", "shown": "", "both": "a red rim and more words", "other": "nothing of it"}
    pictures = {"shown": (0.0, 1.0), "both": (1.0, 0.0), "other": (0.9, 0.1)}
    space = LockSpace(np.zeros(2, np.float32), np.ones(2, np.float32))
    pages = {
        name: KnowledgeDocument(
            doc_id=name,
            scope="product",
            product="gear",
            defect_type="mark",
            general_type="scratch",
            title=text or "untitled",
        )
        for name, text in texts.items()
    }
    images = {name: np.float32(at) for name, at in pictures.items()}
    vectors = {name: space.embed(images.get(name), "page") for name in pages}
    store = InMemoryStore(space.dim)
    store.upsert([LockRecord(name, vectors[name], "gear", "mark", text) for name, text in texts.items()])
    matrix = np.stack([images.get(name, np.zeros(2, np.float32)) for name in pages])
    return search_pages(
        store,
        space,
        vectors,
        Scope.of(pages, None, None),
        words=words,
        image=image,
        joint=JointPictures.of(Letters(), list(pages), matrix) if joint else None,
    )


def test_each_ranking_is_told_and_a_page_without_a_picture_keeps_its_place() -> None:
    hits = {hit.page.doc_id: hit for hit in found("red")}
    assert [*hits] == ["said", "both", "other", "shown"]
    assert hits["said"].ranks == {"words": 1}
    assert hits["said"].word_similarity is None
    assert hits["both"].ranks == {"words": 2, "words_to_picture": 1}
    assert hits["other"].ranks == {"words_to_picture": 2}
    assert hits["shown"].ranks == {"words_to_picture": 3}
    assert hits["said"].score == pytest.approx(2 / 61)
    assert hits["both"].score == pytest.approx(1 / 62 + 1 / 61)
    assert hits["both"].word_similarity is not None
    assert hits["both"].word_similarity > 0.95
    assert hits["both"].similarity is None
    three = {hit.page.doc_id: hit for hit in found("red", np.float32([0, 1]))}
    assert three["shown"].ranks == {"words_to_picture": 3, "picture": 1}


def test_words_that_no_page_holds_go_by_pictures_alone_and_no_text_tower_changes_nothing() -> None:
    hits = found("blue")
    assert [hit.page.doc_id for hit in hits] == ["shown", "other", "both"]
    assert [hit.score for hit in hits] == [hit.word_similarity for hit in hits]
    plain = found("red", joint=False)
    assert [hit.page.doc_id for hit in plain] == ["said", "both"]
    assert all(hit.word_similarity is None and list(hit.ranks) == ["words"] for hit in plain)
    assert [hit.score for hit in plain] == [hit.word_score for hit in plain]
    assert found("blue", joint=False) == ()


def test_what_was_kept_without_the_joint_space_is_seen_again_when_it_is_asked_for(tmp_path: Path) -> None:
    backbone, seen = ColourWords(), []

    def read() -> np.ndarray:
        seen.append(1)
        return texture(1)

    cache = PartCache(tmp_path, backbone)
    first = cache.features("a", read)
    (path,) = tmp_path.rglob("*.npz")
    np.savez(path, part=first.part)
    np.testing.assert_array_equal(cache.part("a", read), first.part)
    assert len(seen) == 1
    again = cache.features("a", read)
    assert len(seen) == 2
    assert again.joint is not None
    np.testing.assert_array_equal(again.joint, first.joint)
    cache.features("a", read)
    assert len(seen) == 2
