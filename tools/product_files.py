"""A product on disk: how it is written, and read after every file was verified.

    products/<name>/product.json     manifest: references, hashes of every file, configuration
                    arrays.npz       memory banks, reference tokens, calibration table, pixel thresholds
                    types.npz        defect types, when examples were given
                    references/*.png the references as they were seen, for side-by-side views

The manifest is written last and names the hash of every file, so a damaged or half-written product is refused by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..agent.errors import BackendError, ConfigError, ProductError
from ..agent.home import recover_folder, storage_errors, write_json_atomically
from .ad_expert.alignment import Alignment
from .ad_expert.appearance import Appearance
from .ad_expert.calibration import Calibration
from .ad_expert.evidence_gate import MapScale
from .ad_expert.expert import ExpertConfig, FittedExpert
from .ad_expert.memory_bank import MemoryBank
from .ad_expert.text_anchors import TextAnchors
from .ad_expert.text_guidance import TextGuidance
from .ad_expert.token_frame import TokenFrame
from .ad_expert.zero_shot import ZeroShotConfig
from .array_files import ARRAY_DAMAGE
from .backbones import Backbone
from .defect_types import TypeModel
from .product_model import PixelScale, ProductModel

if TYPE_CHECKING:
    from .ad_expert.reference_head import ReferenceHead

FORMAT = 3
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
STORED_SIDE_PX = 1024
REMEDY = "Enrol it again: flawscope enroll {name} good/*.jpg --replace"


def list_products(folder: Path) -> list[str]:
    """Names of the enrolled products, sorted; leftovers of interrupted enrolments are not products."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if NAME.fullmatch(path.name) and path.is_dir())


def require_product(folder: Path, name: str) -> Path:
    """The folder of a product.

    Raises:
        ConfigError: the name cannot be one.
        ProductError: there is no such product.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a product.", hint="Use letters, digits, '_', '-' and '.', at most 64.")
    path = folder / name
    recover_folder(path)
    if not path.is_dir():
        known = ", ".join(list_products(folder)) or "none yet"
        raise ProductError(
            f"no product {name!r}.", hint=f"Enrolled: {known}. Enrol it: flawscope enroll {name} good/*.jpg"
        )
    return path


def write_product(model: ProductModel, folder: Path) -> None:
    """Write a product into an empty folder, the manifest last.

    Raises:
        StorageError: the disk refuses.
    """
    arrays: dict[str, Any] = {
        "calibration": model.calibration.scores,
        "pixel_scale": np.array([model.pixel_scale.threshold, model.pixel_scale.peak, model.pixel_scale.area_share]),
    }
    if (reads := model.map_scale) is not None:
        arrays["map_scale"] = np.array([reads.low, reads.high, reads.area_share])
    for name, expert in (("bank", model.expert), ("fine", model.fine), ("tile", model.tiles)):
        if expert is not None:
            arrays |= _bank_arrays(name, expert.bank)
    look = model.expert.untrained.appearance
    if look is not None:
        arrays |= {"look_centre": look.centre, "look_spread": look.spread, "look_references": look.references}
        arrays["look_gain"] = np.array(look.gain)
    alignment = model.expert.alignment
    if alignment is not None:
        arrays["align_centre"] = alignment.centre
    if model.head_sha256 is not None:
        arrays |= _head_arrays(model.expert)
    if model.text is not None:
        arrays |= {"text_normal": model.text.anchors.normal, "text_abnormal": model.text.anchors.abnormal}
    for owner, (tokens, grid) in model.reference_tokens.items():
        arrays[f"reference_{owner}"] = tokens
        arrays[f"grid_{owner}"] = np.array(grid)
    with storage_errors(folder):
        (folder / "references").mkdir()
        with (folder / "arrays.npz").open("wb") as file:
            np.savez(file, **arrays)
        for owner, rgb in enumerate(model.reference_pictures):
            picture = Image.fromarray(rgb)
            picture.thumbnail((STORED_SIDE_PX, STORED_SIDE_PX))
            picture.save(folder / "references" / f"{owner:03d}.png")
        if model.types is not None:
            model.types.save(folder / "types.npz")
        hashes = {str(p.relative_to(folder)): _sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    manifest = {
        "format": FORMAT,
        "name": model.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "backbone": {
            "name": model.backbone.name,
            "weights_sha256": model.backbone.weights_sha256,
            "image_size_px": model.backbone.image_size_px,
        },
        "config": dataclasses.asdict(model.expert.config),
        "views": list(model.calibration.views),
        "references": [
            {"name": n, "sha256": h} for n, h in zip(model.reference_names, model.reference_hashes, strict=True)
        ],
        "left_out": list(model.left_out),
        "rotate": model.rotate,
        "value_range": list(model.value_range) if model.value_range else None,
        "type_examples": model.type_examples,
        "false_alarm": model.false_alarm,
        "text": _describe_text(model.text) if model.text else None,
        **({"head_sha256": model.head_sha256} if model.head_sha256 is not None else {}),
        "files": hashes,
    }
    write_json_atomically(folder / "product.json", {**manifest, "sha256": manifest_hash(manifest)})


def manifest_hash(manifest: dict[str, Any]) -> str:
    """Hash of the manifest itself: it holds the views, the configuration and the false-alarm rate."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _bank_arrays(name: str, bank: MemoryBank) -> dict[str, Any]:
    assert bank.frame is not None  # noqa: S101  # ReferenceFit gives every bank both
    assert bank.weights is not None  # noqa: S101
    return {
        f"{name}_tokens": bank.tokens,
        f"{name}_owners": bank.owners,
        f"{name}_weights": bank.weights,
        f"{name}_basis": bank.frame.basis,
        f"{name}_place_weight": np.array(bank.frame.place_weight),
    }


