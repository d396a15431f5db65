"""Learn a product from good references: features, memory banks, calibration of every view, defect types."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError, ProductError
from . import views
from .ad_expert.anomaly_map import smooth_grid
from .ad_expert.calibration import Calibration
from .ad_expert.expert import ExpertConfig, ReferenceFit, expert_tokens, prepare
from .backbones import Backbone
from .defect_features import defect_feature, defect_weights, patch_matrix
from .defect_types import TypeModel
from .imaging import LoadedImage, load_image
from .product_model import PixelScale, ProductModel

Progress = Callable[[str, int, int], None]
PATCH_QUANTILE = 0.995
"""Share of good patches below the pixel threshold."""
PICTURE_QUANTILE = 0.95
"""Share of good pictures below the peak and area limits."""
UNCALIBRATED_SCALE = PixelScale(threshold=0.45, peak=0.6, area_share=0.01)
"""For a single reference: typical values of the development products; the report says uncalibrated."""


def fit_product(
    name: str,
    references: Sequence[str],
    backbone: Backbone,
    *,
    defects: Path | None = None,
    rotate: bool = False,
    max_pixels: int = 200_000_000,
    config: ExpertConfig | None = None,
    progress: Progress | None = None,
) -> ProductModel:
    """Learn a product.

    Args:
        name: of the product.
        references: paths of good pictures; exact copies are used once.
        backbone: feature extractor.
        defects: folder with one subfolder of example pictures per defect type.
        rotate: learn quarter turns too.
        max_pixels: larger pictures are refused.
        config: how the expert looks; the default unless a benchmark asks for another.
        progress: told about each stage.

    Raises:
        InputError: a picture cannot be read or shows nothing.
        ProductError: there is no usable reference.
    """
    tell = progress or (lambda what, done, total: None)
    config = config or ExpertConfig()
    pictures, names, left_out, value_range = load_references(references, max_pixels, tell)
    fit, tokens, grids = _fit_whole(pictures, backbone, rotate, config, tell)
    zoomable = all(views.has_more_pixels((p.rgb.shape[0], p.rgb.shape[1]), config) for p in pictures)
    fine, peaks = _fit_fine(pictures, fit, tokens, grids, backbone, config, tell) if zoomable else (None, [])
    calibration = _calibrate(pictures, fit, fine, tokens, grids, peaks, backbone, tell)
    model = ProductModel(
        name=name,
        backbone=backbone,
        expert=fit.expert,
        fine=fine.expert if fine else None,
        calibration=calibration,
        pixel_scale=_pixel_scale(fit, tokens, grids),
        reference_tokens={o: (t.astype(np.float16), g) for o, (t, g) in enumerate(zip(tokens, grids, strict=True))},
        reference_names=tuple(names),
        reference_hashes=tuple(picture.sha256 for picture in pictures),
        reference_files=tuple(str(picture.path) for picture in pictures),
        left_out=tuple(left_out),
        rotate=rotate,
        value_range=value_range,
        types=None,
        type_examples={},
        fingerprint=hashlib.sha256("".join(p.sha256 for p in pictures).encode()).hexdigest(),
        reference_pictures=tuple(picture.rgb for picture in pictures),
    )
    return model if defects is None else with_types(model, defects, max_pixels, tell)


def load_references(
    paths: Sequence[str], max_pixels: int, tell: Progress
) -> tuple[list[LoadedImage], list[str], list[str], tuple[float, float] | None]:
    """Decode the references; 16-bit and float pictures get one fixed grey range for all.

    Returns:
        Pictures, their file names, names of exact copies left out, and the fixed range (None for 8-bit pictures).

    Raises:
        InputError: a picture cannot be read or is one flat colour.
        ProductError: there is no picture.
    """
    if not paths:
        raise ProductError("there are no good references.", hint="Give at least one good picture.")
    loaded: dict[str, LoadedImage] = {}
    left_out = []
    for done, path in enumerate(paths):
        tell("reading the references", done, len(paths))
        picture = load_image(path, max_pixels=max_pixels)
        if "constant" in picture.meta.flags:
            raise InputError(f"the reference {path} is one flat colour.", hint="Leave it out.")
        if picture.sha256 in loaded:
            left_out.append(Path(path).name)
            continue
        loaded[picture.sha256] = picture
    tell("reading the references", len(paths), len(paths))
    pictures = list(loaded.values())
    ranges = [picture.meta.value_range for picture in pictures if picture.meta.value_range is not None]
    fixed = (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None
    if fixed is not None:  # one stretch per picture would hide a part that is darker or brighter as a whole
        pictures = [load_image(str(p.path), value_range=fixed, max_pixels=max_pixels) for p in pictures]
    return pictures, [Path(str(p.path)).name for p in pictures], left_out, fixed


def _fit_whole(
    pictures: Sequence[LoadedImage], backbone: Backbone, rotate: bool, config: ExpertConfig, tell: Progress
) -> tuple[ReferenceFit, list[NDArray[np.float32]], list[tuple[int, int]]]:
    """Memory bank of whole pictures; returns each picture's own tokens and grid too."""
    tokens, grids = [], []
    every: list[NDArray[np.float32]] = []
    owners: list[int] = []
    for owner, picture in enumerate(pictures):
        tell("looking at the references", owner, len(pictures))
        prepared = prepare(picture.rgb, config.short_side_px)
        for turn in range(4 if rotate else 1):
            features = backbone.encode_image(np.ascontiguousarray(np.rot90(prepared, turn))[None])
            every.append(expert_tokens(features))
            owners.append(owner)
            if turn == 0:
                tokens.append(every[-1])
                grids.append(features.grid)
    tell("looking at the references", len(pictures), len(pictures))
    return ReferenceFit(every, owners, config, progress=tell), tokens, grids


