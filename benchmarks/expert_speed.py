"""The whole expert beside its backbone's bare forward pass, the memory bank's search, and batches of pictures.

Inside the expert's time: the forward pass with its patch tokens (``encode``), patch distances, scores and anomaly_map
(``localise``), suspicious areas (``regions``), from a picture that is decoded and resized. Outside, shown beside it:
decoding, resizing and levelling. The bare forward pass has its input ready and gives the network's own output.

CLIP ViT-L/14 at 336 px runs with random weights, which no inspection can load: its figures are times only.

Run: ``python -m flawscope.benchmarks.expert_speed --data DIR``; needs the extra clip, or ``--clip off``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..agent.errors import InputError
from ..tools.ad_expert.expert import ExpertConfig, prepare
from ..tools.backbones import load_backbone
from ..tools.enrolment import fit_product
from ..tools.imaging import load_image
from .bank_search import SearchRow, fit_banks, time_search
from .datasets import ProductData, load_dataset
from .expert_clip import centre_square, time_clip
from .expert_parts import (
    STAGES,
    BatchRow,
    Forward,
    Picture,
    ProductJudge,
    Sample,
    WholeRow,
    batch_row,
    time_batch,
    time_whole,
    whole_row,
)
from .fewshot import StageBackbone
from .random_clip import LABEL, random_clip, require_clip
from .untouched import untouched_tests

REFERENCES = 16
COUNTS = (1, 2, 4, 8, 16, 50, 100, 200)
PICTURES, ROUNDS = 12, 3
SEARCHED = 4
"""Pictures that every bank is searched with."""
CLIP_PICTURES, CLIP_ROUNDS = 2, 2
BATCH, BATCH_REPEATS = 8, 10
AIM, BATCH_AIM = 1.6, 1.0
BATCH_NOISE = 0.02
"""How far above its aim a ratio of the same work may come out."""

Progress = Callable[[str], None]


@dataclass
class ExpertSpeedResult:
    """What was measured.

    Attributes:
        embedded: the embedded backbone, per product.
        clip: CLIP, per way of judging and of running the tower; empty without.
        search: of memory banks.
        batches: per backbone.
        notes: what a reader must know.
    """

    embedded: list[WholeRow] = field(default_factory=list)
    clip: list[WholeRow] = field(default_factory=list)
    search: list[SearchRow] = field(default_factory=list)
    batches: list[BatchRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run_expert_speed(
    data: Path,
    *,
    products: Sequence[str] | None = None,
    clip: bool = True,
    clip_model: dict[str, Any] | None = None,
    counts: Sequence[int] = COUNTS,
    pictures: int = PICTURES,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
) -> ExpertSpeedResult:
    """Measure everything in one process.

    Args:
        data: folder of products in the MVTec layout.
        products: only these.
        clip: also CLIP, on random weights.
        clip_model: open_clip's description of another model than ViT-L/14.
        counts: references in the memory banks that are searched.
        pictures: of each product at most.
        rounds: times that each is judged.
        progress: told a line now and then.

    Raises:
        InputError: no product has REFERENCES references.
        MissingExtraError: torch, open_clip or safetensors is missing and ``clip`` was not turned off.
    """
    tell = progress or (lambda text: None)
    if clip:
        require_clip()  # before minutes of other work
    found = load_dataset(data, products)
    chosen = [product for product in found if len(product.references) >= REFERENCES]
    if not chosen:
        raise InputError(f"no product of {data} has {REFERENCES} references.")
    embedded: Any = load_backbone("efficientnet-lite2")
    result = ExpertSpeedResult()
    if left_out := [product.name for product in found if product not in chosen]:
        result.notes.append(f"left out, fewer than {REFERENCES} references: {', '.join(left_out)}")
    result.embedded = [_time_product(product, embedded, pictures, rounds, tell) for product in chosen]
    result.search = _time_banks(chosen, embedded, counts, rounds, result.notes, tell)
    result.batches.append(_time_batches(chosen[0], embedded, tell))
    if clip:
        tell("CLIP: making and loading random weights")
        tests = [test.path for test in _spread(chosen[0].tests, CLIP_PICTURES)]
        references = chosen[0].references[:REFERENCES]
        result.clip, row = time_clip(random_clip(clip_model), references, tests, CLIP_ROUNDS, tell)
        result.batches.append(row)
        result.notes.append(f"CLIP: pictures of {chosen[0].name}, cut to squares")
    return result


def bare_embedded(backbone: StageBackbone, batch: Picture) -> dict[str, Forward]:
    """The network's two stages as they come, of a prepared picture, uint8 (1, H, W, 3)."""
    return {"forward": lambda: backbone.run_stages(batch, ("stride8", "stride16"))}


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most ``count`` of them, evenly spaced."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]


def _time_product(
    product: ProductData, backbone: StageBackbone, pictures: int, rounds: int, tell: Progress
) -> WholeRow:
    tell(f"{product.name}: enrolling")
    model = fit_product(product.name, [str(path) for path in product.references[:REFERENCES]], backbone)
    samples: list[Sample] = []
    for number in range(rounds + 1):
        tell(f"{product.name}: round {number} of {rounds}" if number else f"{product.name}: warming up")
        for place, test in enumerate(_spread(product.tests, pictures)):
            taken = time_whole(
                test.path,
                backbone,
                model.expert.config,
                [ProductJudge(model)],
                lambda batch: bare_embedded(backbone, batch),
                bare_first=(number + place) % 2 == 0,
            )
            samples += taken if number else []
    return whole_row(product.name, samples, aim=AIM)


