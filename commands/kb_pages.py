"""``kb list``, ``show`` and ``export``: the documents of the knowledge base for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .shared import HomeOption, make_console, print_line, print_plain, settings

if TYPE_CHECKING:
    from ..tools.knowledge.illustrations import PagePicture
    from ..tools.knowledge.schema import KnowledgeDocument

ProductFilter = Annotated[str | None, typer.Option("--product", help="Only this product's; general for any product.")]
TypeFilter = Annotated[str | None, typer.Option("--type", help="Only this defect type, or good.")]
_COLUMNS = ("document", "product", "type", "title", "picture", "reviewed", "source")
_MAX_COLUMNS = 100


def register(app: typer.Typer) -> None:
    """Add the commands to ``kb``."""
    app.command("list")(list_documents)
    app.command("show")(show)
    app.command("export")(export)


def list_documents(
    product: ProductFilter = None,
    type_name: TypeFilter = None,
    as_json: Annotated[bool, typer.Option("--json", help="One document a line.")] = False,
    home: HomeOption = None,
) -> None:
    """List the documents: whose, which type, with a picture or not, reviewed or not, and where they come from."""
    documents, pictures = _documents(home)
    from ..tools.knowledge.sections import printable, select_documents

    rows = [_row(document, pictures) for document in select_documents(documents, product, type_name)]
    if as_json:
        import json

        for row in rows:
            print_line(json.dumps(row))
        return
    answers = {True: "yes", False: "no"}
    table = [_COLUMNS, *(tuple(printable(answers.get(row[name], row[name])) for name in _COLUMNS) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_COLUMNS))]
    console = make_console()
    for line in table:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        # the source is the last and longest column: on a terminal it ends at the edge, in a pipe it is whole
        print_line(text[: console.width - 1] + "…" if console.is_terminal and len(text) > console.width else text)


def _row(document: KnowledgeDocument, pictures: Mapping[str, PagePicture]) -> dict[str, Any]:
    return {
        "document": document.doc_id,
        "product": document.product,
        "type": document.defect_type,
        "general_type": document.general_type,
        "title": document.title,
        "picture": document.page_image is not None or document.doc_id in pictures,
        "reviewed": document.reviewed,
        "source": document.source,
    }


def complete_document(incomplete: str) -> list[str]:
    """Names of documents for the shell."""
    from ..agent.errors import FlawscopeError

    try:
        documents, _ = _documents(None)
    except FlawscopeError:  # a message would land in the command line
        return []
    return [document.doc_id for document in documents if document.doc_id.startswith(incomplete)]


def show(
    doc_id: Annotated[str, typer.Argument(metavar="DOC", help="The document.", autocompletion=complete_document)],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the document as PNG pages.")] = None,
    home: HomeOption = None,
) -> None:
    """Show a document; with --out also draw it as pages to print and hang up."""
    documents, pictures = _documents(home)
    from ..tools.knowledge.sections import as_text, find_document

    document = find_document(documents, doc_id)
    for line in as_text(document, min(make_console().width, _MAX_COLUMNS)):
        print_line(line)
    if out is None:
        return
    from ..tools.knowledge.pages import save_pages

    print_line("")
    print_plain([str(path) for path in save_pages(document, out, pictures.get(doc_id))])


def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .pdf or .html file.")],
    product: ProductFilter = None,
    type_name: TypeFilter = None,
    home: HomeOption = None,
) -> None:
    """Write the documents as a catalogue: PDF to print, or one HTML file that needs no network."""
    documents, pictures = _documents(home)
    from ..agent.terminal import ProgressBar
    from ..tools.knowledge import catalogue
    from ..tools.knowledge.sections import select_documents

    catalogue.check_target(out)
    chosen = select_documents(documents, product, type_name)
    with ProgressBar(make_console(stderr=True)) as progress:
        catalogue.export(chosen, out, pictures, progress)
    print_plain([f"{out}: {len(chosen)} documents"])


def _documents(home: Path | None) -> tuple[list[KnowledgeDocument], dict[str, PagePicture]]:
    """The shipped documents and the plant's own, and their own pictures by doc_id."""
    from ..tools.knowledge.attachments import FOLDER as ATTACHED
    from ..tools.knowledge.attachments import shown
    from ..tools.knowledge.builder import shipped_documents
    from ..tools.knowledge.plant import FOLDER, PlantStore

    folder = settings(home=home).home.knowledge
    own = PlantStore(folder / FOLDER).current()
    pictures: dict[str, PagePicture] = {**shown(folder / ATTACHED)}
    pictures |= {entry.page.doc_id: entry.picture for entry in own if entry.picture}
    return [*shipped_documents(), *(entry.page for entry in own)], pictures