def _read_bank(name: str, arrays: Any) -> MemoryBank:
    frame = TokenFrame(arrays[f"{name}_basis"], float(arrays[f"{name}_place_weight"]))
    return MemoryBank(arrays[f"{name}_tokens"], arrays[f"{name}_owners"], frame, arrays[f"{name}_weights"])


def _head_arrays(expert: FittedExpert) -> dict[str, Any]:
    from .ad_expert.head_expert import HeadExpert

    assert isinstance(expert, HeadExpert)  # noqa: S101  # a product that remembers a head was fitted with it
    memory, scale = expert.memory, expert.scale
    layers = {f"head_layer_{number}": layer for number, layer in enumerate(memory.layers)}
    line = np.array([scale.slope, scale.offset])
    return {**layers, "head_centre": memory.centre, "head_spread": memory.spread, "head_scale": line}


def _read_head(arrays: Any, expert: FittedExpert, head: ReferenceHead) -> FittedExpert:
    from .ad_expert.head_expert import HeadExpert, HeadScale
    from .ad_expert.reference_head import HeadMemory

    layers = tuple(arrays[f"head_layer_{number}"] for number in range(len(arrays["head_centre"])))
    memory = HeadMemory(expert, layers, arrays["head_centre"], arrays["head_spread"])
    return HeadExpert(head, memory, HeadScale(*map(float, arrays["head_scale"])))


def _refuse_another_head(name: str, enrolled: str | None, head: ReferenceHead | None) -> None:
    given = None if head is None else head.sha256
    if enrolled == given:
        return
    was, now = ("no trained head" if sha is None else f"the trained head {sha[:12]}…" for sha in (enrolled, given))
    raise ProductError(
        f"the product {name!r} was enrolled with {was}, the setting trained_head now gives {now}.",
        hint=REMEDY.format(name=name),
    )