def _fit_fine(
    pictures: Sequence[LoadedImage],
    fit: ReferenceFit,
    tokens: Sequence[NDArray[np.float32]],
    grids: Sequence[tuple[int, int]],
    backbone: Backbone,
    config: ExpertConfig,
    tell: Progress,
) -> tuple[ReferenceFit, list[tuple[NDArray[np.float32], tuple[int, int]]]]:
    """Memory bank of windows at twice the resolution; returns the window at each reference's own peak too."""
    every: list[NDArray[np.float32]] = []
    owners: list[int] = []
    peaks = []
    for owner, picture in enumerate(pictures):
        tell("looking closer at the references", owner, len(pictures))
        size = (picture.rgb.shape[0], picture.rgb.shape[1])
        expert = fit.without(owner) if len(pictures) > 1 else fit.expert
        centre = views.peak_px_of_grid(views.score_whole(expert, tokens[owner], grids[owner]), size)
        for window in [views.window_around(size, centre), *views.tiles_of(size)]:
            x0, y0, x1, y1 = window
            features = fit.expert.encode(backbone, picture.rgb[y0:y1, x0:x1])
            every.append(expert_tokens(features))
            owners.append(owner)
            if len(every) % 6 == 1:  # the first of the six windows is the one at the peak
                peaks.append((every[-1], features.grid))
    tell("looking closer at the references", len(pictures), len(pictures))
    return ReferenceFit(every, owners, config, progress=tell), peaks


