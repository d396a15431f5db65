"""What the training commands learn from: products of data sets, with the licences of their pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent.errors import ConfigError, InputError, MissingExtraError

if TYPE_CHECKING:
    from ..agent.settings import LoadedSettings
    from ..benchmarks.datasets import ProductData
    from ..training.retriever_pairs import Source


def require_torch() -> None:
    """Refuse before anything is read.

    Raises:
        MissingExtraError: torch or safetensors is not installed.
    """
    try:
        import safetensors.torch  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Training", "train") from error


def require_transformers(extra: str = "vlm") -> None:
    """Refuse before anything is read.

    Args:
        extra: the one that the command needs.

    Raises:
        MissingExtraError: what a language model is trained with is not installed.
    """
    try:
        import transformers  # noqa: F401

        if extra == "lora":
            import peft  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Training with a language model", extra) from error


def refuse_trained_head(loaded: LoadedSettings) -> None:
    """Refuse a setting that the evidence of a training would silently go without, before anything is read.

    Raises:
        ConfigError: the settings name a trained head.
    """
    if loaded.settings.trained_head is not None:
        raise ConfigError(
            f"the setting trained_head ({loaded.origins['trained_head']}) does not count here: language models learn"
            " from the evidence of the expert without a head.",
            hint="Leave trained_head empty for this command.",
        )


def labelled_sources(folders: list[Path], licence: str | None) -> list[Source]:
    """Every product of some data sets that has defective pictures, with its licence.

    Raises:
        InputError: a name is found twice.
    """
    from ..benchmarks.datasets import open_dataset
    from ..training.card import NOT_STATED, licence_of
    from ..training.retriever_pairs import Source

    found: dict[str, Source] = {}
    for folder in folders:
        dataset = open_dataset(folder)
        for product in dataset.products:
            if product.name in found:
                raise InputError(f"two products are called {product.name}.", hint="Rename one of the folders.")
            if product.labels.any():
                stated = licence_of(dataset.root / product.name)
                found[product.name] = Source(dataset, product, licence if stated == NOT_STATED and licence else stated)
    return list(found.values())


def split_products(folders: list[Path], hold_out: list[str], licence: str | None) -> tuple[list[Any], list[Any]]:
    """Products to train on and held out, each with its licence.

    Raises:
        InputError: nothing is left to train on, or a name is unknown or found twice.
    """
    from ..benchmarks.datasets import open_dataset
    from ..training.card import NOT_STATED, licence_of

    found: dict[str, tuple[ProductData, str]] = {}
    for folder in folders:
        for product in open_dataset(folder).products:
            if product.name in found:
                raise InputError(f"two products are called {product.name}.", hint="Rename one of the folders.")
            if product.references:
                stated = licence_of(product.references[0].parents[2])
                found[product.name] = (product, licence if stated == NOT_STATED and licence else stated)
    unknown = sorted(set(hold_out) - found.keys())
    if unknown:
        raise InputError(f"--hold-out {', '.join(unknown)}: no such product.", hint=f"Found: {', '.join(found)}.")
    products = [entry for name, entry in found.items() if name not in hold_out]
    if not products:
        raise InputError("there is no product to train on.", hint="Products need good pictures to compare with.")
    return products, [found[name] for name in hold_out]


def split_sources(folders: list[Path], hold_out: list[str], licence: str | None) -> tuple[list[Source], list[Source]]:
    """Products with defects to train on, and those held out.

    Raises:
        InputError: nothing is left to train on, or a name is unknown or found twice.
    """
    found = {source.product.name: source for source in labelled_sources(folders, licence)}
    unknown = sorted(set(hold_out) - found.keys())
    if unknown:
        raise InputError(f"--hold-out {', '.join(unknown)}: no such product.", hint=f"Found: {', '.join(found)}.")
    learnt = [source for name, source in found.items() if name not in hold_out]
    if not learnt:
        raise InputError("there is no product to train on.", hint="Products need defective pictures.")
    return learnt, [found[name] for name in hold_out]
