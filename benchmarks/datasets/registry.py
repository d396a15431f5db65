"""The known layouts and data sets, and how a folder is recognised as one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...agent.errors import ConfigError, InputError
from . import pairs, plain, tables, trees
from .left_out import without_left_out
from .listing import subfolders
from .pictures import IMAGE, PIXEL, Dataset, ProductData

_BOTH, _IMAGE_ONLY, _PIXEL_ONLY = frozenset({IMAGE, PIXEL}), frozenset({IMAGE}), frozenset({PIXEL})
_MAX_DEPTH = 2
"""Archives wrap their content in a folder or two that hold nothing else."""


@dataclass(frozen=True)
class Layout:
    """A way to arrange labelled pictures.

    Attributes:
        expected: what it looks like, for a message.
        fits: whether a folder is arranged so.
        load: its products; nothing is decoded unless a mask alone tells good from defective.
        metrics: which of ``image`` and ``pixel`` it can support.
    """

    expected: str
    fits: Callable[[Path], bool]
    load: Callable[[Path], list[ProductData]]
    metrics: frozenset[str]


LAYOUTS: dict[str, Layout] = {
    "visa": Layout("split_csv/1cls.csv", tables.fits_visa, tables.load_visa, _BOTH),
    "headct": Layout("labels.csv and head_ct/head_ct/000.png", tables.fits_headct, tables.load_headct, _IMAGE_ONLY),
    "dagm": Layout("ClassN/{Train,Test}/NNNN.PNG and Label/", pairs.fits_dagm, pairs.load_dagm, _BOTH),
    "sdd": Layout("kosNN/PartM.jpg and PartM_label.bmp", pairs.fits_sdd, pairs.load_sdd, _BOTH),
    "isic": Layout("pictures beside a folder NAME_GroundTruth", pairs.fits_isic, pairs.load_isic, _PIXEL_ONLY),
    "mvtec-3d": Layout("PRODUCT/test/TYPE/{rgb,gt}/000.png", trees.fits_mvtec_3d, trees.MVTEC_3D.load, _BOTH),
    "loco": Layout(
        "PRODUCT/test/logical_anomalies and ground_truth/TYPE/000/*.png", trees.fits_loco, trees.MVTEC.load, _BOTH
    ),
    "btad": Layout("PRODUCT/test/{ok,ko} and ground_truth/ko", trees.fits_btad, trees.BTAD.load, _BOTH),
    "mvtec": Layout(
        "PRODUCT/train/good, PRODUCT/test/{good,TYPE} and ground_truth/TYPE", trees.fits_mvtec, trees.MVTEC.load, _BOTH
    ),
    "pairs": Layout("images/ and masks/", pairs.fits_pairs, pairs.load_pairs, _PIXEL_ONLY),
    "yes-no": Layout("yes/ and no/", plain.fits_yes_no, plain.load_yes_no, _IMAGE_ONLY),
    "folders": Layout("good/ and TYPE/", plain.fits_folders, plain.load_labelled_folders, _BOTH),
    "flat": Layout("good pictures in one folder", plain.fits_flat, plain.load_flat, frozenset()),
}
"""In the order in which a folder is tried: the particular before the general."""


@dataclass(frozen=True)
class KnownDataset:
    """A published data set.

    Attributes:
        title: as papers print it.
        layouts: those it is found in, the published one first.
        products: names of its classes, where they tell it from other sets.
        metrics: which of ``image`` and ``pixel`` papers report.
    """

    title: str
    layouts: tuple[str, ...]
    products: frozenset[str] = frozenset()
    metrics: frozenset[str] = _BOTH


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MVTEC_AD = (
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper"
)
_VISA = "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum"
_DTD = (
    "Blotchy_099 Fibrous_183 Marbled_078 Matted_069 Mesh_114 Perforated_037 Stratified_154 "
    "Woven_001 Woven_068 Woven_104 Woven_125 Woven_127"
)
DATASETS: dict[str, KnownDataset] = {
    "mvtec": KnownDataset("MVTec AD", ("mvtec",), _words(_MVTEC_AD)),
    "visa": KnownDataset("VisA", ("visa", "mvtec"), _words(_VISA)),
    "btad": KnownDataset("BTAD", ("btad",), _words("01 02 03")),
    "mpdd": KnownDataset(
        "MPDD", ("mvtec",), _words("bracket_black bracket_brown bracket_white connector metal_plate tubes")
    ),
    "dagm": KnownDataset("DAGM", ("dagm", "mvtec"), frozenset(f"Class{n}" for n in range(1, 11))),
    "dtd-synthetic": KnownDataset("DTD-Synthetic", ("mvtec",), _words(_DTD)),
    "sdd": KnownDataset("SDD", ("sdd", "mvtec"), _words("electrical_commutators")),
    "mvtec-loco": KnownDataset(
        "MVTec LOCO", ("loco",), _words("breakfast_box juice_bottle pushpins screw_bag splicing_connectors")
    ),
    "mvtec-3d": KnownDataset(
        "MVTec 3D-AD", ("mvtec-3d",), _words("bagel cable_gland carrot cookie dowel foam peach potato rope tire")
    ),
    "goodsad": KnownDataset(
        "GoodsAD", ("mvtec",), _words("cigarette_box drink_bottle drink_can food_bottle food_box food_package")
    ),
    "brainmri": KnownDataset("BrainMRI", ("yes-no", "mvtec"), metrics=_IMAGE_ONLY),
    "br35h": KnownDataset("Br35H", ("yes-no", "mvtec"), metrics=_IMAGE_ONLY),
    "headct": KnownDataset("HeadCT", ("headct", "mvtec"), _words("head_ct headct"), _IMAGE_ONLY),
    "isic": KnownDataset("ISIC", ("isic", "mvtec"), _words("skin"), _PIXEL_ONLY),
    "colondb": KnownDataset("CVC-ColonDB", ("pairs",), metrics=_PIXEL_ONLY),
    "clinicdb": KnownDataset("CVC-ClinicDB", ("pairs",), metrics=_PIXEL_ONLY),
    "kvasir": KnownDataset("Kvasir", ("pairs",), metrics=_PIXEL_ONLY),
}
_ALIASES = {
    "mvtecad": "mvtec",
    "dtd": "dtd-synthetic",
    "loco": "mvtec-loco",
    "mvtecadloco": "mvtec-loco",
    "mvtec3dad": "mvtec-3d",
    "kolektorsdd": "sdd",
    "cvccolondb": "colondb",
    "cvcclinicdb": "clinicdb",
    "kvasirseg": "kvasir",
    "btech": "btad",
}


def canonical_name(name: str) -> str:
    """The short name of a data set however it is written (MVTec-AD, mvtec_ad); an unknown one in plain letters."""
    plain_name = re.sub(r"[^a-z0-9]", "", name.lower())
    known = {re.sub(r"[^a-z0-9]", "", key): key for key in DATASETS}
    return known.get(plain_name) or _ALIASES.get(plain_name) or plain_name


def open_dataset(root: Path, name: str | None = None) -> Dataset:
    """Read a folder as a data set.

    Args:
        root: its folder, or one that holds nothing but it.
        name: a data set or a layout; by default the first layout that fits, and the data set whose classes it holds.

    Returns:
        Products with at least one picture, without what is left out (``leaving_out``), and the metrics that the set is
        used for and its pictures support.

    Raises:
        ConfigError: an unknown name.
        InputError: the folder is missing, or fits no layout, or not the named one.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder.", hint="Give the folder of a data set.")
    named = _named(name)
    layout, found = _find(root, DATASETS[named].layouts if named in DATASETS else (named,) if named else tuple(LAYOUTS))
    loaded = LAYOUTS[layout].load(found)
    products = tuple(without_left_out(p) for p in loaded if p.references or p.tests)
    set_name = named if named in DATASETS else identify(products, layout)
    if set_name is not None:
        _check_classes(found, set_name, products)
    declared = LAYOUTS[layout].metrics & (DATASETS[set_name].metrics if set_name else _BOTH)
    return Dataset(set_name, layout, found, products, declared & _supported(products))


