"""Products: learning one from good references, removing it, telling what was learnt."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..agent.errors import ConfigError, ProductError
from ..agent.home import new_folder, storage_errors
from .ad_expert.calibration import smallest_rate
from .ad_expert.expert import config_for
from .ad_expert.memory_bank import Progress
from .ad_expert.text_anchors import TextAnchors
from .ad_expert.zero_shot import ZeroShotConfig
from .backbones import Backbone
from .control_plan.schema import ProductPlan
from .enrolment import fit_product
from .product_files import NAME, load_product, require_product, write_product
from .product_model import ProductModel

if TYPE_CHECKING:
    from .ad_expert.reference_head import ReferenceHead


def remove_product(folder: Path, name: str) -> None:
    """Remove a product with all its files.

    Raises:
        ProductError: there is no such product.
        StorageError: the disk refuses.
    """
    path = require_product(folder, name)
    with storage_errors(path):
        shutil.rmtree(path)


def check_enrolment(folder: Path, name: str, count: int, false_alarm: float, *, replace: bool) -> None:
    """Refuse an enrolment that cannot end well, before any work is done.

    Raises:
        ConfigError: the name cannot be one, or the product exists and is not to be replaced.
        ProductError: there is no picture.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a product.", hint="Use letters, digits, '_', '-' and '.', at most 64.")
    if (folder / name).exists() and not replace:
        raise ConfigError(f"the product {name!r} is enrolled already.", hint="Add --replace to enrol it anew.")
    if count < 1:
        raise ProductError("there are no good references.", hint="Give at least one good picture.")


def enroll_product(
    folder: Path,
    name: str,
    references: Sequence[Path],
    backbone: Backbone,
    *,
    defects: Path | None = None,
    rotate: bool = False,
    false_alarm: float | None = None,
    replace: bool = False,
    max_pixels: int = 200_000_000,
    anchors: TextAnchors | None = None,
    words: ZeroShotConfig | None = None,
    head: ReferenceHead | None = None,
    plan: ProductPlan | None = None,
    types_of: ProductModel | None = None,
    progress: Progress | None = None,
) -> ProductModel:
    """Learn a product and store it; a product of that name stays untouched until the new one is complete.

    Args:
        folder: of all products.
        name: of this one.
        references: good pictures.
        backbone: feature extractor.
        defects: folder with one subfolder of example pictures per defect type.
        rotate: also learn the references turned by 90, 180 and 270 degrees.
        false_alarm: the product's own false-alarm rate; None leaves it to the settings.
        replace: allow a product of that name to be replaced.
        max_pixels: larger pictures are refused.
        anchors: words to compare with beside the references; None for backbones without a text tower.
        words: how cosines with them become scores.
        head: trained, to score whole pictures with; an inspection must then be given the same.
        plan: of the product: regions that are not judged, and the false-alarm rate where none is given.
        types_of: whose defect types to keep where no defects are given.
        progress: told about each stage.

    Raises:
        ConfigError: the name is taken or cannot be one.
        InputError: a picture cannot be read.
        ProductError: there is no usable reference, or a head cannot be used with such a product.
        StorageError: the disk refuses.
        WeightsError: the head was made for another way of looking.
    """
    check_enrolment(folder, name, len(references), 0.0, replace=replace)
    config = None
    if plan is not None:
        ignored, inspected = plan.ignored_shares(), plan.inspected_shares()
        config = dataclasses.replace(config_for(backbone), ignored=ignored, inspected=inspected)
        false_alarm = plan.false_alarm if false_alarm is None else false_alarm
    model = fit_product(
        name,
        [str(path) for path in references],
        backbone,
        config=config,
        defects=defects,
        rotate=rotate,
        max_pixels=max_pixels,
        anchors=anchors,
        words=words,
        head=head,
        progress=progress,
    )
    if types_of is not None and defects is None:
        model = dataclasses.replace(model, types=types_of.types, type_examples=types_of.type_examples)
    with new_folder(folder / name) as fresh:
        write_product(dataclasses.replace(model, false_alarm=false_alarm), fresh)
    return load_product(folder, name, backbone, head)


def describe(model: ProductModel, false_alarm: float) -> list[str]:
    """What was learnt, in lines for a person."""
    count = len(model.reference_names)
    lines = [
        f"{model.name}: {count} good references" + (f", turned by quarters ({4 * count} views)" if model.rotate else "")
    ]
    if model.left_out:
        lines.append(f"left out as exact copies: {', '.join(model.left_out)}")
    decision = model.calibration.decide({"whole": model.typical("whole") or 0.0}, false_alarm)
    if decision.threshold is None:
        lines.append(
            "threshold: none; fewer than 3 references cannot show how much good parts differ (verdicts are REVIEW)"
        )
    else:
        basis = "conformal" if decision.basis == "conformal" else "EXTRAPOLATED"
        lines.append(
            f"threshold: {decision.threshold:.2f} spreads for a false-alarm rate of {false_alarm:.1%} ({basis})"
        )
        if decision.basis == "extrapolated":
            lines.append(
                f"  {count} references support {smallest_rate(count):.1%} at best; for {false_alarm:.1%} enrol "
                f"{int(np.ceil(1 / false_alarm - 1e-9)) - 1} or more, or ask for a higher rate (--false-alarm)"
            )
    lines.append(f"views calibrated: {', '.join(model.calibration.views)}")
    lines.append(f"memory bank: {len(model.expert.bank.tokens)} patch tokens")
    agrees = model.expert.appearance is not None and model.expert.appearance.gain > 0
    lines.append(f"look of the whole part: {'judged too' if agrees else 'not judged, good pictures differ in it'}")
    if model.head_sha256 is not None:
        lines.append(f"trained head: {model.head_sha256[:12]}…; inspections need the same")
    if model.text is not None:
        lines.append("words: compared with too, calibrated on the references")
    examples = ", ".join(f"{name} ({n})" for name, n in model.type_examples.items())
    lines.append(f"defect types: {examples}" if examples else "defect types: none (add examples with --defects FOLDER)")
    return lines
