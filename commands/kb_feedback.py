"""``kb from-inspection``: what a reviewer said of an inspected part becomes a page, once the reviewer has confirmed."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..agent.errors import ConfigError, InputError, KnowledgeError
from .kb_shared import (
    bytes_of,
    check_box,
    leak_guard,
    now,
    parse_box,
    plant_store,
    put_into_effect,
    refuse_known_picture,
    refuse_open_bases,
    user_name,
)
from .shared import HomeOption, ProfileOption, complete_product, print_plain, settings

if TYPE_CHECKING:
    from ..agent.schemas import InspectionReport
    from ..agent.settings import LoadedSettings
    from ..tools.imaging import LoadedImage
    from ..tools.knowledge.feedback import ReviewerVerdict
    from ..tools.knowledge.plant_page import PlantPage

MAX_REPORT_BYTES = 5_000_000


def from_inspection(
    inspection: Annotated[str, typer.Argument(metavar="THREAD|REPORT", help="A conversation's id, or a report.json.")],
    verdict: Annotated[
        Literal["OK", "NG"] | None, typer.Option("--verdict", help="The reviewer's (default: the inspection's).")
    ] = None,
    defect_type: Annotated[
        str | None, typer.Option("--type", help="Defect type (default: what the note or the report names).")
    ] = None,
    note: Annotated[str | None, typer.Option("--note", help="The reviewer's words.")] = None,
    region: Annotated[str | None, typer.Option("--region", help="Which of its regions (default: R1).")] = None,
    box: Annotated[str | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Where it is, in pixels.")] = None,
    reviewer: Annotated[str | None, typer.Option("--reviewer", help="Who says so (default: the user's name).")] = None,
    product: Annotated[
        str | None, typer.Option("--product", help="Default: the report's.", autocompletion=complete_product)
    ] = None,
    doc_id: Annotated[str | None, typer.Option("--id", help="Name (default: PRODUCT.TYPE.NUMBER).")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Add the part of an inspection to the plant's pages, with what its reviewer said and where it comes from."""
    if region is not None and box is not None:
        raise ConfigError("give either --region or --box, not both.")
    loaded = settings(profile=profile, home=home)
    from ..tools.knowledge.feedback import reviewer_verdict

    report, source = _report(loaded, inspection)
    said = reviewer_verdict(
        report,
        verdict=verdict,
        defect_type=defect_type,
        note=note,
        reviewer=reviewer,
        box=None if box is None else parse_box(box),
        region=region,
        user=user_name(None),
    )
    whose = product or report.product
    if whose is None:
        raise ConfigError("the inspection names no product.", hint="Add --product, or --product general for all.")
    picture = _picture(loaded, report)
    if said.box is not None:
        check_box(said.box, picture)
    page = _page(loaded, report, said, whose, source, doc_id)
    refuse_known_picture(plant_store(loaded), leak_guard(loaded), picture)
    print_plain(_shown(page, report))
    if not yes and not sys.stdin.isatty():
        raise ConfigError("nobody can be asked whether this may be added.", hint="Add --yes.")
    if not yes and not typer.confirm(f"Add {page.doc_id}?"):
        raise typer.Exit(0)
    _write(loaded, page, Path(report.image), picture)
    print_plain([f"{page.doc_id}: added for {page.product}, type {page.defect_type}"])


def register(app: typer.Typer) -> None:
    """Add the command to ``kb``."""
    app.command("from-inspection")(from_inspection)


def _report(loaded: LoadedSettings, name: str) -> tuple[InspectionReport, str]:
    """The report, and the inspection's id.

    Raises:
        ConfigError: there is neither such a file nor such a conversation, or the file holds no report.
    """
    from pydantic import ValidationError

    from ..agent.schemas import InspectionReport
    from ..agent.session import open_conversation

    path = Path(name)
    try:
        is_file = path.is_file()
    except OSError:  # such as a name too long
        is_file = False
    if not is_file:
        with open_conversation(loaded, name) as conversation:
            return conversation.report, f"thread {name}"
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise ConfigError(f"{path} is too large for one report.", hint="Give the report.json of one picture.")
    try:
        blob = path.read_bytes()
        report = InspectionReport.model_validate_json(blob)
    except ValidationError as error:
        raise ConfigError(f"{path} holds no report.", hint="Give the report.json of one picture.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    return report, f"report {hashlib.sha256(blob).hexdigest()[:16]}"


def _picture(loaded: LoadedSettings, report: InspectionReport) -> LoadedImage:
    """The inspected picture.

    Raises:
        InputError: it is gone, or another one by now.
    """
    from ..tools.imaging import load_image

    picture = load_image(Path(report.image), max_pixels=loaded.settings.max_pixels)
    if picture.sha256 != report.sha256:
        raise InputError(f"{report.image} has changed since it was inspected.", hint="Inspect it again.")
    return picture


def _page(
    loaded: LoadedSettings,
    report: InspectionReport,
    said: ReviewerVerdict,
    product: str,
    source: str,
    doc_id: str | None,
) -> PlantPage:
    from ..tools.knowledge.builder import shipped_documents
    from ..tools.knowledge.feedback import page_of
    from ..tools.knowledge.plant_page import picture_name

    taken = {*plant_store(loaded).all_ids(), *(page.doc_id for page in shipped_documents())}
    page = page_of(
        report,
        said,
        product,
        inspection=source,
        doc_id=doc_id,
        taken=taken,
        created=now(),
        picture_name=picture_name(Path(report.image)),
    )
    if page.doc_id in taken:
        raise KnowledgeError(f"there is a page {page.doc_id!r} already.", hint="Choose another --id.")
    return page


def _write(loaded: LoadedSettings, page: PlantPage, path: Path, picture: LoadedImage) -> None:
    from ..tools.knowledge.twins import difference_hash

    store = plant_store(loaded)
    with store.locked():
        refuse_open_bases(loaded)
        if page.doc_id in store.all_ids():  # while the reviewer was asked
            raise KnowledgeError(f"there is a page {page.doc_id!r} by now.", hint="Try again.")
        refuse_known_picture(store, leak_guard(loaded), picture)
        blob, bits = bytes_of(path, picture.sha256), f"{difference_hash(picture.rgb):016x}"
        written = store.add(page, blob, bits, action="feedback").version
        put_into_effect(loaded, store, [written])


def _shown(page: PlantPage, report: InspectionReport) -> list[str]:
    """What will be written, for whoever confirms it."""
    rows = [
        ("product", page.product),
        ("type", page.defect_type),
        ("picture", report.image),
        ("box", str(list(page.box)) if page.box else "anywhere"),
        ("words", page.description),
        ("cause", "; ".join(page.likely_causes)),
        ("action", page.action),
        ("reviewer", page.author),
        ("from", f"{page.inspection}; {page.source}"),
    ]
    return [f"{page.doc_id}, to be added:", *(f" {name}: {text}" for name, text in rows if text)]