def identify(products: Sequence[ProductData], layout: str) -> str | None:
    """The known data set that is found in this layout and to which all these classes belong; None without one."""
    names = {product.name for product in products}
    fitting = (key for key, known in DATASETS.items() if layout in known.layouts and names <= known.products)
    return next(fitting, None) if names else None


def load_dataset(root: Path, names: Sequence[str] | None = None) -> list[ProductData]:
    """List the products that can be judged against references: good references, good and defective test pictures.

    Args:
        root: folder of a data set in any layout.
        names: these products in this order; by default all that qualify, by name.

    Raises:
        InputError: the folder is missing, no product qualifies, or a named one does not.
    """
    products = {product.name: product for product in open_dataset(root).products}
    complete = {name: p for name, p in products.items() if p.references and p.labels.any() and not p.labels.all()}
    lacking = sorted(set(names or ()) - complete.keys())
    if lacking:
        raise InputError(
            f"{', '.join(lacking)}: needs train/good, test/good and a defective test folder with pictures."
        )
    if not complete:
        raise InputError(
            f"no product in {root} has references with good and defective test pictures.",
            hint="Expected PRODUCT/train/good, PRODUCT/test/good and PRODUCT/test/<defect type>.",
        )
    return [complete[name] for name in (names if names is not None else complete)]


def _named(name: str | None) -> str | None:
    if name is None or (name in LAYOUTS and name not in DATASETS):
        return name
    known = canonical_name(name)
    if known not in DATASETS:
        raise ConfigError(
            f"{name} is no known data set or layout.", hint=f"Known: {', '.join(sorted({*DATASETS, *LAYOUTS}))}."
        )
    return known


def _find(root: Path, layouts: Sequence[str]) -> tuple[str, Path]:
    """The first layout that fits the folder, or the only folder in it, and where."""
    folder = root
    for _ in range(_MAX_DEPTH + 1):
        for layout in layouts:
            if LAYOUTS[layout].fits(folder):
                return layout, folder
        inside = subfolders(folder)
        if len(inside) != 1:
            break
        folder = inside[0]
    expected = "; ".join(f"{layout}: {LAYOUTS[layout].expected}" for layout in layouts)
    raise InputError(f"{root} holds no product in a layout that is known.", hint=f"Expected one of {expected}.")


def _check_classes(root: Path, name: str, products: Sequence[ProductData]) -> None:
    """Sets of one or two classes are repacked under many names; the classes of the larger ones are always the same."""
    known = DATASETS[name]
    strange = [product.name for product in products if product.name not in known.products]
    if strange and len(known.products) > 2:
        raise InputError(
            f"{root} holds {', '.join(strange)}, which {known.title} does not have.",
            hint="Leave the name out for data of your own.",
        )


def _supported(products: Sequence[ProductData]) -> frozenset[str]:
    """``image`` where a product has both classes, ``pixel`` where one has masks."""
    found = set()
    for product in products:
        if product.labels.any() and not product.labels.all():
            found.add(IMAGE)
        if any(picture.mask_paths for picture in product.tests):
            found.add(PIXEL)
    return frozenset(found)
