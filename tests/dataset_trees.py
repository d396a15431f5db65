"""Small copies of the folders in which inspection data sets are published, with what makes each of them awkward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 12, 8
BOX = (slice(2, 5), slice(3, 9))
"""Where every drawn defect lies: 3 x 6 pixels."""


def picture(path: Path, value: int = 120) -> Path:
    """A grey picture of 12 x 8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)).save(path)
    return path


def mask(path: Path, value: int = 255, box: tuple[slice, slice] = BOX) -> Path:
    """A drawing of the box in one grey value; ``value=0`` is an empty drawing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[box] = value
    Image.fromarray(drawn).save(path)
    return path


def clutter(folder: Path) -> None:
    """What downloads and desktops leave behind."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Thumbs.db", "readme.txt", ".DS_Store", "._000.png", "license.txt"):
        (folder / name).write_bytes(b"stray")
    (folder / "__MACOSX" / "test" / "good").mkdir(parents=True, exist_ok=True)
    (folder / "__MACOSX" / "test" / "good" / "000.png").write_bytes(b"stray")


def mvtec(root: Path, product: str = "bottle") -> None:
    """Mask numbers have a gap, one defective picture is unmasked, one suffix is in capitals."""
    for n in range(3):
        picture(root / product / "train/good" / f"{n:03d}.png")
        picture(root / product / "test/good" / f"{n:03d}.png")
    for name in ("000.png", "001.png", "002.PNG"):
        picture(root / product / "test/broken" / name)
    mask(root / product / "ground_truth/broken/000_mask.png")
    mask(root / product / "ground_truth/broken/002_mask.png", box=(slice(0, 1), slice(0, 1)))
    clutter(root / product / "test/broken")
    clutter(root / product / "ground_truth/broken")
    clutter(root)


def visa_converted(root: Path) -> None:
    """One type called bad, JPEG pictures, masks named like the pictures."""
    for n in range(2):
        picture(root / "candle/train/good" / f"{n:04d}.JPG")
        picture(root / "candle/test/good" / f"{n:04d}.JPG")
        picture(root / "candle/test/bad" / f"{n:03d}.JPG")
        mask(root / "candle/ground_truth/bad" / f"{n:03d}.png")


def goodsad(root: Path) -> None:
    """JPEG pictures named by goods and serial number."""
    for serial in ("001001", "001002", "002001"):
        picture(root / "drink_can/train/good" / f"{serial}.jpg")
        picture(root / "drink_can/test/good" / f"{serial}.jpg")
        picture(root / "drink_can/test/deformation" / f"{serial}.jpg")
        mask(root / "drink_can/ground_truth/deformation" / f"{serial}.png")


def mpdd(root: Path) -> None:
    """One class has several types, whose numbers begin anew in each; another has a single one."""
    for name, types in (("bracket_black", ("hole", "scratches")), ("connector", ("parts_mismatch",))):
        for n in range(2):
            picture(root / name / "train/good" / f"{n:03d}.png")
            picture(root / name / "test/good" / f"{n:03d}.png")
            for kind in types:
                picture(root / name / "test" / kind / f"{n:03d}.png")
                mask(root / name / "ground_truth" / kind / f"{n:03d}_mask.png")


def dtd_synthetic(root: Path) -> None:
    """Names of classes end in the number of a texture; one type called bad."""
    for name in ("Blotchy_099", "Woven_001"):
        for n in range(2):
            picture(root / name / "train/good" / f"{n:03d}.png")
            picture(root / name / "test/good" / f"{n:03d}.png")
            picture(root / name / "test/bad" / f"{n:03d}.png")
            mask(root / name / "ground_truth/bad" / f"{n:03d}_mask.png")


