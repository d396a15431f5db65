"""Does a trained head help on products it never saw? One product is left out, the head learns from the others.

For every product, seed and number of references: the untrained expert, the trained head, and the head with a sparse
(HSP) or a dense prompt of the same size. The help test of the sparse prompt is the comparison of the last three. No
picture of the product that is judged takes part in training, nor in the choice of the epoch: training has a fixed
length.

Run: ``flawscope bench head --data DIR --shots 4,16``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import ConfigError, InputError, MissingExtraError
from ..tools.ad_expert.anomaly_map import grid_to_pixels, smooth_grid
from ..tools.ad_expert.reference_head import ReferenceHead, head_scores
from ..tools.backbones import Backbone, load_backbone
from ..tools.imaging import load_image
from .datasets import ProductData, load_dataset, load_mask
from .detection_metrics import image_auroc
from .fewshot import draw_references
from .pixel_curve import PixelCurve

if TYPE_CHECKING:
    from rich.console import Group

    from ..training.embedded import HeadConfig
    from ..training.features import FeatureCache
    from ..training.samples import HeadSample

UNTRAINED = "untrained"
PROMPTS = ("none", "sparse", "dense")
NAMES = {"none": "head", "sparse": "head + sparse prompt", "dense": "head + dense prompt"}
RECALL = 0.95
"""Defective pictures that must alarm where the rate of false alarms is read."""
METRICS = ("image_auroc", "false_alarms", "pixel_auroc", "aupro", "iou", "support")

Say = Callable[[str], None]


@dataclass
class Tally:
    """One method on one product, one picture at a time."""

    scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    supports: list[float] = field(default_factory=list)
    curve: PixelCurve = field(default_factory=PixelCurve)
    drawn: bool = False

    def add(self, score: float, grid: NDArray[np.float32], defective: bool, mask: NDArray[np.bool_] | None) -> None:
        """A picture: its score, its patch scores (h, w), its label and its mask (H, W), None where nobody drew it."""
        self.scores.append(score)
        self.labels.append(defective)
        if mask is None:
            return
        self.curve.update(grid_to_pixels(smooth_grid(grid), *mask.shape), mask)
        if mask.any():
            self.drawn = True
            self.overlaps.append(size_matched_iou(grid, mask))

    def figures(self) -> dict[str, float | None]:
        """The metrics, None where there is nothing to compute them from."""
        return {
            "image_auroc": image_auroc(self.scores, self.labels),
            "false_alarms": false_alarms_at(self.scores, self.labels, RECALL),
            "pixel_auroc": self.curve.auroc() if self.drawn else None,
            "aupro": self.curve.aupro() if self.drawn else None,
            "iou": float(np.mean(self.overlaps)) if self.overlaps else None,
            "support": float(np.mean(self.supports)) if self.supports else None,
        }


def size_matched_iou(grid: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Overlap of a mask with the strongest patches, as many as the mask covers, so that no threshold is needed.

    Args:
        grid: patch scores (h, w).
        mask: bool (H, W), not empty.
    """
    from ..training.samples import patch_target

    target = patch_target(mask, (grid.shape[0], grid.shape[1]))
    strongest = np.argsort(-grid.ravel(), kind="stable")[: target.sum()]
    hits = int(target[strongest].sum())
    return hits / (2 * int(target.sum()) - hits)


def false_alarms_at(scores: Sequence[float], labels: Sequence[bool], recall: float) -> float | None:
    """Share of good pictures at or above the score that ``recall`` of the defective ones reach; None for one class."""
    values, defective = np.asarray(scores), np.asarray(labels, dtype=bool)
    if not 0 < defective.sum() < defective.size:
        return None
    found = np.sort(values[defective])[::-1]
    threshold = found[int(np.ceil(recall * found.size)) - 1]
    return float((values[~defective] >= threshold).mean())


