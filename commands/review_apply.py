"""``review apply`` and ``review serve``: products learn from confirmed decisions; the page for a browser."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..agent.errors import ConfigError
from .review_desk import AuditOption, ByOption, EverythingOption, ThreadsOption, open_desk, who
from .shared import (
    HomeOption,
    ProfileOption,
    complete_product,
    expand,
    make_console,
    print_line,
    print_plain,
    settings,
)

if TYPE_CHECKING:
    from ..agent.review.applying import Applied, ProductDesk
    from ..agent.review.changes import ProductChange
    from ..agent.settings import LoadedSettings


def review_apply(
    product: Annotated[
        str | None, typer.Argument(help="Only this one (default: all).", autocompletion=complete_product)
    ] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option("--references", help="The good pictures it was enrolled with, or their folder."),
    ] = None,
    defects: Annotated[
        Path | None, typer.Option("--defects", help="The defect examples it was enrolled with, a folder per type.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: ByOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Let products and the knowledge base learn from confirmed decisions; the product as it was is kept."""
    from ..agent.review.changes import proposed
    from ..agent.review.journal import Journal

    loaded = settings(profile=profile, home=home)
    journal = Journal(loaded.home.reviews)
    desk = product_desk(loaded)
    for name in _unfinished(loaded, journal, product):
        if (finished := desk.finish(name, who(by))) is not None:
            print_plain([f"{name}: what was not finished before is finished now.", *_told(finished)])
    changes = [change for change in proposed(journal, loaded.home.products) if product in (None, change.product)]
    for change in changes:
        print_plain(_shown(change))
    ready = [change for change in changes if change.parts]
    if not ready:
        make_console(stderr=True).print("Nothing to apply. Confirm decisions first: flawscope review confirm ITEM")
        return
    if not yes and not sys.stdin.isatty():
        raise ConfigError("nobody can be asked whether this may be applied.", hint="Add --yes.")
    if not yes and not typer.confirm("Apply this?"):
        raise typer.Exit(0)
    given = expand(references) if references else []
    for change in ready:
        before = _threshold(loaded, change.product) if change.enrols else None
        applied = desk.apply(change, who(by), references=given, defects=defects)
        print_plain(_told(applied))
        if applied.enrolled:
            print_plain([f" threshold: {before} -> {_threshold(loaded, change.product)} spreads"])


def take_back(loaded: LoadedSettings, product: str, by: str) -> None:
    """Undo the last change of a product.

    Raises:
        FlawscopeError: there is none, or it cannot be taken back.
    """
    taken = product_desk(loaded).revert(product, by)
    what = "the product is as it was before" if taken.enrolled else "the product was not changed by it"
    print_plain([f"{product}: change {taken.number} taken back; {what}"])
    print_plain([f" page {name}: removed" for name in taken.pages])


