"""``bench logic``: template comparison on printed circuit boards, and logical checks on a made set.

Boards: every second pair was looked at when the settings were chosen; the other half is what the table is about.
Made set: on good pictures of a product a part is removed (covered with the picture's surroundings), doubled or two
parts change places. It shows whether the checks see such changes, not how often plants have them.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError

Progress = Callable[[str], None]
Box = tuple[int, int, int, int]
Change = Literal["missing", "extra", "swapped"]
CHANGES: tuple[Change, ...] = ("missing", "extra", "swapped")
REFERENCES, PICTURES = 24, 24


@dataclass(frozen=True)
class BoardResult:
    """Template comparison on some pairs.

    Attributes:
        half: ``chosen on`` or ``reported``.
        pairs: compared.
        boxes: labelled defects.
        found: those with the centre of a region inside.
        false_regions: regions whose centre lies in no box.
        found_by_type: (found, boxes) by defect type.
        failed: pairs that could not be aligned; their boxes count as not found.
    """

    half: str
    pairs: int
    boxes: int
    found: int
    false_regions: int
    found_by_type: dict[str, tuple[int, int]]
    failed: int


@dataclass(frozen=True)
class LogicResult:
    """Everything.

    Attributes:
        boards: by half; empty without a set of boards.
        auroc: by check (``count``, ``presence``, ``arrangement``, ``all``), then by change; empty without a product.
        product: of the made set.
        pictures: good ones, and of each change.
    """

    boards: tuple[BoardResult, ...]
    auroc: dict[str, dict[str, float]]
    product: str
    pictures: int


def run_logic(data: Path, *, product: str = "transistor", progress: Progress | None = None) -> LogicResult:
    """Measure both.

    Args:
        data: folder with ``pcb`` (``reference``, ``test/mixed``, ``boxes.csv``), a product's tree, or both.
        product: tree with ``train/good`` and ``test/good`` whose parts lie in one pose.
        progress: told what is done.

    Raises:
        InputError: the folder holds neither.
    """
    tell = progress or (lambda what: None)
    boards: tuple[BoardResult, ...] = ()
    if (data / "pcb" / "boxes.csv").is_file():
        boards = tuple(_boards(data / "pcb", half, tell) for half in ("chosen on", "reported"))
    auroc: dict[str, dict[str, float]] = {}
    if (data / product / "train" / "good").is_dir():
        auroc = _made_set(data / product, tell)
    if not boards and not auroc:
        raise InputError(f"{data} holds neither pcb nor {product}.")
    return LogicResult(boards, auroc, product, PICTURES)


def _boards(folder: Path, half: str, tell: Progress) -> BoardResult:
    from ..tools.template import compare_with_template

    boxes: dict[str, list[tuple[Box, str]]] = defaultdict(list)
    with (folder / "boxes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            x0, y0, x1, y1 = (int(row[key]) for key in ("x1", "y1", "x2", "y2"))
            boxes[row["image"]].append(((x0, y0, x1, y1), row["defect_type"]))
    names = sorted(boxes)[0 if half == "chosen on" else 1 :: 2]
    by_type: dict[str, list[bool]] = defaultdict(list)
    false_regions = failed = 0
    for number, name in enumerate(names):
        tell(f"boards, {half}: {number} of {len(names)}")
        template, picture = _grey(folder / "reference" / f"{name}.png"), _grey(folder / "test/mixed" / f"{name}.png")
        try:
            regions: list[Box] = [region.box for region in compare_with_template(template, picture).regions]
        except InputError:
            regions, failed = [], failed + 1
        for box, kind in boxes[name]:
            by_type[kind].append(any(_centre_inside(region, box) for region in regions))
        false_regions += sum(not any(_centre_inside(region, box) for box, _ in boxes[name]) for region in regions)
    found = {kind: (sum(hits), len(hits)) for kind, hits in sorted(by_type.items())}
    total, hit = (sum(pair[i] for pair in found.values()) for i in (1, 0))
    return BoardResult(half, len(names), total, hit, false_regions, found, failed)


def _centre_inside(region: Box, box: Box) -> bool:
    x, y = (region[0] + region[2]) / 2, (region[1] + region[3]) / 2
    return box[0] <= x < box[2] and box[1] <= y < box[3]


def _grey(path: Path) -> NDArray[np.float32]:
    from ..tools.imaging import load_image
    from ..tools.template import grey_of

    return grey_of(load_image(str(path)).rgb)


def changed(rgb: NDArray[np.uint8], change: Change, rng: np.random.Generator, side: float = 0.2) -> NDArray[np.uint8]:
    """A picture with one part missing, doubled, or two parts swapped.

    Args:
        rgb: uint8 (H, W, 3).
        change: what is done.
        rng: chooses the places among the patches with most and least detail.
        side: of the square that is moved, as a share of the picture's shorter side.
    """
    height, width = rgb.shape[:2]
    size = max(8, round(side * min(height, width)))
    detail = _detail(rgb, size)
    busy, plain = (_place(detail, rng, most) for most in (True, False))
    made = rgb.copy()
    cut = {place: rgb[place[0] : place[0] + size, place[1] : place[1] + size].copy() for place in (busy, plain)}
    if change in ("missing", "swapped"):
        _paste(made, cut[plain], busy)
    if change in ("extra", "swapped"):
        _paste(made, cut[busy], plain)
    return made


def _detail(rgb: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Standard deviation of every window, by the place of its upper left corner."""
    from scipy import ndimage

    grey = rgb.mean(axis=2)
    mean, square = (ndimage.uniform_filter(g, size, origin=-(size // 2)) for g in (grey, grey * grey))
    spread = np.sqrt(np.maximum(square - mean * mean, 0.0))
    return np.asarray(spread[: rgb.shape[0] - size, : rgb.shape[1] - size], np.float64)


def _place(detail: NDArray[np.float64], rng: np.random.Generator, most: bool) -> tuple[int, int]:
    ranked = np.quantile(detail, 0.97 if most else 0.15)
    rows, columns = np.nonzero(detail >= ranked if most else detail <= ranked)
    chosen = int(rng.integers(len(rows)))
    return int(rows[chosen]), int(columns[chosen])


def _paste(picture: NDArray[np.uint8], piece: NDArray[np.uint8], place: tuple[int, int]) -> None:
    """Put a piece down with a soft rim, so that no straight edge gives it away."""
    size = len(piece)
    ramp = np.clip(np.minimum(np.arange(size), np.arange(size)[::-1]) / max(1.0, 0.12 * size), 0, 1)
    alpha = np.minimum.outer(ramp, ramp)[:, :, None]
    window = picture[place[0] : place[0] + size, place[1] : place[1] + size]
    window[:] = np.round(alpha * piece + (1 - alpha) * window).astype(np.uint8)


def _made_set(folder: Path, tell: Progress) -> dict[str, dict[str, float]]:
    from ..agent.settings import load_settings
    from ..tools.ad_expert.expert import config_for, expert_tokens, prepare
    from ..tools.backbones import load_backbone
    from ..tools.imaging import load_image
    from ..tools.logic.checks import CHECKS, fit_logic
    from .detection_metrics import image_auroc

    loaded = load_settings()
    backbone = load_backbone(loaded.settings.backbone, loaded)
    config = config_for(backbone)

    def look(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], tuple[int, int]]:
        features = backbone.encode_image(prepare(rgb, config)[None])
        return expert_tokens(features), features.grid

    references = sorted((folder / "train/good").glob("*.*"))[:REFERENCES]
    tests = sorted((folder / "test/good").glob("*.*"))[:PICTURES]
    tell("made set: references")
    seen = [look(load_image(str(path)).rgb) for path in references]
    model = fit_logic([tokens for tokens, _ in seen], [grid for _, grid in seen])
    scores: dict[str, list[dict[str, float]]] = {}
    for kind in ("good", *CHANGES):
        scores[kind] = []
        for number, path in enumerate(tests):
            tell(f"made set: {kind}, {number} of {len(tests)}")
            rgb = load_image(str(path)).rgb
            if kind != "good":
                rgb = changed(rgb, kind, np.random.default_rng(number))  # type: ignore[arg-type]
            found: dict[str, float] = {f.check: f.score for f in model.check(*look(rgb))}
            scores[kind].append({**found, "all": max(found.values())})
    table: dict[str, dict[str, float]] = {}
    for check in (*CHECKS, "all"):
        good = [row[check] for row in scores["good"]]
        table[check] = {}
        for name, kinds in (*((c, (c,)) for c in CHANGES), ("together", CHANGES)):
            bad = [row[check] for kind in kinds for row in scores[kind]]
            value = image_auroc(np.array(good + bad), np.array([0] * len(good) + [1] * len(bad)))
            table[check][name] = float(value) if value is not None else float("nan")
    return table


def render(result: LogicResult) -> str:
    """Plain text."""
    lines = []
    if result.boards:
        lines.append("printed circuit boards against their templates")
        lines.append(
            f"  {'half':<10} {'pairs':>5} {'boxes':>5} {'found':>6} {'false an image':>14} {'not aligned':>11}"
        )
        for row in result.boards:
            share, wrong = row.found / max(1, row.boxes), row.false_regions / max(1, row.pairs)
            lines.append(
                f"  {row.half:<10} {row.pairs:>5} {row.boxes:>5} {share:>6.3f} {wrong:>14.2f} {row.failed:>11}"
            )
        for row in result.boards:
            kinds = ", ".join(f"{kind} {hit}/{count}" for kind, (hit, count) in row.found_by_type.items())
            lines.append(f"  {row.half}: {kinds}")
    if result.auroc:
        lines.append(f"made changes on {result.product}, AUROC ({result.pictures} good, as many of each change)")
        names = (*CHANGES, "together")
        lines.append(f"  {'check':<12}" + "".join(f"{name:>10}" for name in names))
        for check, values in result.auroc.items():
            lines.append(f"  {check:<12}" + "".join(f"{values[name]:>10.3f}" for name in names))
    return "\n".join(lines)