def _calibrate(
    pictures: Sequence[LoadedImage],
    fit: ReferenceFit,
    fine: ReferenceFit | None,
    tokens: Sequence[NDArray[np.float32]],
    grids: Sequence[tuple[int, int]],
    peaks: Sequence[tuple[NDArray[np.float32], tuple[int, int]]],
    backbone: Backbone,
    tell: Progress,
) -> Calibration:
    """Score every reference against the others under every view that adds evidence for this product.

    There are no rows for a single reference.
    """
    posed = ("reference",) if views.same_pose(tokens, grids) else ()
    offered = ("whole", *(("zoom",) if fine else ()), *posed, "self_consistency")
    if len(pictures) == 1:
        return Calibration(offered, np.zeros((0, len(offered))))
    stored = {o: (t.astype(np.float16), g) for o, (t, g) in enumerate(zip(tokens, grids, strict=True))}
    rows = []
    for owner, picture in enumerate(pictures):
        tell("calibrating", owner, len(pictures))
        expert = fit.without(owner)
        scores = {"whole": expert.image_score(views.score_whole(expert, tokens[owner], grids[owner]))}
        if fine is not None:
            closer = fine.without(owner)
            scores["zoom"] = closer.image_score(views.score_whole(closer, *peaks[owner]))
        if "reference" in offered:
            placewise, _ = views.placewise_distances(tokens[owner], grids[owner], stored, skip=owner)
            scores["reference"] = expert.image_score(placewise)
        if "self_consistency" in offered:
            copies = views.jittered(prepare(picture.rgb, fit.expert.config.short_side_px))
            found = [views.interior_score(expert, backbone.encode_image(copy[None])) for copy in copies]
            scores["self_consistency"] = float(np.mean(found))
        rows.append([scores[view] for view in offered])
    tell("calibrating", len(pictures), len(pictures))
    return Calibration(offered, np.array(rows, np.float64))


def _pixel_scale(
    fit: ReferenceFit, tokens: Sequence[NDArray[np.float32]], grids: Sequence[tuple[int, int]]
) -> PixelScale:
    """Pixel threshold, peak and area of good parts, from the references judged by each other."""
    if len(tokens) == 1:
        return UNCALIBRATED_SCALE
    maps = [
        smooth_grid(views.score_whole(fit.without(owner), view, grid))
        for owner, (view, grid) in enumerate(zip(tokens, grids, strict=True))
    ]
    threshold = float(np.quantile(np.concatenate([m.ravel() for m in maps]), PATCH_QUANTILE))
    peak = float(np.quantile([m.max() for m in maps], PICTURE_QUANTILE))
    area = float(np.quantile([(m >= threshold).mean() for m in maps], PICTURE_QUANTILE))
    return PixelScale(threshold, max(peak, threshold), area)


def with_types(model: ProductModel, defects: Path, max_pixels: int, tell: Progress) -> ProductModel:
    """Learn defect types from example pictures, weighted by the product's own anomaly scores.

    Args:
        model: a fitted product.
        defects: folder with one subfolder per type.
        max_pixels: larger pictures are refused.
        tell: progress.

    Raises:
        InputError: the folder has no subfolders with pictures, or a picture cannot be read.
    """
    from dataclasses import replace

    examples = find_examples(defects)
    features, labels = [], []
    for done, (label, path) in enumerate(examples):
        tell("learning the defect types", done, len(examples))
        rgb = load_image(str(path), value_range=model.value_range, max_pixels=max_pixels).rgb
        seen = model.expert.encode(model.backbone, rgb)
        features.append(defect_feature(patch_matrix(seen), defect_weights(model.expert.score_grid(seen))))
        labels.append(label)
    tell("learning the defect types", len(examples), len(examples))
    counts = {label: labels.count(label) for label in sorted(set(labels))}
    return replace(model, types=TypeModel.fit(np.stack(features), labels), type_examples=counts)


def find_examples(defects: Path) -> list[tuple[str, Path]]:
    """(type, path) of every example: the subfolders' names are the types.

    Raises:
        InputError: the folder is missing, or has no subfolders with files.
    """
    if not defects.is_dir():
        raise InputError(f"{defects} is not a folder.", hint="Give a folder with one subfolder per defect type.")
    found = [
        (folder.name, path)
        for folder in sorted(defects.iterdir())
        if folder.is_dir() and folder.name != "good" and not folder.name.startswith(".")
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    if not found:
        raise InputError(f"{defects} has no examples.", hint="Give a folder with one subfolder per defect type.")
    return found


__all__ = ["find_examples", "fit_product", "load_references", "with_types"]
