"""``enroll`` and ``products``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..agent.errors import ConfigError
from . import plan
from .shared import (
    FalseAlarmOption,
    HomeOption,
    ProfileOption,
    complete_product,
    expand,
    make_console,
    print_line,
    print_plain,
    settings,
)

app = typer.Typer(help="The enrolled products.", no_args_is_help=True)
app.add_typer(plan.app, name="plan")


def enroll(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    images: Annotated[list[Path], typer.Argument(help="Good pictures, or folders of them.")],
    defects: Annotated[
        Path | None, typer.Option("--defects", help="Folder with one subfolder of examples per defect type.")
    ] = None,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="The part lies at any angle: rotate the references too.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a product of that name.")] = False,
    false_alarm: FalseAlarmOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Learn a product from good pictures: memory bank, threshold, and types where examples are given."""
    loaded = settings(profile=profile, home=home, false_alarm=false_alarm)
    from ..agent.terminal import ProgressBar
    from ..tools.ad_expert.anchor_source import configured_anchors
    from ..tools.ad_expert.head_file import configured_head
    from ..tools.ad_expert.zero_shot import ZeroShotConfig
    from ..tools.backbones import load_backbone
    from ..tools.control_plan.store import PlanStore
    from ..tools.products import check_enrolment, describe, enroll_product

    paths = expand(images)
    check_enrolment(loaded.home.products, product, len(paths), loaded.settings.false_alarm, replace=replace)
    planned = PlanStore(loaded.home.root / "plans").plan(product)
    with ProgressBar(make_console(stderr=True)) as progress:
        backbone = load_backbone(loaded.settings.backbone, loaded)
        model = enroll_product(
            loaded.home.products,
            product,
            paths,
            backbone,
            defects=defects,
            rotate=rotate,
            false_alarm=false_alarm,
            replace=replace,
            max_pixels=loaded.settings.max_pixels,
            anchors=configured_anchors(backbone, loaded),
            words=ZeroShotConfig(loaded.settings.loc_mode),
            head=configured_head(backbone, loaded),
            plan=planned[0] if planned else None,
            progress=progress,
        )
    print_plain(describe(model, loaded.false_alarm_of(model.false_alarm)))


@app.command("list")
def products_list(home: HomeOption = None) -> None:
    """List the enrolled products."""
    from ..tools.product_files import list_products

    names = list_products(settings(home=home).home.products)
    if not names:
        make_console(stderr=True).print("No products yet. Enrol one: flawscope enroll PRODUCT good/*.jpg")
    for name in names:
        print_line(name)


@app.command("show")
def products_show(
    product: Annotated[str, typer.Argument(autocompletion=complete_product)], home: HomeOption = None
) -> None:
    """Show a product: references, calibration, types; its files are verified."""
    loaded = settings(home=home)
    from ..tools.ad_expert.head_file import configured_head
    from ..tools.backbones import load_backbone
    from ..tools.product_files import load_product
    from ..tools.products import describe

    backbone = load_backbone(loaded.settings.backbone, loaded)
    model = load_product(loaded.home.products, product, backbone, configured_head(backbone, loaded))
    print_plain(describe(model, loaded.false_alarm_of(model.false_alarm)))


@app.command("remove")
def products_remove(
    product: Annotated[str, typer.Argument(autocompletion=complete_product)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> None:
    """Remove a product with its references and calibration."""
    from ..tools.product_files import require_product
    from ..tools.products import remove_product

    products = settings(home=home).home.products
    require_product(products, product)
    if not yes and not sys.stdin.isatty():
        raise ConfigError(f"nobody can be asked whether to remove {product!r}.", hint="Add --yes.")
    if not yes and not typer.confirm(f"Remove {product} with its references and calibration?"):
        raise typer.Exit(0)
    remove_product(products, product)