def btad(root: Path) -> None:
    """The normal folder is ``ok``; pictures are .bmp in one class and .png in another, masks likewise."""
    for product, suffix, mask_suffix in (("01", ".bmp", ".png"), ("02", ".png", ".png"), ("03", ".bmp", ".bmp")):
        for n in range(2):
            picture(root / product / "train/ok" / f"{n:04d}{suffix}")
            picture(root / product / "test/ok" / f"{n:04d}{suffix}")
            picture(root / product / "test/ko" / f"{n:04d}{suffix}")
            mask(root / product / "ground_truth/ko" / f"{n:04d}{mask_suffix}")
    clutter(root / "01/test/ko")


def loco(root: Path) -> None:
    """A validation folder of good pictures; a folder of masks per picture, in values below 255 that mean types."""
    product = root / "pushpins"
    for part in ("train", "validation", "test"):
        for n in range(2):
            picture(product / part / "good" / f"{n:03d}.png")
    for kind in ("logical_anomalies", "structural_anomalies"):
        for n in range(2):
            picture(product / "test" / kind / f"{n:03d}.png")
            mask(product / "ground_truth" / kind / f"{n:03d}/000.png", 254)
    mask(product / "ground_truth/logical_anomalies/001/001.png", 250, (slice(6, 8), slice(0, 2)))
    (product / "defects_config.json").write_text("[]")
    clutter(product / "ground_truth/logical_anomalies/001")


def mvtec_3d(root: Path) -> None:
    """``rgb``, ``xyz`` and ``gt`` inside every type, good ones too, whose gt is empty."""
    product = root / "bagel"
    for part, kind in (("train", "good"), ("validation", "good"), ("test", "good"), ("test", "hole")):
        for n in range(2):
            folder = product / part / kind
            picture(folder / "rgb" / f"{n:03d}.png")
            (folder / "xyz").mkdir(exist_ok=True)
            (folder / "xyz" / f"{n:03d}.tiff").write_bytes(b"points")
            if part == "test":
                mask(folder / "gt" / f"{n:03d}.png", 255 if kind == "hole" else 0)


def visa(root: Path) -> None:
    """A table with a byte-order mark; masks hold class numbers; one class was not downloaded."""
    images, masks = "pcb1/Data/Images", "pcb1/Data/Masks/Anomaly"
    rows = ["object,split,label,image,mask"]
    for n in range(3):
        picture(root / images / "Normal" / f"{n:04d}.JPG")
        rows.append(f"pcb1,{'test' if n == 2 else 'train'},normal,{images}/Normal/{n:04d}.JPG,")
    for n in range(2):
        picture(root / images / "Anomaly" / f"{n:03d}.JPG")
        mask(root / masks / f"{n:03d}.png", n + 1)
        rows.append(f"pcb1,test,anomaly,{images}/Anomaly/{n:03d}.JPG,{masks}/{n:03d}.png")
    rows.append("candle,test,normal,candle/Data/Images/Normal/0000.JPG,")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")


def dagm(root: Path) -> None:
    """``Train`` and ``Test`` in capitals, .PNG; only defective pictures have a label; Class10 sorts after Class2."""
    for product in ("Class1", "Class2", "Class10"):
        for part in ("Train", "Test"):
            for n in (576, 577, 578):
                picture(root / product / part / f"{n:04d}.PNG")
            mask(root / product / part / "Label/0577_label.PNG")
            (root / product / part / "Label/Labels.txt").write_text("1\n")
            clutter(root / product / part)


def sdd(root: Path) -> None:
    """Every picture has a drawing beside it, mostly an empty one."""
    for item in ("kos01", "kos02"):
        for n in range(3):
            picture(root / item / f"Part{n}.jpg")
            mask(root / item / f"Part{n}_label.bmp", 255 if n == 1 else 0)


def brain_mri(root: Path) -> None:
    """Mixed names and suffixes, and everything again inside ``brain_tumor_dataset``."""
    for folder in (root, root / "brain_tumor_dataset"):
        for name in ("Y1.jpg", "Y2.JPG"):
            picture(folder / "yes" / name)
        for name in ("1 no.jpeg", "no 2.jpg", "N3.png"):
            picture(folder / "no" / name)


