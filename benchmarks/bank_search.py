"""What searching the memory bank costs, by number of references, with the coreset and without."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..tools.ad_expert.expert import ExpertConfig, FittedExpert, ReferenceFit, expert_tokens
from ..tools.backbones import Backbone, VisualFeatures
from ..tools.blas import single_blas_thread
from .expert_parts import Forward, Picture, seconds


@dataclass(frozen=True)
class SearchRow:
    """Searching one memory bank.

    Attributes:
        references: pictures in it.
        coreset: thinned to the default number of tokens, or kept whole.
        tokens: in it.
        megabytes: of tokens, owners and weights.
        search: aligning, projecting and searching all patches of a picture, ms, median.
        ratio: by the bare forward pass, median of ratios.
    """

    references: int
    coreset: bool
    tokens: int
    megabytes: float
    search: float
    ratio: float


def fit_banks(
    features: Sequence[VisualFeatures], counts: Sequence[int], tell: Callable[[str], None]
) -> dict[tuple[int, bool], FittedExpert]:
    """A memory bank of the first references for each count, with the default coreset (True) and without (False)."""
    tokens, grids = [expert_tokens(seen) for seen in features], [seen.grid for seen in features]
    sizes = {True: ExpertConfig().bank_size, False: sum(len(view) for view in tokens)}
    found = {}
    for count in counts:
        tell(f"memory bank of {count} references")
        for coreset, size in sizes.items():
            config = ExpertConfig(bank_size=size)
            found[count, coreset] = ReferenceFit(
                tokens[:count], range(count), config, grids=grids[:count], statistics=None
            ).expert
    return found


def time_search(
    experts: dict[tuple[int, bool], FittedExpert],
    pictures: Sequence[Picture],
    backbone: Backbone,
    bare: Callable[[Picture], dict[str, Forward]],
    rounds: int,
) -> list[SearchRow]:
    """Search every bank with every picture, in turn with the forward pass of the picture.

    Args:
        experts: from ``fit_banks``.
        pictures: prepared, uint8 (H, W, 3) each.
        backbone: for their tokens.
        bare: as in ``time_whole``; its first pass is what the ratios are formed with.
        rounds: times that all is repeated; one more comes first and is not counted.
    """
    taken: dict[tuple[int, bool], list[tuple[float, float]]] = {key: [] for key in experts}
    with single_blas_thread():
        for number, picture in itertools.product(range(rounds + 1), pictures):
            features = backbone.encode_image(picture[None])
            tokens, grid = expert_tokens(features), features.grid
            forward = seconds(next(iter(bare(picture[None]).values())))[1]
            for key, expert in experts.items():
                search = seconds(partial(expert.distances, tokens, grid))[1]
                if number:
                    taken[key].append((search, forward))
    return [search_row(*key, expert, taken[key]) for key, expert in experts.items()]


def search_row(count: int, coreset: bool, expert: FittedExpert, times: Sequence[tuple[float, float]]) -> SearchRow:
    """Summarise pairs of (search, forward pass), seconds."""
    bank = expert.bank
    arrays = [bank.tokens, bank.owners, *([] if bank.weights is None else [bank.weights])]
    return SearchRow(
        references=count,
        coreset=coreset,
        tokens=len(bank.tokens),
        megabytes=sum(array.nbytes for array in arrays) / 1e6,
        search=1e3 * statistics.median(search for search, _ in times),
        ratio=statistics.median(search / forward for search, forward in times),
    )
