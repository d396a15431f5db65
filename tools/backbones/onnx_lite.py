"""The embedded backbone: EfficientNet-Lite2 up to stride 16, run by ONNX Runtime on the CPU.

Notable: one grid for all layers. The picture is resized to a multiple of 16, the stride-8 map is average-pooled
onto the stride-16 grid, so every patch token stands for the same 16x16 model pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...agent.errors import BackendError, WeightsError
from .base import VisualFeatures

WEIGHTS_PATH = Path(__file__).parent / "efficientnet_lite2_stride16.onnx"
WEIGHTS_SHA256 = "bf142f138e6ceea642b2f8835f811e7fa99ce6cd34e8285c8f0ae80f0a7c8a1c"
STRIDE_PX = 16


def load_session(path: Path = WEIGHTS_PATH, expected_sha256: str = WEIGHTS_SHA256, threads: int = 0) -> Any:
    """Open the ONNX file after checking its hash.

    Args:
        path: the ONNX file.
        expected_sha256: its hash; a file with any other content is refused.
        threads: ONNX Runtime's intra-op threads, 0 for all cores.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        WeightsError: the file is missing, unreadable or not the one that was shipped.
    """
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"cannot read the embedded backbone {path.name}: {error.strerror}.", hint="Reinstall flawscope."
        ) from error
    found = hashlib.sha256(blob).hexdigest()
    if found != expected_sha256:
        raise WeightsError(
            f"the embedded backbone {path.name} is damaged (sha256 {found[:12]}…, expected {expected_sha256[:12]}…).",
            hint="Reinstall flawscope.",
        )
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # By default idle threads spin, during a run and after it: they take the cores from the comparison that follows, and
    # on a machine that does anything else they double the time of the forward pass itself.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])


class EfficientNetLite2:
    """EfficientNet-Lite2 stages of stride 8 and 16 (48 and 120 channels) as patch tokens."""

    name = "efficientnet-lite2"
    weights_sha256 = WEIGHTS_SHA256
    has_text = False
    image_size_px = None

    def __init__(self, threads: int = 0) -> None:
        self._session = load_session(threads=threads)

    def run_stages(self, batch: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[np.float32]]:
        """The raw feature maps.

        Pictures go through one by one: the early stages of one at 448 px write 20 MB, those of two no longer fit a
        usual cache, and a batch of eight in one run takes 1.4 to 1.7 times as long for each picture.

        Args:
            batch: uint8 RGB (B, H, W, 3), H and W multiples of 16.
            names: of ``stride4``, ``stride8``, ``stride16a``, ``stride16``.

        Returns:
            One float32 array (B, C, H/s, W/s) per name; each picture's are the same in any batch, to the bit.
        """
        runs: list[list[NDArray[np.float32]]] = [
            self._session.run(list(names), {"image": batch[i : i + 1]}) for i in range(len(batch))
        ]
        return runs[0] if len(runs) == 1 else [np.concatenate(maps) for maps in zip(*runs, strict=True)]

    def encode_image(self, batch: NDArray[np.uint8]) -> VisualFeatures:
        """Extract patch tokens; see ``Backbone.encode_image``."""
        if batch.ndim != 4 or batch.shape[-1] != 3 or batch.dtype != np.uint8 or min(batch.shape[:3]) < 1:
            raise BackendError(f"expected uint8 pictures (B, H, W, 3), got {batch.dtype} {batch.shape}.")
        stride8, stride16 = self.run_stages(fit_to_stride(batch), ("stride8", "stride16"))
        b, _, h, w = stride8.shape
        # Sums of slices: a mean over two short axes takes twenty times as long.
        rows = stride8[:, :, ::2] + stride8[:, :, 1::2]
        pooled = (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)
        tokens = tuple(
            np.ascontiguousarray(m.reshape(b, m.shape[1], -1).transpose(0, 2, 1)) for m in (pooled, stride16)
        )
        return VisualFeatures(
            patch_tokens=tokens,
            global_features=np.concatenate([t.mean(axis=1) for t in tokens], axis=1),
            grid=(h // 2, w // 2),
        )

    def encode_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Refuse: this backbone sees pictures only."""
        raise BackendError(f"the backbone {self.name} has no text tower.", hint="Use a CLIP profile for text prompts.")


def fit_to_stride(batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize each picture so that both sides are multiples of 16 (at least 32 px), changing each by less than 8 px.

    Args:
        batch: uint8 (B, H, W, 3).

    Returns:
        uint8 (B, H', W', 3); the batch itself when it already fits.
    """
    height, width = batch.shape[1:3]
    target = tuple(max(2, round(side / STRIDE_PX)) * STRIDE_PX for side in (height, width))
    if target == (height, width):
        return batch
    size = (target[1], target[0])  # Pillow wants (width, height)
    return np.stack([np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)) for picture in batch])
