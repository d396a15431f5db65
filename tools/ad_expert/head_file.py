"""Files of trained heads that ``flawscope train expert`` wrote for the embedded backbone."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...agent.errors import ConfigError, InputError, WeightsError
from ..array_files import ARRAY_DAMAGE
from ..backbones import Backbone

if TYPE_CHECKING:
    from ...agent.settings import LoadedSettings
    from .reference_head import ReferenceHead

REMEDY = "Train it again: flawscope train expert."


def configured_head(backbone: Backbone, loaded: LoadedSettings) -> ReferenceHead | None:
    """The head that the settings name.

    Returns:
        None where they name none.

    Raises:
        ConfigError: the backbone has a text tower, for which no heads are trained.
        WeightsError: the head is missing, damaged, or was made for other weights.
    """
    path = loaded.settings.trained_head
    if path is None:
        return None
    if backbone.has_text:
        raise ConfigError(
            f"the setting trained_head ({loaded.origins['trained_head']}) is for the embedded backbone; heads are not"
            f" trained for {backbone.name}.",
            hint="Leave trained_head empty, or use trained_prompts.",
        )
    return load_head(path.expanduser(), backbone.weights_sha256)


def load_head(path: Path, weights_sha256: str | None = None) -> ReferenceHead:
    """Read a trained head.

    Args:
        path: ``head.npz``.
        weights_sha256: of the backbone that pictures will be embedded with; None leaves that unchecked.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or was made for other weights.
    """
    from .reference_head import FORMAT, ReferenceHead  # only where a head is asked for

    if not path.is_file():
        raise WeightsError(f"there is no trained head at {path}.", hint="Train it again, or name another head.npz.")
    try:
        data = path.read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            weights = {name: archive[name] for name in archive.files}
        config = json.loads(weights.pop("header.json").tobytes())
        kind = config.pop("format", None)
    except ARRAY_DAMAGE as error:
        raise WeightsError(f"cannot read the trained head {path}.", hint=REMEDY) from error
    if kind != FORMAT:
        raise WeightsError(f"{path} is not a trained head of this version.", hint=REMEDY)
    if weights_sha256 is not None and config.get("backbone_sha256") != weights_sha256:
        raise WeightsError(
            f"the trained head {path} was made for other weights (sha256 {str(config.get('backbone_sha256'))[:12]}…)"
            f" than these ({weights_sha256[:12]}…).",
            hint="Give the weights that it was trained with, or train it again.",
        )
    try:
        head = ReferenceHead(weights, config, hashlib.sha256(data).hexdigest())
        whole = _whole(head)
    except (*ARRAY_DAMAGE, InputError, WeightsError) as error:  # the last two of weights that do not fit each other
        raise WeightsError(f"the trained head {path} is damaged.", hint=REMEDY) from error
    if not whole:
        raise WeightsError(f"the trained head {path} is damaged.", hint=REMEDY)
    return head


def _whole(head: ReferenceHead) -> bool:
    """Whether all weights are finite, those of the distances fit in shape and sign, and all can judge a picture."""
    from .reference_head import HeadInputs, picture_width

    w, dims = head.weights, head.config["layer_dims"]
    layers, width = len(dims), picture_width(len(dims))
    hidden = len(w["first.bias"])
    shapes = {
        "gains": (2 * layers + 1,),
        "centre": (width,),
        "scale": (width,),
        "first.weight": (hidden, width),
        "first.bias": (hidden,),
        "last.weight": (1, hidden),
        "last.bias": (1,),
    }
    if any(w[name].shape != shape for name, shape in shapes.items()):
        return False
    if not all(np.isfinite(value).all() for value in w.values()) or (w["gains"] < 0).any() or (w["scale"] <= 0).any():
        return False
    some = HeadInputs(
        np.ones((4, 2 * layers + 1), np.float32),
        np.ones(width, np.float32),
        tuple(np.ones((4, dim), np.float32) for dim in dims),
        np.ones(4, np.float32),
        (2, 2),
    )
    with np.errstate(all="ignore"):
        return bool(np.isfinite(head.logits(some)).all())
