"""The expert taken apart with a clock: the whole against the forward pass, and pictures in batches.

Whatever is compared runs in turn in one process, so that other work on the machine slows both; ratios are formed per
picture and round, and their median is reported. As in an inspection BLAS has one thread: the idle threads of more would
spin into the forward passes, which then take nearly twice as long and flatter every ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..tools.ad_expert.expert import ExpertConfig, Localisation, prepare
from ..tools.ad_expert.regions import FoundRegion, find_regions
from ..tools.ad_expert.zero_shot import ZeroShotExpert, ZeroShotLook, patch_scores_of, stand_out
from ..tools.backbones import Backbone, VisualFeatures
from ..tools.blas import single_blas_thread
from ..tools.imaging import load_image
from ..tools.product_model import ProductModel

STAGES = ("decode", "resize", "encode", "localise", "regions")
INSIDE = ("encode", "localise", "regions")
"""What counts as the expert: forward pass with its tokens, patch distances with scores and map, suspicious areas."""

Sample = dict[str, float]
"""Seconds: ``STAGES``, ``distances`` (once more, alone) and each bare forward pass by name."""
Picture = NDArray[np.uint8]
Forward = Callable[[], object]


class Judge(Protocol):
    """What follows the forward pass."""

    def localise(self, features: VisualFeatures, rgb: Picture) -> Any:
        """Patch distances, scores and map of a picture."""
        ...

    def regions(self, found: Any) -> list[FoundRegion]:
        """Suspicious areas of what ``localise`` found."""
        ...

    def distances(self, features: VisualFeatures) -> object:
        """The patch distances alone."""
        ...


@dataclass(frozen=True)
class ProductJudge:
    """Against the references of a product, and its words where the backbone has any."""

    product: ProductModel

    def localise(self, features: VisualFeatures, rgb: Picture) -> Localisation:
        """See ``ProductModel.localise``."""
        return self.product.localise(features, rgb)

    def regions(self, found: Localisation) -> list[FoundRegion]:
        """See ``ProductModel.regions``."""
        return self.product.regions(found.anomaly_map)

    def distances(self, features: VisualFeatures) -> object:
        """To the memory bank."""
        return self.product.expert.score_grid(features)


@dataclass(frozen=True)
class WordsJudge:
    """Against text anchors alone."""

    expert: ZeroShotExpert

    def localise(self, features: VisualFeatures, rgb: Picture) -> ZeroShotLook:
        """See ``ZeroShotExpert.localise``."""
        return self.expert.localise(features, rgb)

    def regions(self, found: ZeroShotLook) -> list[FoundRegion]:
        """Areas that stand out of the picture, as the inspection finds them."""
        levels = stand_out(found.patch_scores)
        patch_px = found.anomaly_map.size / found.patch_scores.size
        return find_regions(found.anomaly_map, levels.threshold, min_area_px=patch_px, min_peak=levels.peak)

    def distances(self, features: VisualFeatures) -> object:
        """To the anchors."""
        return patch_scores_of(features, self.expert.anchors, self.expert.config)


@dataclass(frozen=True)
class WholeRow:
    """The expert on one product; milliseconds are medians over pictures and rounds, ratios medians of ratios.

    Attributes:
        name: of the product and the way of judging.
        forward: the bare forward pass, ms.
        stages: ms of ``STAGES`` and ``distances``.
        whole: the stages ``INSIDE``, ms.
        ratio: whole by forward.
        loaded_ratio: all stages, decoding and resizing included, by forward.
        aim: what ``ratio`` should not exceed; None where none is set.
    """

    name: str
    forward: float
    stages: dict[str, float]
    whole: float
    ratio: float
    loaded_ratio: float
    aim: float | None


def whole_row(name: str, samples: Sequence[Sample], forward: str = "forward", aim: float | None = None) -> WholeRow:
    """Summarise the samples of one product against the bare forward pass of that name."""

    def total(sample: Sample, stages: Sequence[str]) -> float:
        return sum(sample[stage] for stage in stages)

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    return WholeRow(
        name=name,
        forward=1e3 * median([sample[forward] for sample in samples]),
        stages={stage: 1e3 * median([sample[stage] for sample in samples]) for stage in (*STAGES, "distances")},
        whole=1e3 * median([total(sample, INSIDE) for sample in samples]),
        ratio=median([total(sample, INSIDE) / sample[forward] for sample in samples]),
        loaded_ratio=median([total(sample, STAGES) / sample[forward] for sample in samples]),
        aim=aim,
    )


def seconds(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and how long it took."""
    begun = time.perf_counter()
    found = function()
    return found, time.perf_counter() - begun