def _time_banks(
    products: Sequence[ProductData],
    backbone: StageBackbone,
    counts: Sequence[int],
    rounds: int,
    notes: list[str],
    tell: Progress,
) -> list[SearchRow]:
    config = ExpertConfig()
    good = [path for product in products for path in product.references]
    tell(f"encoding {max(counts)} references")
    features = []
    for number, path in enumerate(itertools.islice(itertools.cycle(good), max(counts))):
        shift = 16 * (number // len(good))  # a repeated picture is moved by whole patches, so that it is another one
        moved = np.roll(prepare(load_image(path).rgb, config), shift, axis=(0, 1))
        features.append(backbone.encode_image(moved[None]))
    used = [product.name for number, product in enumerate(products) if _first(products, number) < max(counts)]
    notes.append(f"banks: good pictures of {', '.join(used)}, one product after the other, one view each")
    if max(counts) > len(good):
        notes.append(f"banks of more than {len(good)} references repeat pictures, moved by whole patches")
    queries = [prepare(load_image(test.path).rgb, config) for test in _spread(products[0].tests, SEARCHED)]
    experts = fit_banks(features, counts, tell)
    tell("searching the memory banks")
    return time_search(experts, queries, backbone, lambda batch: bare_embedded(backbone, batch), rounds)


def _first(products: Sequence[ProductData], number: int) -> int:
    """Place of a product's first reference among all."""
    return sum(len(product.references) for product in products[:number])


def _time_batches(product: ProductData, backbone: StageBackbone, tell: Progress) -> BatchRow:
    tell(f"batches of {BATCH}")
    paths = itertools.islice(itertools.cycle(product.references), BATCH)
    batch = np.stack([prepare(centre_square(load_image(path).rgb), ExpertConfig()) for path in paths])
    times = [time_batch(backbone, batch, batch, batch_first=n % 2 == 0)[2] for n in range(BATCH_REPEATS + 1)]
    return batch_row(backbone.name, BATCH, times[1:])


# --- the tables -------------------------------------------------------------------------------------------------------


def render(result: ExpertSpeedResult) -> str:
    """Plain text of 80 columns, but for many products."""
    parts = [_whole_table(f"the expert on the embedded backbone, {REFERENCES} references, median ms", result.embedded)]
    if result.clip:
        parts.append(_whole_table(f"the expert on CLIP ({LABEL}), median ms", result.clip))
        parts.append("plain: beside the tower as open_clip runs it, without the path that gives patch tokens")
    parts += [_search_table(result.search), _batch_table(result.batches)]
    return "\n\n".join([*parts, "\n".join(result.notes)]).rstrip()


def _whole_table(title: str, rows: Sequence[WholeRow]) -> str:
    width = max(12, *(len(row.name) + 2 for row in rows))

    def line(name: str, cells: Sequence[str]) -> str:
        return f"{name:<24}" + "".join(f"{cell:>{width}}" for cell in cells)

    stages = [line(f"  {stage}", [f"{row.stages[stage]:.1f}" for row in rows]) for stage in STAGES]
    stages.insert(
        STAGES.index("localise") + 1, line("    distances alone", [f"{r.stages['distances']:.1f}" for r in rows])
    )
    lines = [
        title,
        line("", [row.name for row in rows]),
        *stages,
        line("whole: encode to regions", [f"{row.whole:.1f}" for row in rows]),
        line("bare forward pass", [f"{row.forward:.1f}" for row in rows]),
        line("whole / forward", [f"{row.ratio:.2f}" for row in rows]),
        line("with decode, resize", [f"{row.loaded_ratio:.2f}" for row in rows]),
    ]
    aimed = [row for row in rows if row.aim is not None]
    if aimed:
        worst = max(aimed, key=lambda row: row.ratio)
        lines.append(f"worst {_against(worst.ratio, worst.aim or 0.0)}")
    return "\n".join(lines)


def _search_table(rows: Sequence[SearchRow]) -> str:
    lines = [
        "searching the memory bank, embedded backbone: median ms a picture, by forward pass",
        f"{'':<12}{'coreset':>34}{'all tokens':>34}",
        f"{'references':<12}" + f"{'tokens':>10}{'MB':>8}{'ms':>8}{'ratio':>8}" * 2,
    ]
    by_key = {(row.references, row.coreset): row for row in rows}
    for count in dict.fromkeys(row.references for row in rows):
        cells = [by_key[count, coreset] for coreset in (True, False)]
        lines.append(
            f"{count:<12}" + "".join(f"{r.tokens:>10}{r.megabytes:>8.1f}{r.search:>8.1f}{r.ratio:>8.2f}" for r in cells)
        )
    return "\n".join(lines)


def _batch_table(rows: Sequence[BatchRow]) -> str:
    lines = ["forward pass with its tokens, ms a picture"]
    for row in rows:
        verdict = _against(row.ratio, BATCH_AIM, BATCH_NOISE)
        lines += [
            row.name,
            f"  one by one {row.alone:.1f}, batch of {row.size} {row.together:.1f}",
            f"  ratio over {row.repeats} repeats {verdict}",
        ]
    return "\n".join(lines)


def _against(ratio: float, aim: float, noise: float = 0.0) -> str:
    allowed = f", {100 * noise:.0f}% of noise allowed" if noise else ""
    return f"{ratio:.2f} ({'met' if ratio <= aim + noise else 'MISSED'}: at most {aim:g}{allowed})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this benchmark alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of products in the MVTec layout")
    parser.add_argument("--products", type=lambda text: text.split(","), help="only these, separated by commas")
    parser.add_argument("--clip", choices=("on", "off"), default="on", help="also CLIP, on random weights")
    options = parser.parse_args(arguments)

    def tell(text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201

    result = run_expert_speed(options.data, products=options.products, clip=options.clip == "on", progress=tell)
    print(render(result))  # noqa: T201


if __name__ == "__main__":
    with untouched_tests():
        main()