def run_head(
    data: Path,
    shots: Sequence[int] = (4, 16),
    seeds: int = 2,
    products: Sequence[str] | None = None,
    prompts: Sequence[str] = PROMPTS,
    real: bool = True,
    cache_folder: Path | None = None,
    progress: Say | None = None,
    backbone: Backbone | None = None,
    config: HeadConfig | None = None,
) -> dict[str, Any]:
    """Leave one product out, train on the others, judge it.

    Args:
        data: folder of products in the MVTec layout.
        shots: numbers of references the left-out product is given.
        seeds: of training and of the draw of references.
        products: these are left out in turn; all by default. Training always uses all others of the folder.
        prompts: of ``PROMPTS``.
        real: whether labelled test pictures of the other products are learnt from, beside made defects.
        cache_folder: of features; the home's by default.
        progress: told a line now and then.
        backbone: the embedded one by default.
        config: of the training; shorter than the default of ``flawscope train expert``.

    Returns:
        ``rows``: product, seed, shots, method and the ``METRICS``; ``summary``: their means per method and shots.

    Raises:
        MissingExtraError: torch is not installed.
        ConfigError: shots below two, or an unknown prompt.
        InputError: the data cannot be used.
    """
    try:
        from ..training.embedded import HeadConfig
        from ..training.features import FeatureCache
        from ..training.loop import LoopConfig
        from ..training.samples import EpisodeConfig, build_samples
    except ImportError as error:
        raise MissingExtraError("Training the head", "train") from error
    if not shots or min(shots) < 2 or seeds < 1 or not set(prompts) <= set(PROMPTS):
        raise ConfigError("bench head needs two references or more, a seed, and prompts of none, sparse, dense.")
    config = config or HeadConfig(
        episodes=EpisodeConfig(episodes=2, synthetic=1, max_pictures=60), loop=LoopConfig(epochs=6, patience=0)
    )
    config = replace(config, episodes=replace(config.episodes, real=real))
    backbone = backbone or load_backbone("efficientnet-lite2")
    if cache_folder is None:
        from ..agent.settings import load_settings

        cache_folder = load_settings().home.root / "cache" / "features"
    cache = FeatureCache(cache_folder, backbone, config.expert)
    everything = [p for p in load_dataset(data) if len(p.references) > min(shots)]
    chosen = [p for p in everything if products is None or p.name in products]
    if len(everything) < 2 or not chosen or set(products or ()) - {p.name for p in chosen}:
        raise InputError("leaving one product out needs two products or more, and names that exist.")
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        samples: dict[str, list[HeadSample]] = {}
        for product in everything:
            if len(chosen) == 1 and product is chosen[0]:
                continue
            _say(progress, f"seed {seed}: samples of {product.name}")
            samples[product.name] = build_samples([product], cache, config.episodes, seed)
        for product in chosen:
            heads = {}
            for prompt in prompts:
                _say(progress, f"seed {seed}: {NAMES[prompt]} without {product.name}")
                others = [sample for name, part in samples.items() if name != product.name for sample in part]
                heads[prompt] = _train(others, replace(config, prompt=prompt), backbone, seed)  # type: ignore[arg-type]
            for n in [n for n in shots if n <= len(product.references)]:
                _say(progress, f"seed {seed}: {n} references of {product.name}")
                for method, figures in _judge(product, heads, cache, n, seed, config).items():
                    rows.append({"product": product.name, "seed": seed, "shots": n, "method": method, **figures})
    return {"rows": rows, "summary": summarise(rows), "real": real, "seeds": seeds}


def _train(samples: Sequence[HeadSample], config: HeadConfig, backbone: Backbone, seed: int) -> ReferenceHead:
    import tempfile

    from ..training.embedded import HeadTask, head_config
    from ..training.head import export_head
    from ..training.loop import fit, seed_everything

    loop = replace(config.loop, seed=seed, checkpoint_every=10**9)
    seed_everything(seed)
    task = HeadTask(samples, [], config)
    with tempfile.TemporaryDirectory() as folder:
        trained = fit(task, loop, Path(folder), fingerprint="benchmark")
    return export_head(trained.state, head_config(task, backbone))


def _judge(
    product: ProductData,
    heads: dict[str, ReferenceHead],
    cache: FeatureCache,
    shots: int,
    seed: int,
    config: HeadConfig,
) -> dict[str, dict[str, float | None]]:
    """All methods on the labelled pictures of one product at one draw of references."""
    drawn = draw_references(len(product.references), shots, seed)
    memory = cache.remember([load_image(product.references[i]).rgb for i in drawn])
    expert = memory.expert
    tallies = {UNTRAINED: Tally()} | {NAMES[prompt]: Tally() for prompt in heads}
    for test in product.tests:
        rgb = load_image(test.path).rgb
        mask = load_mask(test, *rgb.shape[:2]) if product.has_masks else None
        features = cache.features(rgb)
        patches = expert.score_grid(features)
        score = expert.image_score(patches, features)
        look = score - expert.local_score(patches)
        tallies[UNTRAINED].add(score, patches, test.is_defective, mask)
        for prompt, head in heads.items():
            tally = tallies[NAMES[prompt]]
            read = head.inputs(features, memory)
            tally.add(*head_scores(head, read, memory, look, config.expert.top_fraction), test.is_defective, mask)
            if prompt != "none":
                tally.supports.append(head.support(read))
    return {method: tally.figures() for method, tally in tallies.items()}


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over products of the means over seeds, per number of references and method; None where no product has it."""
    found = []
    for shots in sorted({row["shots"] for row in rows}):
        for method in dict.fromkeys(row["method"] for row in rows):
            cells = [row for row in rows if row["shots"] == shots and row["method"] == method]
            found.append({"shots": shots, "method": method, **{m: _macro(cells, m) for m in METRICS}})
    return found


def _say(progress: Say | None, line: str) -> None:
    if progress:
        progress(line)


def _macro(rows: Sequence[dict[str, Any]], metric: str) -> float | None:
    names = sorted({row["product"] for row in rows if row[metric] is not None})
    per_product = [np.mean([row[metric] for row in rows if row["product"] == name]) for name in names]
    return float(np.mean(per_product)) if per_product else None


def render(result: dict[str, Any]) -> Group:
    """One table per number of references, in percent; means over the seeds."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    tables = []
    for shots in sorted({row["shots"] for row in result["rows"]}):
        title = f"{shots} good references, the product left out of training, in %"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("product", no_wrap=True)
        table.add_column("method", no_wrap=True)
        for heading in ("image", f"FPR@{100 * RECALL:.0f}", "pixel", "AUPRO", "IoU", "support"):
            table.add_column(heading, justify="right", no_wrap=True)
        mine = [row for row in result["rows"] if row["shots"] == shots]
        for product in dict.fromkeys(row["product"] for row in mine):
            for method in dict.fromkeys(row["method"] for row in mine):
                cells = [row for row in mine if row["product"] == product and row["method"] == method]
                table.add_row(product, method, *(_cell(_macro(cells, metric)) for metric in METRICS))
            table.add_section()
        for row in result["summary"]:
            if row["shots"] == shots:
                table.add_row("macro", row["method"], *(_cell(row[metric]) for metric in METRICS), style="bold")
        tables.append(table)
    return Group(*tables)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