def time_whole(
    path: Path,
    backbone: Backbone,
    config: ExpertConfig,
    judges: Sequence[Judge],
    bare: Callable[[Picture], dict[str, Forward]],
    *,
    bare_first: bool,
    frame: Callable[[Picture], Picture] = lambda rgb: rgb,
) -> list[Sample]:
    """One picture through the expert and through the backbone alone.

    Args:
        path: of the picture.
        backbone: whose ``encode_image`` begins the expert.
        config: for the frame that pictures are brought to.
        judges: each ends the expert in its own way, after one and the same forward pass.
        bare: from a prepared picture, uint8 (1, H, W, 3), to forward passes that have their input ready.
        bare_first: whether the bare passes come before the expert or after it.
        frame: cuts the decoded picture, outside every clock.

    Returns:
        A sample per judge.
    """
    with single_blas_thread():
        image, decode = seconds(lambda: load_image(path))
        rgb = frame(image.rgb)
        batch, resize = seconds(lambda: prepare(rgb, config)[None])
        passes = bare(batch)
        shared: Sample = {"decode": decode, "resize": resize}
        if bare_first:
            shared |= {name: seconds(run)[1] for name, run in passes.items()}
        features, shared["encode"] = seconds(lambda: backbone.encode_image(batch))
        own = [_judge(judge, features, rgb) for judge in judges]
        if not bare_first:
            shared |= {name: seconds(run)[1] for name, run in passes.items()}
    return [{**shared, **sample} for sample in own]


def _judge(judge: Judge, features: VisualFeatures, rgb: Picture) -> Sample:
    found, localise = seconds(lambda: judge.localise(features, rgb))
    _, regions = seconds(lambda: judge.regions(found))
    return {"localise": localise, "regions": regions, "distances": seconds(lambda: judge.distances(features))[1]}


# --- batches ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchRow:
    """Pictures together against pictures alone.

    Attributes:
        name: of the backbone.
        size: pictures in a batch.
        alone: ms a picture, one by one, median.
        together: ms a picture, in one batch, median.
        ratio: together by alone, median of ratios.
        repeats: how many ratios.
    """

    name: str
    size: int
    alone: float
    together: float
    ratio: float
    repeats: int


def batch_row(name: str, size: int, times: Sequence[tuple[float, float]]) -> BatchRow:
    """Summarise pairs of seconds for ``size`` pictures, (one by one, together)."""
    return BatchRow(
        name=name,
        size=size,
        alone=1e3 * statistics.median(alone for alone, _ in times) / size,
        together=1e3 * statistics.median(together for _, together in times) / size,
        ratio=statistics.median(together / alone for alone, together in times),
        repeats=len(times),
    )


def time_batch(
    backbone: Backbone, one_by_one: Picture, together: Picture, *, batch_first: bool
) -> tuple[list[VisualFeatures], VisualFeatures, tuple[float, float]]:
    """Encode two sets of as many pictures, uint8 (B, H, W, 3): one alone each, one as a batch.

    Returns:
        Features of the first set, of the second, and the seconds for either.
    """
    with single_blas_thread():
        if batch_first:
            batch, batch_s = seconds(lambda: backbone.encode_image(together))
        alone, alone_s = seconds(lambda: [backbone.encode_image(picture[None]) for picture in one_by_one])
        if not batch_first:
            batch, batch_s = seconds(lambda: backbone.encode_image(together))
    return alone, batch, (alone_s, batch_s)
