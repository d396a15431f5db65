"""The ladder A0 to A9 with its controls: what each thing given to a model is worth, against the row before it.

Every row answers the same questions; differences are paired by picture. What a row needs and this machine or model has
not is said in its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent.settings import LoadedSettings
from ..agent.vision_language import VisionLanguageModel
from .ablation_stress import GoodsRow, goods_under, normals_of, stress_rows
from .memory import peak_mb
from .mmad.answering import MostFrequent, answered, record
from .mmad.arms import BY_NAME, Arm, arms_named
from .mmad.asking import Asking
from .mmad.baselines import ByRule
from .mmad.evidence import EvidenceSource
from .mmad.questions import Item, ItemSet, load_items
from .mmad.run import ask_all, chosen_items, run_folder
from .mmad.workshop import open_workshop
from .run_folder import RunFolder

if TYPE_CHECKING:
    from ..agent.vision_language.latent import LatentSettings
    from ..agent.vision_language.prior import PriorTokens

Progress = Callable[[str, int, int], None]
FREQUENT, RULES = "most frequent letter", "evidence by rule"
GOODS = "goods"
"""Folder of the answers about good references, inside that of all answers."""


def run_ablation(
    data: Path,
    model: VisionLanguageModel,
    loaded: LoadedSettings,
    *,
    arms: list[str] | None = None,
    products: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    stress: int = 0,
    goods: int = 0,
    latent: LatentSettings | None = None,
    weights: str = "",
    out: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Climb the ladder.

    Args:
        data: set in MMAD's layout.
        model: whom to ask.
        loaded: settings whose home is the workshop's own and whose reasoner is the embedded one, since questions go to
            ``model``; ``prior_tokens`` names trained tokenizers for A6.
        arms: only these, and the rows they are compared with.
        products: only these.
        tasks: only these subtasks.
        limit: pictures of each product at most.
        stress: pictures of each product for the table of false evidence; 0 leaves it out.
        goods: good references of each of the products that are asked about as pictures; 0 leaves them out.
        latent: settings of A8; its defaults when None.
        weights: what tells the model from others of its name.
        out: where answers are kept; a run there goes on. What A8 did to good references is written there as well.
        progress: told about long work.

    Raises:
        InputError: the set or a picture cannot be read.
        ConfigError: an arm or product is unknown, or ``out`` holds another run.
        BackendError: the model failed.
    """
    items = load_items(data)
    chosen = chosen_items(items, products, tasks, limit)
    deps = open_workshop(loaded, items, progress)
    try:
        wanted = arms_named(arms)
        source = EvidenceSource(deps, items.root, prior_tokens_for(loaded, model, deps.backbone, wanted))
        asking = Asking(model, items.root, latent)
        missing = {arm.name: why for arm in wanted if (why := _missing(arm, model, source))}
        for done, item in enumerate(chosen, start=1):
            source.of(item)
            progress("looking at the pictures", done, len(chosen))
        identity = {
            "products": products,
            "tasks": tasks,
            "limit": limit,
            "weights": weights,
            "evidence": source.conditions,
            "latent": None if latent is None else dataclasses.asdict(latent),
        }

        def kept(root: Path | None, arm: Arm) -> AbstractContextManager[RunFolder | None]:
            made = {"tokens": source.prior_tokens.sha256} if arm.tokens and source.prior_tokens else {}
            return _kept(root, arm.name, items, model.name, identity | made)

        lines: dict[str, list[dict[str, Any]]] = {}
        peaks: dict[str, float | None] = {}
        for arm in wanted:
            if arm.name in missing:
                continue
            with kept(out, arm) as folder, peak_mb() as peak:
                lines[arm.name] = ask_all(folder, chosen, _ask(asking, arm, source), arm.name, progress)
            peaks[arm.name] = peak.value
        baselines = _baselines(chosen, source)
        stressed = stress_rows(asking, source, chosen_items(items, products, tasks, stress), progress) if stress else ()
        ran = [arm for arm in wanted if arm.name in lines and not arm.is_control]
        beside = partial(kept, None if out is None else out / GOODS)
        references = goods_under(asking, source, items, ran, goods, beside, progress, products) if goods else ()
    finally:
        deps.close()
    if out is not None:
        _keep_normals(out, references, model.name, weights, latent)
    return {
        "title": data.name,
        "model": model.name,
        "sha256": items.sha256,
        "questions": len(chosen),
        "images": len({item.image for item in chosen}),
        "whole": len(chosen) == len(items.items),
        "arms": wanted,
        "missing": missing,
        "lines": lines,
        "peaks": peaks,
        "baselines": baselines,
        "stress": stressed,
        "goods": references,
    }


def _ask(asking: Asking, arm: Arm, source: EvidenceSource) -> Callable[[Item], dict[str, Any]]:
    return lambda item: asking.line(item, arm, source.of(item))


@contextmanager
def _kept(
    out: Path | None, name: str, items: ItemSet, model: str, identity: dict[str, Any]
) -> Iterator[RunFolder | None]:
    """The folder of a row's answers; None keeps them in memory."""
    if out is None:
        yield None
        return
    arm = {key: value for key, value in dataclasses.asdict(BY_NAME[name]).items() if key != "what"}
    with run_folder(out / name, items, model, {**identity, "arm": arm}) as folder:
        yield folder


def _keep_normals(out: Path, rows: Sequence[GoodsRow], model: str, weights: str, latent: LatentSettings | None) -> None:
    """Write what guard G5 asks for, where it was measured with weights that can be told from others."""
    from ..agent.vision_language.latent import LatentSettings
    from ..agent.vision_language.latent.normals import NORMALS_FILE, save_normals

    measured = normals_of(rows)
    if measured is not None and weights:
        search = LatentSettings() if latent is None else latent
        save_normals(out / NORMALS_FILE, measured, model=model, weights=weights, settings=search)


def _baselines(items: Sequence[Item], source: EvidenceSource) -> dict[str, list[dict[str, Any]]]:
    """Rows without a model, for comparison."""
    frequent, rules = MostFrequent.of(items), ByRule()
    return {
        FREQUENT: [answered(item, frequent, ()) for item in items],
        RULES: [record(item, rules.name, rules.answer(item, source.of(item)), 0.0) for item in items],
    }


def _missing(arm: Arm, model: VisionLanguageModel, source: EvidenceSource) -> str | None:
    """Why an arm cannot be run here; None when it can."""
    if "tokens" in arm.needs and source.prior_tokens is None:
        return "no prior tokens are trained for this model (flawscope train tokens)"
    if "text tower" in arm.needs:
        if source.deps.anchors is None:
            return f"not applicable: the backbone {source.deps.backbone.name} has no text tower"
        return "type prompts are part of the expert: compare A5 of a home with them and of one without"
    if "local" in arm.needs and not hasattr(model, "checkpoint"):
        return "latent reasoning needs a model in this process"
    return None


def prior_tokens_for(
    loaded: LoadedSettings, model: VisionLanguageModel, backbone: Any, arms: Sequence[Arm]
) -> PriorTokens | None:
    """The trained tokenizers that the settings name, where an arm uses them and the model runs here; else None.

    Raises:
        WeightsError: they are damaged, or made for other weights.
    """
    path = loaded.settings.prior_tokens
    if path is None or not any(arm.tokens for arm in arms):
        return None
    from ..agent.vision_language.prior import load_prior_tokens
    from ..agent.vision_language.qwen import QwenModel

    return load_prior_tokens(path, model, backbone.weights_sha256) if isinstance(model, QwenModel) else None