def br35h(root: Path) -> None:
    """``pred`` holds unlabelled pictures, another folder an annotated copy."""
    for n in range(2):
        picture(root / "yes" / f"y{n}.jpg")
        picture(root / "no" / f"no{n}.jpg")
        picture(root / "pred" / f"pred{n}.jpg")
        picture(root / "Br35H-Mask-RCNN/TRAIN" / f"y{n}.jpg")


def headct(root: Path) -> None:
    """A header with a blank; pictures one folder deeper than they need be."""
    for n in range(4):
        picture(root / "head_ct/head_ct" / f"{n:03d}.png")
    (root / "labels.csv").write_text("id, hemorrhage\n0,1\n1,0\n2,1\n3,0\n\n")


def headct_prepared(root: Path) -> None:
    """The MVTec layout without training pictures and masks."""
    for kind, count in (("good", 2), ("hemorrhage", 3)):
        for n in range(count):
            picture(root / "headct/test" / kind / f"{n:03d}.png")


def isic(root: Path) -> None:
    """As AnomalyCLIP arranges it; one drawing is missing, so that listing order would pair wrongly."""
    for n in (3, 4, 12):
        picture(root / "skin/test/lesion" / f"ISIC_{n:07d}.jpg")
    for n in (3, 12):
        mask(root / "skin/ISBI2016_ISIC_Part1_Test_GroundTruth" / f"ISIC_{n:07d}_Segmentation.png")


def isic_raw(root: Path) -> None:
    """As published, with the training part and superpixels beside it."""
    for part in ("Test", "Training"):
        picture(root / f"ISBI2016_ISIC_Part1_{part}_Data/ISIC_0000003.jpg")
        picture(root / f"ISBI2016_ISIC_Part1_{part}_Data/ISIC_0000003_superpixels.png")
        mask(root / f"ISBI2016_ISIC_Part1_{part}_GroundTruth/ISIC_0000003_Segmentation.png")


def polyps(root: Path) -> None:
    """Numbers without padding, JPEG drawings of other suffix capitals, one missing."""
    for n in (1, 2, 10, 11):
        picture(root / "images" / f"{n}.png")
    for n in (1, 10, 11):
        mask(root / "masks" / f"{n}.PNG")
    (root / "bboxes.json").write_text("{}")


def kvasir(root: Path) -> None:
    """As published: drawings are lossy JPEGs, a table of boxes lies beside the folders."""
    for name in ("cju0qkwl35piu0993l0dewei2", "cju0qoxqj9q6s0835b43399p4"):
        picture(root / "images" / f"{name}.jpg")
        mask(root / "masks" / f"{name}.jpg")
    (root / "kavsir_bboxes.json").write_text("{}")


def clinicdb_raw(root: Path) -> None:
    """The folder names of CVC-ClinicDB's own archive."""
    for n in (1, 2):
        picture(root / "Original" / f"{n}.tif")
        mask(root / "Ground Truth" / f"{n}.tif")


def folders(root: Path) -> None:
    """Somebody's own: good parts, parts for testing, two defect types, masks for one of them."""
    for n in range(3):
        picture(root / "good" / f"a{n}.png")
        picture(root / "good_test" / f"b{n}.png")
        picture(root / "scratch" / f"c{n}.JPEG")
        picture(root / "dent" / f"d{n}.bmp")
        mask(root / "masks/scratch" / f"c{n}.png")
    clutter(root)


def flat(root: Path) -> None:
    """Good pictures and nothing else."""
    for n in range(3):
        picture(root / f"{n}.jpg")


BUILDERS: dict[str, Callable[[Path], None]] = {
    "mvtec": mvtec,
    "visa": visa,
    "btad": btad,
    "loco": loco,
    "mvtec-3d": mvtec_3d,
    "dagm": dagm,
    "sdd": sdd,
    "headct": headct,
    "isic": isic,
    "pairs": polyps,
    "yes-no": br35h,
    "folders": folders,
    "flat": flat,
}
"""One for every layout."""
