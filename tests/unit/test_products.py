"""Products on disk: enrolled whole or not at all, verified when read, never replaced by accident."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Plant, save
from fakes import PatchStatistics, texture

from flawscope.agent.errors import ConfigError, InputError, ProductError, StorageError
from flawscope.audits.drift import read_enrolment
from flawscope.tools import product_files
from flawscope.tools.product_files import list_products, load_product, stored_calibration
from flawscope.tools.products import describe, enroll_product, remove_product

BACKBONE = PatchStatistics()


@pytest.fixture
def folder(plant: Plant, tmp_path: Path) -> Path:
    """A copy of the plant's products that a test may damage."""
    shutil.copytree(plant.home / "products", tmp_path / "products")
    return tmp_path / "products"


def test_what_was_learnt_comes_back(plant: Plant) -> None:
    model = load_product(plant.home / "products", "plate", BACKBONE)
    assert model.reference_names == tuple(path.name for path in plant.good)
    assert model.calibration.views[0] == "whole"
    assert model.calibration.scores.shape == (12, len(model.calibration.views))
    assert model.type_examples == {"hole": 3, "scratch": 3}
    assert Path(model.reference_path("03.png")).is_file()
    with pytest.raises(ProductError, match=r"no reference 99\.png"):
        model.reference_path("99.png")
    lines = "\n".join(describe(model, 0.15))
    assert "12 good references" in lines
    assert "conformal" in lines
    assert "hole (3), scratch (3)" in lines
    assert "EXTRAPOLATED" in "\n".join(describe(model, 0.01))


def test_every_damaged_or_missing_file_is_refused_with_the_remedy(folder: Path) -> None:
    names = [path.relative_to(folder / "plate") for path in sorted((folder / "plate").rglob("*")) if path.is_file()]
    assert {"product.json", "arrays.npz", "types.npz"} <= {str(name) for name in names}
    for name in names:
        path = folder / "plate" / name
        whole = path.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], whole[:-9] + bytes([whole[-9] ^ 255]) + whole[-8:], None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            if str(name) == "product.json" and damaged is not None and _is_json(damaged):
                continue  # a byte of a name or a date: nothing that the inspection rests on
            with pytest.raises(ProductError) as raised:
                load_product(folder, "plate", BACKBONE)
            assert "flawscope enroll plate good/*.jpg --replace" in str(raised.value), name
        path.write_bytes(whole)
    load_product(folder, "plate", BACKBONE)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"format": 999}', "{}", "[" * 100_000])
def test_a_manifest_of_another_shape_is_refused(folder: Path, content: str) -> None:
    (folder / "plate" / "product.json").write_text(content)
    with pytest.raises(ProductError, match=r"damaged|another version"):
        load_product(folder, "plate", BACKBONE)


def test_another_backbone_is_refused(folder: Path) -> None:
    class Other(PatchStatistics):
        weights_sha256 = "1" * 64

    with pytest.raises(ProductError, match="other weights"):
        load_product(folder, "plate", Other())


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b", "x" * 65, "ä", "-x", "a\n"])
def test_names_that_could_leave_the_folder_are_refused(folder: Path, name: str) -> None:
    for act in (
        lambda: load_product(folder, name, BACKBONE),
        lambda: remove_product(folder, name),
        lambda: enroll_product(folder, name, [Path("x.png")], BACKBONE),
    ):
        with pytest.raises(ConfigError, match="cannot name a product"):
            act()


def test_an_unknown_product_names_the_known(folder: Path) -> None:
    with pytest.raises(ProductError, match=r"Enrolled: plate\."):
        load_product(folder, "gear", BACKBONE)
    remove_product(folder, "plate")
    assert list_products(folder) == []
    with pytest.raises(ProductError, match="none yet"):
        load_product(folder, "plate", BACKBONE)


def test_a_product_is_replaced_only_on_request_and_only_by_a_whole_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [save(tmp_path, f"{seed}.png", texture(200 + seed)) for seed in range(3)]
    with pytest.raises(ConfigError, match="--replace"):
        enroll_product(folder, "plate", good, BACKBONE)
    before = load_product(folder, "plate", BACKBONE).fingerprint

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(product_files.np, "savez", full)
        with pytest.raises(StorageError, match="No space left"):
            enroll_product(folder, "plate", good, BACKBONE, replace=True)
    assert load_product(folder, "plate", BACKBONE).fingerprint == before
    assert [path.name for path in folder.iterdir()] == ["plate"]
    assert enroll_product(folder, "plate", good, BACKBONE, replace=True).fingerprint != before


def test_references_that_show_nothing_or_twice_the_same(tmp_path: Path) -> None:
    one = save(tmp_path, "one.png", texture(1))
    copy = tmp_path / "copy.png"
    shutil.copy(one, copy)
    flat = save(tmp_path, "flat.png", np.full((96, 96, 3), 7, np.uint8))
    model = enroll_product(tmp_path / "products", "a", [one, copy], BACKBONE)
    assert (model.reference_names, model.left_out) == (("one.png",), ("copy.png",))
    assert model.typical("whole") is None
    assert "fewer than 3 references" in "\n".join(describe(model, 0.05))
    with pytest.raises(InputError, match="one flat colour"):
        enroll_product(tmp_path / "products", "b", [one, flat], BACKBONE)
    with pytest.raises(ProductError, match="no good references"):
        enroll_product(tmp_path / "products", "b", [], BACKBONE)
    with pytest.raises(InputError):
        enroll_product(tmp_path / "products", "b", [tmp_path / "none.png"], BACKBONE)
    with pytest.raises(InputError, match="not a folder"):
        enroll_product(tmp_path / "products", "b", [one], BACKBONE, defects=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no examples"):
        enroll_product(tmp_path / "products", "b", [one], BACKBONE, defects=tmp_path / "empty")
    assert list_products(tmp_path / "products") == ["a"]


def test_the_same_references_give_the_same_product(tmp_path: Path) -> None:
    good = [save(tmp_path, f"{seed}.png", texture(seed)) for seed in range(4)]
    first = enroll_product(tmp_path / "products", "a", good, BACKBONE)
    second = enroll_product(tmp_path / "products", "b", good, BACKBONE)
    np.testing.assert_array_equal(first.calibration.scores, second.calibration.scores)
    np.testing.assert_array_equal(first.expert.bank.tokens, second.expert.bank.tokens)
    assert first.pixel_scale == second.pixel_scale


def test_the_calibration_is_read_without_a_backbone(folder: Path) -> None:
    model = load_product(folder, "plate", BACKBONE)
    calibration, fingerprint = stored_calibration(folder, "plate")
    assert fingerprint == model.fingerprint
    assert calibration.views == model.calibration.views
    assert np.array_equal(calibration.scores, model.calibration.scores)
    assert read_enrolment(folder, "plate").scores == tuple(model.calibration.scores[:, 0])
    with pytest.raises(ProductError, match="no product"):
        stored_calibration(folder, "nut")


@pytest.mark.parametrize("name", ["product.json", "arrays.npz"])
def test_a_damaged_calibration_is_refused(folder: Path, name: str) -> None:
    path = folder / "plate" / name
    for damaged in (b"", b"[]", path.read_bytes()[:-9]):
        path.write_bytes(damaged)
        with pytest.raises(ProductError, match="flawscope enroll plate"):
            stored_calibration(folder, "plate")
