"""Labelled pictures from the layouts in which inspection data sets are published, and from plain folders."""

from .left_out import leaving_out
from .pictures import GOOD, IMAGE, PIXEL, Dataset, LabelledPicture, ProductData, load_mask
from .plain import load_folders
from .registry import DATASETS, LAYOUTS, canonical_name, load_dataset, open_dataset
from .trees import load_product

__all__ = [
    "DATASETS",
    "GOOD",
    "IMAGE",
    "LAYOUTS",
    "PIXEL",
    "Dataset",
    "LabelledPicture",
    "ProductData",
    "canonical_name",
    "leaving_out",
    "load_dataset",
    "load_folders",
    "load_mask",
    "load_product",
    "open_dataset",
]
