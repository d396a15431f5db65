"""What every backbone must do, on the shipped one and on the tests' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import PatchStatistics, texture, with_square

from flawscope.agent.errors import BackendError, ConfigError, WeightsError
from flawscope.tools.backbones import BACKBONES, Backbone, load_backbone, onnx_lite


@pytest.fixture(params=["shipped", "cheap"])
def backbone(request: pytest.FixtureRequest, embedded_backbone: Backbone) -> Backbone:
    return embedded_backbone if request.param == "shipped" else PatchStatistics()


def test_it_keeps_the_contract(backbone: Backbone) -> None:
    assert isinstance(backbone, Backbone)
    assert len(backbone.weights_sha256) == 64
    found = backbone.encode_image(np.stack([texture(0), texture(1)]))
    h, w = found.grid
    assert (h, w) == (6, 6)
    assert found.global_features.shape[0] == 2
    for layer in found.patch_tokens:
        assert layer.dtype == np.float32
        assert layer.shape[:2] == (2, h * w)
        assert np.isfinite(layer).all()


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (31, 200), (100, 40), (1, 1)])
def test_any_size_is_covered_edge_to_edge(backbone: Backbone, size: tuple[int, int]) -> None:
    found = backbone.encode_image(np.full((1, *size, 3), 99, np.uint8))
    assert all(layer.shape[1] == found.grid[0] * found.grid[1] for layer in found.patch_tokens)
    assert min(found.grid) >= 2


def test_a_batch_is_its_pictures_and_repeats_itself(backbone: Backbone) -> None:
    pictures = np.stack([texture(0), with_square(texture(1))])
    together, again = backbone.encode_image(pictures), backbone.encode_image(pictures)
    alone = backbone.encode_image(pictures[1:])
    for layer, same, single in zip(together.patch_tokens, again.patch_tokens, alone.patch_tokens, strict=True):
        np.testing.assert_array_equal(layer, same)
        np.testing.assert_allclose(layer[1], single[0], rtol=1e-3, atol=1e-3 * float(np.abs(single).max()))


def test_the_shipped_one_sees_a_picture_alike_in_any_batch(embedded_backbone: Backbone) -> None:
    pictures = np.stack([texture(0), with_square(texture(1)), texture(2)])
    together = embedded_backbone.encode_image(pictures)
    for number in range(3):
        alone = embedded_backbone.encode_image(pictures[number : number + 1])
        for layer, single in zip(together.patch_tokens, alone.patch_tokens, strict=True):
            np.testing.assert_array_equal(layer[number], single[0])


def test_tokens_lie_where_the_picture_changes(backbone: Backbone) -> None:
    plain = np.full((1, 160, 160, 3), 120, np.uint8)
    marked = plain.copy()
    marked[0, 64:96, 112:144] = (240, 40, 40)  # patches of rows 4-5, columns 7-8 of 10
    before, after = (backbone.encode_image(p).patch_tokens[0][0] for p in (plain, marked))
    row, column = divmod(int(np.linalg.norm(after - before, axis=1).argmax()), 10)
    assert (row in (4, 5), column in (7, 8)) == (True, True)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 4), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((1, 0, 32, 3), np.uint8),
    ],
    ids=lambda b: f"{b.dtype}{b.shape}",
)
def test_what_is_no_picture_is_refused(embedded_backbone: Backbone, batch: np.ndarray) -> None:
    with pytest.raises(BackendError, match="expected uint8 pictures"):
        embedded_backbone.encode_image(batch)


def test_a_backbone_without_text_says_so(embedded_backbone: Backbone) -> None:
    assert not embedded_backbone.has_text
    with pytest.raises(BackendError, match="no text tower"):
        embedded_backbone.encode_text(["a photo"])


def test_weights_that_are_not_the_shipped_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read"):
        onnx_lite.load_session(tmp_path / "none.onnx")
    changed = bytearray(onnx_lite.WEIGHTS_PATH.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.onnx").write_bytes(bytes(changed))
    with pytest.raises(WeightsError, match=r"damaged.*Reinstall"):
        onnx_lite.load_session(tmp_path / "changed.onnx")


def test_an_unknown_backbone_names_the_known_ones() -> None:
    assert "efficientnet-lite2" in BACKBONES
    with pytest.raises(ConfigError, match=r"Known: .*efficientnet-lite2"):
        load_backbone("resnet")
