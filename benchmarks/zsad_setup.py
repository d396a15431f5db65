"""Who judges in the zero-shot benchmark, and what it was trained on: figures on that would not be zero-shot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import BackendError, ConfigError
from ..agent.settings import LoadedSettings
from .datasets import DATASETS, Dataset, canonical_name

if TYPE_CHECKING:
    from ..tools.ad_expert.type_prompts import PromptForm
    from ..tools.ad_expert.zero_shot import ZeroShotExpert

CARD = "card.json"


class ZeroShotScorer(Protocol):
    """Judges a picture without having seen its product."""

    def score(self, rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        """Judge a picture.

        Args:
            rgb: uint8 (H, W, 3).

        Returns:
            The image_score and the anomaly_map, float32 (H, W); both larger where more anomalous.
        """
        ...


@dataclass(frozen=True)
class ZeroShotSetup:
    """A scorer and what its scores depend on.

    Attributes:
        scorer: judges pictures.
        identity: weights, prompts and settings, as JSON values; a run goes on only with the same.
        trained_on: data sets, or products where they belong to no known set, of which its parts have learnt.
        scorer_of: makes the scorer of a product, where prompts name it; None when ``scorer`` judges all products.
    """

    scorer: ZeroShotScorer
    identity: Mapping[str, Any]
    trained_on: tuple[str, ...] = ()
    scorer_of: Callable[[str], ZeroShotScorer] | None = None


def configured_setup(loaded: LoadedSettings, types: PromptForm | None = None) -> ZeroShotSetup:
    """The scorer that the settings describe.

    Its training data are those on the model cards beside the weights and beside trained prompts, and the labelled
    products whose defects made the type centroids in the home, when they are used.

    Args:
        loaded: the settings.
        types: what prompts name, the rows of ADSeeker's ablation (arXiv 2508.03088): ``base`` neither the product nor
            types, ``obj`` the product, ``cls`` the picture's likely types, ``both`` both; None as in an inspection,
            which is ``cls`` where the home has type centroids and else ``base``.

    Raises:
        BackendError: the backbone has no text tower.
        ConfigError: prompts shall name types and there are no type centroids, or the product and they are trained, or a
            model card cannot be read, or trained prompts have none.
        KnowledgeError: the type centroids are damaged.
        MissingExtraError: the backbone needs an optional dependency.
        WeightsError: its weights, or trained prompts, are missing or damaged, or do not belong together.
    """
    from ..agent.inspector import InspectionDeps
    from ..tools.ad_expert.type_store import load_centroids

    deps = InspectionDeps(loaded)
    expert = deps.zero_shot
    if expert is None:
        raise BackendError(
            f"the backbone {deps.backbone.name} has no text tower, so it cannot inspect without references.",
            hint="Give --profile paper, or --backbone clip.",
        )
    form: PromptForm = types or ("cls" if expert.type_prompts else "base")
    prompts = loaded.settings.trained_prompts
    if prompts is not None and form in ("obj", "both"):
        raise ConfigError(
            f"--types {form} names the product, which trained prompts do not.",
            hint="Give --types base or cls, or leave the setting trained_prompts empty.",
        )
    centroids = load_centroids(loaded.home, deps.backbone) if form in ("cls", "both") else None
    if form in ("cls", "both") and centroids is None:
        raise ConfigError(
            f"--types {form} needs type centroids for {deps.backbone.name}, and the home has none.",
            hint="Make them from data that are not tested on: flawscope kb types build --data FOLDER.",
        )
    learnt = list(trained_on(loaded.settings.clip_weights)) if loaded.settings.clip_weights else []
    if prompts is not None:
        learnt += _trained_on_by_card(prompts.expanduser())
    if centroids is not None:
        learnt += training_names(str(row["product"]) for row in centroids.card["sources"])
    words = expert.describe()
    identity = {
        "backbone": deps.backbone.name,
        "weights_sha256": deps.backbone.weights_sha256,
        "image_size_px": deps.backbone.image_size_px,
        "types": form,
        "trained_prompts": words["first_prompts_sha256"] if prompts is not None else None,
        "types_sha256": str(centroids.card["sha256"]) if centroids else None,
        **{key: words[key] for key in ("prompts_sha256", "anchors", "loc_mode")},
        **({"prompt": expert.prompted.kind} if expert.prompted else {}),
    }
    trained = tuple(sorted(set(learnt)))
    if form in ("base", "cls"):
        return ZeroShotSetup(expert_for(expert, form, None, loaded.home.anchors), identity, trained)
    of_product = cache(lambda product: expert_for(expert, form, noun_of(product), loaded.home.anchors))
    return ZeroShotSetup(expert, identity, trained, of_product)


def expert_for(expert: ZeroShotExpert, form: PromptForm, noun: str | None, folder: Path) -> ZeroShotExpert:
    """An expert whose prompts name what ``form`` says, in the first look and in the second.

    Args:
        expert: the configured one; its anchors stay where no noun is named.
        form: without types there is no second look.
        noun: the part's name, for ``obj`` and ``both``.
        folder: where embedded prompts are kept.

    Raises:
        StorageError: the anchors cannot be kept.
    """
    from ..tools.ad_expert.type_prompts import type_anchors
    from ..tools.ad_expert.zero_shot import ZeroShotExpert

    type_prompts = expert.type_prompts if form in ("cls", "both") else None
    if expert.prompted is not None:  # they name no product
        return ZeroShotExpert(expert.backbone, None, expert.config, type_prompts, expert.prompted)
    anchors = expert.anchors
    if form in ("obj", "both") and noun is not None:
        anchors = type_anchors(expert.backbone, form="obj", noun=noun, folder=folder)
        type_prompts = replace(type_prompts, noun=noun) if type_prompts else None
    return ZeroShotExpert(expert.backbone, anchors, expert.config, type_prompts)


def noun_of(product: str) -> str | None:
    """What prompts call a product: ``metal_nut`` is a metal nut, ``pcb1`` a pcb; None where only a number is left."""
    return product.replace("_", " ").replace("-", " ").rstrip("0123456789").strip() or None


def trained_on(weights: Path) -> tuple[str, ...]:
    """What the model card beside weights says they were trained on, or stopped by, in the words of ``training_names``.

    Args:
        weights: a checkpoint, or the folder that holds it; the card is ``card.json`` there.

    Returns:
        Sorted; empty where there is no card: published weights have none.

    Raises:
        ConfigError: there is a card that cannot be read.
    """
    path = (weights if weights.is_dir() else weights.parent) / CARD
    if not path.is_file():
        return ()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))["data"]
        entries = [*data["trained_on"], *data.get("held_out", [])]
        names = [str(entry.get("dataset") or entry["name"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"the model card {path} cannot be read: {error!r}.") from error
    return training_names(names)


def _trained_on_by_card(prompts: Path) -> tuple[str, ...]:
    """``trained_on`` of prompts, which were trained on something in any case."""
    learnt = trained_on(prompts)
    if not learnt:
        raise ConfigError(
            f"nothing beside the trained prompts {prompts} says what they were trained on.",
            hint=f"Keep the {CARD} that was written with them in their folder.",
        )
    return learnt


def training_names(names: Iterable[str]) -> tuple[str, ...]:
    """Data sets for names of data sets and of products that belong to one; other names as they are; sorted."""
    found = set()
    for name in names:
        known = canonical_name(name)
        owner = next((key for key, dataset in DATASETS.items() if name in dataset.products), name)
        found.add(known if known in DATASETS else owner)
    return tuple(sorted(found))


def checked_training(learnt: Sequence[str], stated: Sequence[str], tested: Dataset) -> list[str]:
    """What the scorer was trained on, by its cards and by statement.

    Raises:
        ConfigError: it was trained on what is tested, or the statement contradicts the cards.
    """
    said = training_names(stated)
    if learnt and said and set(learnt) != set(said):
        raise ConfigError(
            f"the model card says trained on {', '.join(sorted(learnt))}, not on {', '.join(said)}.",
            hint="Leave --train-on out: the card is what counts.",
        )
    training = sorted({*learnt, *said})
    seen = [DATASETS[tested.name].title] if tested.name in training else []
    seen += [product.name for product in tested.products if product.name in training]
    if seen:
        raise ConfigError(
            f"the scorer was trained on {', '.join(seen)}: its figures there would not be zero-shot.",
            hint="Test on another data set, or take weights and types that were made from another.",
        )
    return training
