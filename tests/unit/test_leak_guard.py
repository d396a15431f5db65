"""Test pictures of benchmarks are recognised, other pictures are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import save
from fakes import enlarged, texture, with_scratch, with_square
from PIL import Image

from flawscope.agent.errors import ConfigError, KnowledgeError
from flawscope.tools.imaging import load_image
from flawscope.tools.knowledge.guard import LeakGuard, _digest
from flawscope.tools.knowledge.known_pictures import KnownPicture, KnownPictures
from flawscope.tools.knowledge.twins import are_twins, fingerprint


@pytest.fixture
def guard(tmp_path: Path) -> LeakGuard:
    pictures = [
        (f"plate/test/hole/{n}.png", save(tmp_path / "data", f"{n}.png", with_square(texture(n)))) for n in range(3)
    ]
    made = LeakGuard(tmp_path / "knowledge")
    made.add("plates", pictures)
    return made


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_test_picture_is_found_however_it_is_turned(guard: LeakGuard, quarters: int, mirrored: bool) -> None:
    pixels = enlarged(with_square(texture(1)))
    turned = np.rot90(pixels[:, ::-1] if mirrored else pixels, quarters)
    small = np.asarray(Image.fromarray(np.ascontiguousarray(turned)).resize((240, 240)))
    assert guard.find("none", small) == "plate/test/hole/1.png of plates"


def test_the_same_file_is_found_by_its_hash(guard: LeakGuard, tmp_path: Path) -> None:
    sha256 = load_image(tmp_path / "data" / "2.png").sha256
    assert guard.find(sha256, np.zeros((50, 50, 3), np.uint8)) == "plate/test/hole/2.png of plates"


def test_other_pictures_of_the_product_are_free(guard: LeakGuard) -> None:
    for other in (texture(1), with_scratch(texture(1)), with_square(texture(9))):
        guard.refuse("none", enlarged(other))


def test_a_refusal_names_the_test_picture(guard: LeakGuard) -> None:
    with pytest.raises(KnowledgeError, match=r"plate/test/hole/0\.png of plates"):
        guard.refuse("none", enlarged(with_square(texture(0))))


def test_what_is_guarded_is_kept_listed_and_forgotten(guard: LeakGuard, tmp_path: Path) -> None:
    again = LeakGuard(tmp_path / "knowledge")
    (known,) = again.sets()
    assert (known.name, known.pictures) == ("plates", 3)
    assert again.find("none", enlarged(with_square(texture(0)))) is not None
    again.remove("plates")
    assert again.sets() == []
    assert again.find("none", enlarged(with_square(texture(0)))) is None
    with pytest.raises(KnowledgeError, match="Guarded: none"):
        again.remove("plates")
    with pytest.raises(ConfigError, match="cannot name"):
        again.add("../plates", [])


def test_a_damaged_file_is_one_line(guard: LeakGuard) -> None:
    path = guard.folder / "plates.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(KnowledgeError, match=r"plates\.npz is damaged"):
        guard.sets()


@pytest.mark.parametrize(
    "change",
    [
        {"bits": np.zeros(0, np.uint64)},
        {"bits": np.array(3 * ["no bits"])},
        {"thumbnails": np.zeros((3, 8, 8), np.float16)},
        {"names": np.array("one")},
        {"sha256": np.zeros(3)},
    ],
)
def test_arrays_that_do_not_fit_are_damage_though_their_digest_is_right(
    guard: LeakGuard, change: dict[str, np.ndarray]
) -> None:
    (path,) = guard.folder.iterdir()
    with np.load(path) as file:
        arrays = {key: file[key] for key in ("names", "sha256", "bits", "thumbnails")} | change
    np.savez(path, digest=np.array(_digest(arrays)), **arrays)
    with pytest.raises(KnowledgeError, match=r"plates\.npz is damaged"):
        LeakGuard(guard.folder.parents[1]).sets()


def test_nothing_is_made_before_a_set_is_added(tmp_path: Path) -> None:
    guard = LeakGuard(tmp_path / "knowledge")
    assert guard.sets() == []
    assert guard.find("none", texture(1)) is None
    assert not (tmp_path / "knowledge").exists()


def test_many_pictures_are_looked_through_by_their_hashes() -> None:
    cells = np.random.default_rng(0).integers(0, 256, (70, 8, 9, 1), np.uint8).repeat(3, 3)
    prints = [fingerprint(enlarged(one, 20)) for one in cells]
    read: list[int] = []

    def picture(n: int) -> KnownPicture:
        return KnownPicture(f"p{n}", f"{n:064x}", prints[n].bits, lambda: [read.append(n), prints[n]][1])

    known = KnownPictures(picture(n) for n in range(70))
    assert len(known) == 70
    assert known.find("none", prints[66]) == "p66"
    assert known.find("none", prints[66], leave_out="p66") is None
    assert known.find(f"{3:064x}", prints[66]) == "p3"
    assert read == [66]  # the hashes of all others are too far away


def test_flat_pictures_of_different_things_are_no_twins() -> None:
    rng = np.random.default_rng(0)
    noise = [np.kron(rng.integers(98, 103, (32, 32)), np.ones((8, 8)))[..., None].repeat(3, 2) for _ in range(2)]
    first, second = (fingerprint(one.astype(np.uint8)) for one in noise)
    assert float(np.abs(first.thumbnail - second.thumbnail).max()) < 12.0
    assert not are_twins(first, second)
    assert are_twins(first, first)
