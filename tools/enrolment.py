"""Learn a product from good references: features, memory banks, calibration of every view, defect types."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError, ProductError
from ..agent.home import is_file_or_was
from . import views
from .ad_expert.anomaly_map import smooth_grid
from .ad_expert.calibration import Calibration
from .ad_expert.evidence_gate import MapScale, fit_map_scale
from .ad_expert.expert import ExpertConfig, ReferenceFit, config_for, expert_tokens, prepare
from .ad_expert.reference_views import fit_references
from .ad_expert.text_anchors import TextAnchors
from .ad_expert.text_guidance import TextGuidance, align
from .ad_expert.zero_shot import ZeroShotConfig, patch_scores_of
from .backbones import Backbone, VisualFeatures
from .defect_features import defect_feature, defect_weights, patch_matrix
from .defect_types import TypeModel
from .imaging import LoadedImage, load_image
from .product_model import PixelScale, ProductModel
from .tiled import TileTokens, cell_grid, fit_tiles, score_tiles

if TYPE_CHECKING:
    from .ad_expert.head_expert import HeadFit
    from .ad_expert.reference_head import ReferenceHead

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
    anchors: TextAnchors | None = None,
    words: ZeroShotConfig | None = None,
    head: ReferenceHead | None = None,
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
        config: how the expert looks; the backbone's default unless a benchmark asks for another.
        anchors: words to compare with beside the references; None for backbones without a text tower.
        words: how cosines with them become scores.
        head: trained, to score whole pictures with; None for the expert as it is.
        progress: told about each stage.

    Raises:
        InputError: a picture cannot be read or shows nothing.
        ProductError: there is no usable reference, or a head cannot be used with such a product.
        WeightsError: the head was made for another way of looking.
    """
    tell = progress or (lambda what, done, total: None)
    config = config or config_for(backbone)
    pictures, names, left_out, value_range = load_references(references, max_pixels, tell)
    large = all("huge" in picture.meta.flags for picture in pictures)
    if head is not None:
        from .ad_expert.head_expert import refuse_another_look, refuse_unjudged
        from .ad_expert.reference_head import require_references

        require_references(len(pictures))
        refuse_unjudged(config, rotate=rotate, large=large)
        refuse_another_look(head, config)
    seen = _look(pictures, backbone, config, tell)
    fit = _fit_whole(seen, backbone, rotate, config, head, tell)
    if config.partial:  # looks that know no places of the whole picture would judge what is ignored
        anchors = None
        if large:
            raise ProductError("pictures this large are seen in tiles, where no region can be ignored.")
    tiles, tiled = fit_tiles([picture.rgb for picture in pictures], backbone, config, tell) if large else (None, [])
    zoomable = (
        not large and not config.partial and all(views.has_more_pixels(reference.size, config) for reference in seen)
    )
    fine, at_peaks = _fit_fine(seen, fit, backbone, tell) if zoomable else (None, [])
    text = _guidance(fit, seen, anchors, words or ZeroShotConfig())
    maps = _good_maps(fit, seen, tiles, tiled, text)
    model = ProductModel(
        name=name,
        backbone=backbone,
        head_sha256=None if head is None else head.sha256,
        expert=fit.expert,
        fine=fine.expert if fine else None,
        tiles=tiles.expert if tiles else None,
        calibration=_calibrate(seen, fit, fine, at_peaks, tiles, tiled, text, backbone, tell),
        pixel_scale=_pixel_scale(maps),
        reference_tokens=reference_tokens(seen),
        reference_names=tuple(names),
        reference_hashes=tuple(picture.sha256 for picture in pictures),
        reference_files=tuple(str(picture.path) for picture in pictures),
        left_out=tuple(left_out),
        rotate=rotate,
        value_range=value_range,
        types=None,
        type_examples={},
        false_alarm=None,
        fingerprint=hashlib.sha256("".join(p.sha256 for p in pictures).encode()).hexdigest(),
        reference_pictures=tuple(picture.rgb for picture in pictures),
        text=text,
        map_scale=_map_scale(maps, seen, tiles),
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


@dataclass(frozen=True)
class SeenReference:
    """A reference after its forward pass.

    Attributes:
        picture: decoded.
        features: of the prepared picture.
        tokens: float32 (N, D), what the expert compares.
    """

    picture: LoadedImage
    features: VisualFeatures
    tokens: NDArray[np.float32]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture, px."""
        return self.picture.rgb.shape[0], self.picture.rgb.shape[1]


def _look(
    pictures: Sequence[LoadedImage], backbone: Backbone, config: ExpertConfig, tell: Progress
) -> list[SeenReference]:
    seen = []
    for done, picture in enumerate(pictures):
        tell("looking at the references", done, len(pictures))
        features = backbone.encode_image(prepare(picture.rgb, config)[None])
        seen.append(SeenReference(picture, features, expert_tokens(features)))
    tell("looking at the references", len(pictures), len(pictures))
    return seen


def _fit_whole(
    seen: Sequence[SeenReference],
    backbone: Backbone,
    rotate: bool,
    config: ExpertConfig,
    head: ReferenceHead | None,
    tell: Progress,
) -> ReferenceFit | HeadFit:
    """Memory bank of whole pictures and of what else they show, read by the head where there is one."""
    prepared = [prepare(reference.picture.rgb, config) for reference in seen]
    features = [reference.features for reference in seen]
    fit = fit_references(prepared, features, backbone, config, rotate=rotate, progress=tell)
    if head is None:
        return fit
    from .ad_expert.head_expert import HeadFit

    return HeadFit(head, fit, features)


def _fit_fine(
    seen: Sequence[SeenReference], fit: ReferenceFit | HeadFit, backbone: Backbone, tell: Progress
) -> tuple[ReferenceFit, list[NDArray[np.float32]]]:
    """Memory bank of windows at twice the resolution, and the window at each reference's own peak."""
    at_peaks, elsewhere = [], []
    for owner, reference in enumerate(seen):
        tell("looking closer at the references", owner, len(seen))
        expert = fit.without(owner) if len(seen) > 1 else fit.expert
        centre = views.peak_px_of_grid(expert.score_grid(reference.features), reference.size)
        windows = [views.window_around(reference.size, centre), *views.tiles_of(reference.size)]
        found = [
            expert_tokens(fit.expert.encode(backbone, reference.picture.rgb[y0:y1, x0:x1]))
            for x0, y0, x1, y1 in windows
        ]
        at_peaks.append(found[0])
        elsewhere += [(tokens, owner) for tokens in found[1:]]
    tell("looking closer at the references", len(seen), len(seen))
    tokens = [*at_peaks, *(view for view, _ in elsewhere)]
    owners = [*range(len(seen)), *(owner for _, owner in elsewhere)]
    return ReferenceFit(tokens, owners, fit.expert.config, progress=tell), at_peaks


def _guidance(
    fit: ReferenceFit | HeadFit, seen: Sequence[SeenReference], anchors: TextAnchors | None, words: ZeroShotConfig
) -> TextGuidance | None:
    """The words on the product's own scale; a single reference has no scale to bring them to."""
    if anchors is None or len(seen) == 1:
        return None
    distances = [fit.without(owner).score_grid(reference.features) for owner, reference in enumerate(seen)]
    text_scores = [patch_scores_of(reference.features, anchors, words)[0] for reference in seen]
    return TextGuidance(anchors, words, *align(distances, text_scores))


def _calibrate(
    seen: Sequence[SeenReference],
    fit: ReferenceFit | HeadFit,
    fine: ReferenceFit | None,
    at_peaks: Sequence[NDArray[np.float32]],
    tiles: ReferenceFit | None,
    tiled: Sequence[Sequence[TileTokens]],
    text: TextGuidance | None,
    backbone: Backbone,
    tell: Progress,
) -> Calibration:
    """Score every reference against the others under every view that adds evidence for this product.

    There are no rows for a single reference.
    """
    same_pose = not fit.expert.config.partial and views.same_pose(
        [r.tokens for r in seen], [r.features.grid for r in seen]
    )
    posed = ("reference",) if same_pose else ()
    first_look = ("whole", *(("tiles",) if tiles else ()), *(("text",) if text else ()))
    offered = (*first_look, *(("zoom",) if fine else ()), *posed, "self_consistency")
    if len(seen) == 1:
        return Calibration(offered, np.zeros((0, len(offered))))
    stored = reference_tokens(seen)
    rows = []
    for owner, reference in enumerate(seen):
        tell("calibrating", owner, len(seen))
        expert = fit.without(owner)
        scores = {"whole": expert.image_score(expert.score_grid(reference.features), reference.features)}
        if tiles is not None:
            scores["tiles"] = score_tiles(tiles.without(owner), tiled[owner])[1]
        if text is not None:  # words were not learnt from the references, so none has to be left out
            scores["text"] = text.look(reference.features, *reference.size).image_score
        if fine is not None:
            closer = fine.without(owner)
            scores["zoom"] = closer.local_score(closer.bank.distances(at_peaks[owner]))
        if posed:
            grid, _ = views.placewise_distances(reference.tokens, reference.features.grid, stored, skip=owner)
            scores["reference"] = expert.untrained.image_score(grid, reference.features)
        copies = views.jittered(prepare(reference.picture.rgb, expert.config))
        found = [views.interior_score(expert, backbone.encode_image(copy[None])) for copy in copies]
        scores["self_consistency"] = float(np.mean(found))
        rows.append([scores[view] for view in offered])
    tell("calibrating", len(seen), len(seen))
    return Calibration(offered, np.array(rows, np.float64))


def reference_tokens(seen: Sequence[SeenReference]) -> dict[int, tuple[NDArray[np.float16], tuple[int, int]]]:
    """Each reference's tokens and grid by owner number, halved in precision for keeping."""
    return {owner: (r.tokens.astype(np.float16), r.features.grid) for owner, r in enumerate(seen)}


def _good_maps(
    fit: ReferenceFit | HeadFit,
    seen: Sequence[SeenReference],
    tiles: ReferenceFit | None,
    tiled: Sequence[Sequence[TileTokens]],
    text: TextGuidance | None,
) -> list[list[NDArray[np.float32]]]:
    """Smoothed patch maps of each reference judged by the others, one a tile where there are tiles; none for one."""
    if len(seen) == 1:
        return []
    maps = []
    for owner, reference in enumerate(seen):
        if tiles is None:
            grid = fit.without(owner).score_grid(reference.features)
            if text is not None:
                grid = text.joined(grid, patch_scores_of(reference.features, text.anchors, text.config)[0])
            maps.append([smooth_grid(grid)])
        else:
            grids, _ = score_tiles(tiles.without(owner), tiled[owner])
            maps.append([smooth_grid(grid) for grid in grids])
    return maps


def _pixel_scale(references: Sequence[Sequence[NDArray[np.float32]]]) -> PixelScale:
    """Pixel threshold, peak and area of good parts, from the references judged by each other."""
    if not references:
        return UNCALIBRATED_SCALE
    maps = [np.concatenate([grid.ravel() for grid in grids]) for grids in references]
    threshold = float(np.quantile(np.concatenate(maps), PATCH_QUANTILE))
    peak = float(np.quantile([m.max() for m in maps], PICTURE_QUANTILE))
    area = float(np.quantile([(m >= threshold).mean() for m in maps], PICTURE_QUANTILE))
    return PixelScale(threshold, max(peak, threshold), area)


def _map_scale(
    maps: Sequence[Sequence[NDArray[np.float32]]], seen: Sequence[SeenReference], tiles: ReferenceFit | None
) -> MapScale | None:
    """How maps read to a language model; None for a single reference, which nothing judges."""
    if not maps:
        return None
    side = None if tiles is None else tiles.expert.config.short_side_px
    grids = [r.features.grid if side is None else cell_grid(*r.size, side) for r in seen]
    return fit_map_scale(maps, [height * width for height, width in grids])


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
        if not path.name.startswith(".")
        if is_file_or_was(path)  # a link to nothing is said when it is read
    ]
    if not found:
        raise InputError(f"{defects} has no examples.", hint="Give a folder with one subfolder per defect type.")
    return found


__all__ = ["find_examples", "fit_product", "load_references", "with_types"]
