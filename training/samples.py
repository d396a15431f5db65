"""What the head is trained on: pictures of products, real and synthetic, compared with a few references each.

A sample is a picture as the head sees it, which holds nothing of the product but its differences from the references.
The references are drawn anew for every episode, in different numbers. Good pictures are also shown as another lamp or
camera would give them, so that a change of the whole picture is not learnt as a defect.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..agent.errors import InputError
from ..benchmarks.corruptions import GRADES, corrupt
from ..benchmarks.datasets import ProductData, load_mask
from ..tools.ad_expert.reference_head import MIN_REFERENCES, head_inputs
from ..tools.imaging import load_image
from .features import FeatureCache
from .synthetic import MIN_SIDE_PX, add_defect

Picture = NDArray[np.uint8]
Report = Callable[[str, int, int], None]
NUISANCES = ("gain", "gamma", "gradient", "blur", "noise", "jpeg")
"""Changes of capture that leave every part where it is."""
COVERED = 0.25
"""Share of a patch that a defect must cover; the most covered patch of a smaller defect counts too."""
LABELLED_REAL, GOOD, SYNTHETIC = "real", "good", "synthetic"


@dataclass(frozen=True)
class EpisodeConfig:
    """How samples are made; all of it decides the result.

    Attributes:
        shots: numbers of references, one is drawn for each episode; fewer where a product has not so many.
        episodes: draws of references a product.
        real: whether labelled test pictures are used beside synthetic defects.
        synthetic: pictures with a made defect per good picture and episode.
        nuisance: share of good and synthetic pictures that get changes of capture.
        max_pictures: of each kind, labelled and good, a product and episode.
    """

    shots: tuple[int, ...] = (4, 16)
    episodes: int = 2
    real: bool = True
    synthetic: int = 2
    nuisance: float = 0.5
    max_pictures: int = 120


@dataclass(frozen=True)
class HeadSample:
    """One picture for the head; arrays are float16 to keep a few thousand in memory.

    Attributes:
        patches: (N, 2 L + 1), see ``HeadInputs``.
        picture: float32 (P,).
        residuals: per layer (N, D_l).
        distances: (N,).
        grid: (h, w).
        target: bool (N,), the defective patches; None where nobody drew them.
        defective: label of the picture.
        product: name of its product.
        kind: ``real``, ``good`` or ``synthetic``.
    """

    patches: NDArray[np.float16]
    picture: NDArray[np.float32]
    residuals: tuple[NDArray[np.float16], ...]
    distances: NDArray[np.float16]
    grid: tuple[int, int]
    target: NDArray[np.bool_] | None
    defective: bool
    product: str
    kind: str


def build_samples(
    products: Sequence[ProductData],
    cache: FeatureCache,
    config: EpisodeConfig,
    seed: int,
    report: Report | None = None,
) -> list[HeadSample]:
    """All samples of some products.

    Args:
        products: with at least three good pictures each.
        cache: features come from it.
        config: see there.
        seed: with a product's name and the number of the episode it decides draws and defects.
        report: told (what, episodes done, in all).

    Raises:
        InputError: a product has too few good pictures, or a picture cannot be read.
    """
    samples: list[HeadSample] = []
    todo = [(product, episode) for product in products for episode in range(config.episodes)]
    for done, (product, episode) in enumerate(todo):
        if report:
            report(f"comparing {product.name}", done, len(todo))
        rng = np.random.default_rng((seed, zlib.crc32(product.name.encode()), episode))
        samples += _episode(product, cache, config, rng, config.shots[episode % len(config.shots)])
    return samples


def real_samples(
    product: ProductData, cache: FeatureCache, config: EpisodeConfig, shots: int, seed: int
) -> list[HeadSample]:
    """All labelled pictures of a product against one draw of references, without synthetic ones, for judging a head."""
    only_real = replace(config, shots=(shots,), episodes=1, real=True, synthetic=0, max_pictures=len(product.tests))
    return build_samples([product], cache, only_real, seed)


def _episode(
    product: ProductData, cache: FeatureCache, config: EpisodeConfig, rng: np.random.Generator, shots: int
) -> list[HeadSample]:
    if len(product.references) <= MIN_REFERENCES:
        raise InputError(f"{product.name} has {len(product.references)} good pictures; training needs three or more.")
    order = rng.permutation(len(product.references))
    count = max(MIN_REFERENCES, min(shots, len(order) - 1))
    chosen = [load_image(product.references[i]).rgb for i in order[:count]]
    memory = cache.remember(chosen)

    def sample(rgb: Picture, mask: NDArray[np.bool_] | None, defective: bool, kind: str) -> HeadSample:
        inputs = head_inputs(cache.features(rgb), memory)
        half = np.float16
        return HeadSample(
            np.clip(inputs.patches, -6e4, 6e4).astype(half),
            inputs.picture,
            tuple(layer.astype(half) for layer in inputs.residuals),
            inputs.distances.astype(half),
            inputs.grid,
            None if mask is None else patch_target(mask, inputs.grid),
            defective,
            product.name,
            kind,
        )

    samples = []
    tests = [product.tests[i] for i in rng.permutation(len(product.tests))[: config.max_pictures]]
    for test in tests if config.real else []:
        rgb = load_image(test.path).rgb
        samples.append(sample(rgb, load_mask(test, *rgb.shape[:2]), test.is_defective, LABELLED_REAL))
    textures: list[Picture] = []
    for index in order[count : count + config.max_pictures]:
        if not config.synthetic:
            break
        good = load_image(product.references[index]).rgb
        clean = np.zeros(good.shape[:2], dtype=bool)
        samples.append(sample(_recaptured(good, config.nuisance, rng), clean, False, GOOD))
        for _ in range(config.synthetic if min(good.shape[:2]) >= MIN_SIDE_PX else 0):
            made = add_defect(good, rng, textures=textures)
            samples.append(sample(_recaptured(made.image, config.nuisance, rng), made.mask, True, SYNTHETIC))
        textures = [*textures[-3:], good]
    return samples


def patch_target(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Which patches a defect covers.

    Args:
        mask: bool (H, W).
        grid: (h, w), covering the picture edge to edge.

    Returns:
        bool (h * w,): patches covered by COVERED or more, and the most covered ones of a smaller defect.
    """
    height_width = (grid[1], grid[0])
    share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(height_width, Image.Resampling.BOX)).ravel()
    return np.asarray(share >= min(COVERED, max(float(share.max()), 1e-6)))


def _recaptured(rgb: Picture, probability: float, rng: np.random.Generator) -> Picture:
    """The picture after one or two changes of capture, with this probability; masks stay true."""
    if rng.random() >= probability:
        return rgb
    for kind in rng.choice(NUISANCES, int(rng.integers(1, 3)), replace=False):
        rgb = corrupt(rgb, str(kind), int(rng.choice(GRADES[:2])), seed=int(rng.integers(1 << 30)), number=0)
    return rgb