def review_serve(
    audit: AuditOption = None,
    threads: ThreadsOption = None,
    everything: EverythingOption = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    by: ByOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Serve the queue to a browser on this machine, and to nobody else, until Ctrl-C."""
    from ..agent.review.pictures import shown_overlay, shown_picture
    from ..agent.review.server import ReviewServer

    loaded = settings(profile=profile, home=home)
    limit = loaded.settings.max_pixels
    with open_desk(loaded, audit, threads, everything=everything) as (desk, deps):
        desk.queue()  # what is wrong with an audit is said here rather than in the browser
        draw = {
            "picture": lambda item: shown_picture(item, max_pixels=limit),
            "overlay": lambda item: shown_overlay(item, deps, max_pixels=limit),
        }
        try:
            server = ReviewServer(desk, by=who(by), draw=draw, types=lambda name: _types(loaded, name), port=port)
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used: {error.strerror or error}.", hint="Choose another."
            ) from error
        with server:
            print_line(server.url)
            make_console(stderr=True).print("Open this address in a browser on this machine. Ctrl-C ends it.")
            server.serve_forever()


def _types(loaded: LoadedSettings, product: str | None) -> list[str]:
    """Names that a product's defects have so far."""
    from ..agent.errors import ProductError
    from ..agent.review.changes import manifest_of

    if product is None:
        return []
    try:
        return sorted(manifest_of(loaded.home.products / product).get("type_examples") or {})
    except ProductError:
        return []


# --- products ---------------------------------------------------------------------------------------------------------


def product_desk(loaded: LoadedSettings) -> ProductDesk:
    """The desk at which products of a home learn."""
    from ..agent.review.applying import ProductDesk
    from .review_pages import PlantPages

    def enrol(product: str, references: Sequence[Path], defects: Path | None) -> None:
        _enrol(loaded, product, references, defects)

    return ProductDesk(loaded.home, enrol, PlantPages(loaded))


def _enrol(loaded: LoadedSettings, product: str, references: Sequence[Path], defects: Path | None) -> None:
    from ..agent.review.changes import manifest_of
    from ..agent.terminal import ProgressBar
    from ..tools.ad_expert.anchor_source import configured_anchors
    from ..tools.ad_expert.head_file import configured_head
    from ..tools.ad_expert.zero_shot import ZeroShotConfig
    from ..tools.backbones import load_backbone
    from ..tools.control_plan.store import PlanStore
    from ..tools.product_files import load_product
    from ..tools.products import enroll_product

    manifest = manifest_of(loaded.home.products / product)
    planned = PlanStore(loaded.home.root / "plans").plan(product)
    backbone = load_backbone(loaded.settings.backbone, loaded)
    head = configured_head(backbone, loaded)
    with ProgressBar(make_console(stderr=True)) as progress:
        enroll_product(
            loaded.home.products,
            product,
            references,
            backbone,
            defects=defects,
            rotate=bool(manifest["rotate"]),
            false_alarm=manifest["false_alarm"],
            replace=True,
            max_pixels=loaded.settings.max_pixels,
            anchors=configured_anchors(backbone, loaded),
            words=ZeroShotConfig(loaded.settings.loc_mode),
            head=head,
            plan=planned[0] if planned else None,
            types_of=load_product(loaded.home.products, product, backbone, head),
            progress=progress,
        )


def _threshold(loaded: LoadedSettings, product: str) -> str:
    from ..tools.ad_expert.head_file import configured_head
    from ..tools.backbones import load_backbone
    from ..tools.product_files import load_product

    backbone = load_backbone(loaded.settings.backbone, loaded)
    model = load_product(loaded.home.products, product, backbone, configured_head(backbone, loaded))
    alarm = loaded.false_alarm_of(model.false_alarm)
    found = model.calibration.decide({"whole": model.typical("whole") or 0.0}, alarm).threshold
    return "none" if found is None else f"{found:.2f}"


def _unfinished(loaded: LoadedSettings, journal: Any, product: str | None) -> list[str]:
    from ..agent.review.standing import PRODUCT

    subjects = {entry.subject for entry in journal.entries() if entry.subject.startswith(PRODUCT)}
    return sorted(name for name in (s.removeprefix(PRODUCT) for s in subjects) if product in (None, name))


def _shown(change: ProductChange) -> list[str]:
    good = sum(part.reference for part in change.parts)
    examples: dict[str, int] = {}
    for part in change.parts:
        if part.example:
            examples[part.example] = examples.get(part.example, 0) + 1
    pages = sum(part.page for part in change.parts)
    kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(examples.items()))
    lines = [f"{change.product or 'no product'}:"]
    lines += [f" {good} good pictures to its references"] if good else []
    lines += [f" defect examples: {kinds}"] if kinds else []
    lines += [f" {pages} pages to the plant's knowledge"] if pages else []
    return lines + [f" left out: {name}: {why}" for name, why in change.left_out.items()]


def _told(applied: Applied) -> list[str]:
    lines = [f"{applied.product}: change {applied.number} applied" + (", learnt anew" if applied.enrolled else "")]
    return lines + [f" page of {name}: {what}" for name, what in applied.pages.items()]