def _describe_text(text: TextGuidance) -> dict[str, Any]:
    return {
        "names": list(text.anchors.names),
        "prompts_sha256": text.anchors.prompts_sha256,
        "config": dataclasses.asdict(text.config),
        "offset": text.offset,
        "gain": text.gain,
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_product(folder: Path, name: str, backbone: Backbone, head: ReferenceHead | None = None) -> ProductModel:
    """Read a product after verifying every file.

    Args:
        folder: of all products.
        name: of this one.
        backbone: the one that it was enrolled with.
        head: likewise; None for products that were enrolled without one.

    Raises:
        ConfigError: the name cannot be one.
        ProductError: there is no such product, it is damaged, or it was enrolled with another backbone or head.
    """
    path = require_product(folder, name)
    damaged = ProductError(f"the product {name!r} is damaged.", hint=REMEDY.format(name=name))
    try:
        manifest = json.loads((path / "product.json").read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ProductError(f"the product {name!r} was written by another version.", hint=REMEDY.format(name=name))
        if manifest["sha256"] != manifest_hash(manifest):
            raise ProductError(f"the product {name!r} is damaged (product.json).", hint=REMEDY.format(name=name))
        for relative, expected in manifest["files"].items():
            if _sha256(path / relative) != expected:
                raise ProductError(f"the product {name!r} is damaged ({relative}).", hint=REMEDY.format(name=name))
        if manifest["backbone"]["weights_sha256"] != backbone.weights_sha256:
            raise ProductError(
                f"the product {name!r} was enrolled with the backbone {manifest['backbone']['name']} of other weights.",
                hint=REMEDY.format(name=name),
            )
        if manifest["backbone"].get("image_size_px") != backbone.image_size_px:
            raise ProductError(
                f"the product {name!r} was enrolled at {manifest['backbone'].get('image_size_px')} px, "
                f"the backbone now sees {backbone.image_size_px} px.",
                hint=REMEDY.format(name=name),
            )
        _refuse_another_head(name, manifest.get("head_sha256"), head)
        with (path / "arrays.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _assemble(path, manifest, arrays, backbone, head)
    except (*ARRAY_DAMAGE, BackendError) as error:
        raise damaged from error


def stored_calibration(folder: Path, name: str) -> tuple[Calibration, str]:
    """What the references scored at enrolment and the product's fingerprint, without loading a backbone.

    Raises:
        ConfigError: the name cannot be one.
        ProductError: there is no such product, or its files are damaged or of another version.
    """
    path = require_product(folder, name)
    try:
        manifest = json.loads((path / "product.json").read_text(encoding="utf-8"))
        whole = manifest["format"] == FORMAT and manifest["sha256"] == manifest_hash(manifest)
        if whole and _sha256(path / "arrays.npz") == manifest["files"]["arrays.npz"]:
            with (path / "arrays.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return Calibration(tuple(manifest["views"]), arrays["calibration"]), _fingerprint(manifest)
    except ARRAY_DAMAGE as error:
        raise ProductError(f"the product {name!r} is damaged.", hint=REMEDY.format(name=name)) from error
    raise ProductError(
        f"the product {name!r} is damaged or was written by another version.", hint=REMEDY.format(name=name)
    )


def _fingerprint(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()


def _assemble(
    path: Path, manifest: dict[str, Any], arrays: Any, backbone: Backbone, head: ReferenceHead | None
) -> ProductModel:
    owners = range(len(manifest["references"]))
    config = ExpertConfig(**manifest["config"])
    look = None
    if "look_gain" in arrays:
        gain = float(arrays["look_gain"])
        look = Appearance(arrays["look_centre"], arrays["look_spread"], arrays["look_references"], gain)
    alignment = Alignment(arrays["align_centre"]) if "align_centre" in arrays else None
    expert = FittedExpert(_read_bank("bank", arrays), config, look, alignment)
    banks = {
        name: FittedExpert(_read_bank(name, arrays), config) for name in ("fine", "tile") if f"{name}_tokens" in arrays
    }
    text = None
    if (words := manifest.get("text")) is not None:
        anchors = TextAnchors(
            arrays["text_normal"], arrays["text_abnormal"], tuple(words["names"]), words["prompts_sha256"]
        )
        text = TextGuidance(anchors, ZeroShotConfig(**words["config"]), float(words["offset"]), float(words["gain"]))
    value_range = manifest["value_range"]
    threshold, peak, area = (float(v) for v in arrays["pixel_scale"])
    return ProductModel(
        name=manifest["name"],
        backbone=backbone,
        head_sha256=None if head is None else head.sha256,
        expert=expert if head is None else _read_head(arrays, expert, head),
        fine=banks.get("fine"),
        tiles=banks.get("tile"),
        calibration=Calibration(tuple(manifest["views"]), arrays["calibration"]),
        pixel_scale=PixelScale(threshold, peak, area),
        reference_tokens={o: (arrays[f"reference_{o}"], _pair(arrays[f"grid_{o}"])) for o in owners},
        reference_names=tuple(item["name"] for item in manifest["references"]),
        reference_hashes=tuple(item["sha256"] for item in manifest["references"]),
        reference_files=tuple(str(path / "references" / f"{owner:03d}.png") for owner in owners),
        left_out=tuple(manifest["left_out"]),
        rotate=manifest["rotate"],
        value_range=(float(value_range[0]), float(value_range[1])) if value_range else None,
        types=TypeModel.load(path / "types.npz") if manifest["type_examples"] else None,
        type_examples=manifest["type_examples"],
        false_alarm=manifest["false_alarm"],
        fingerprint=_fingerprint(manifest),
        text=text,
        map_scale=MapScale(*map(float, arrays["map_scale"])) if "map_scale" in arrays else None,
    )


def _pair(array: Any) -> tuple[int, int]:
    return int(array[0]), int(array[1])
