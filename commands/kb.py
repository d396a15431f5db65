"""``kb``: what the knowledge base holds, and what it makes of labelled data."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import kb_build, kb_expand, kb_feedback, kb_pages, kb_plant, kb_search
from .shared import HomeOption, ProfileOption, make_console, print_plain, settings

if TYPE_CHECKING:
    from ..benchmarks.datasets import ProductData
    from ..tools.ad_expert.type_examples import TypeExample

app = typer.Typer(help="The knowledge base: its pages, your own pages, defect types.", no_args_is_help=True)
types_app = typer.Typer(help="Centroids of defect types, which choose type-level prompts.", no_args_is_help=True)
app.add_typer(types_app, name="types")
kb_pages.register(app)
kb_plant.register(app)
kb_build.register(app)
kb_expand.register(app)
kb_feedback.register(app)
kb_search.register(app)


@types_app.command("build")
def types_build(
    data: Annotated[list[Path], typer.Option("--data", help="Folder of a data set with defects; may be repeated.")],
    backbone: Annotated[str | None, typer.Option("--backbone", help="Backbone (default: the profile's).")] = None,
    by: Annotated[Literal["mask", "map"], typer.Option("--by", help="What tells where a defect is.")] = "mask",
    refine: Annotated[bool, typer.Option("--refine", help="Move the centroids by spherical k-means.")] = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Make one centroid per canonical defect type from labelled pictures, in place of earlier ones of the backbone."""
    loaded = settings(profile=profile, home=home, backbone=backbone)
    from ..agent.terminal import ProgressBar
    from ..benchmarks.datasets import open_dataset
    from ..tools.ad_expert.type_centroids import fit_centroids
    from ..tools.ad_expert.type_examples import describe_examples, weigh_by_mask, weighing_by_map
    from ..tools.ad_expert.type_prompts import type_texts
    from ..tools.ad_expert.type_store import read_card, save_centroids
    from ..tools.backbones import load_backbone

    products = [product for root in data for product in open_dataset(root).products]
    model = load_backbone(loaded.settings.backbone, loaded)
    anchors = loaded.home.anchors
    weigh = weigh_by_mask if by == "mask" else weighing_by_map(model, anchors)
    with ProgressBar(make_console(stderr=True)) as progress:
        texts = type_texts(model, folder=anchors, progress=progress) if model.has_text else None
        found = describe_examples([e for p in products for e in _examples(p)], model, weigh, progress)
    centroids = fit_centroids(found.keys, found.labels, texts, refine=refine)
    origin = {"weighting": by, "refined": refine, "sources": found.sources, "left_out": found.left_out}
    print_plain(_describe(read_card(save_centroids(loaded.home, model, centroids, origin)), in_full=False))


@types_app.command("show")
def types_show(home: HomeOption = None) -> None:
    """Show the centroids of each backbone: types, numbers of pictures, and the labels they come from."""
    from ..tools.ad_expert.type_store import list_cards

    cards = list_cards(settings(home=home).home)
    if not cards:
        make_console(stderr=True).print("No type centroids yet. Make them: flawscope kb types build --data FOLDER")
    for card in cards:
        print_plain(_describe(card, in_full=True))


def _examples(product: ProductData) -> list[TypeExample]:
    from ..benchmarks.datasets import load_mask
    from ..tools.ad_expert.type_examples import TypeExample

    return [
        TypeExample(picture.path, product.name, picture.defect_type, partial(load_mask, picture), product.references)
        for picture in product.tests
        if picture.is_defective
    ]


def _describe(card: dict[str, Any], *, in_full: bool) -> list[str]:
    """The lines about one backbone's centroids; what begins with a blank is indented."""
    from ..tools.ad_expert.type_centroids import MIN_EXAMPLES

    seen = [(name, n) for name, n in zip(card["names"], card["counts"], strict=True) if n >= MIN_EXAMPLES]
    refined = ", refined" if card.get("refined") else ""
    lines = [
        f"{card['backbone']} ({card['weights_sha256'][:12]}): {len(card['names'])} types, {len(seen)} of them from "
        f"pictures by {card['weighting']}{refined}, {card['sha256'][:12]}"
    ]
    lines += [f" {name}: {number} pictures" for name, number in seen]
    if named := len(card["names"]) - len(seen):
        lines.append(f" {named} types by their names alone")
    if few := sorted({source["type"] for source in card["sources"]} - set(card["names"])):
        lines.append(f" too few pictures of {', '.join(few)}: a type needs {MIN_EXAMPLES}")
    if in_full:
        lines += [f" {s['product']}/{s['label']} is {s['type']}: {s['pictures']} pictures" for s in card["sources"]]
    for lost in card["left_out"]:
        lines.append(f" left out {lost['product']}/{lost['label']}: {lost['pictures']} pictures, {lost['reason']}")
    return lines
