"""``kb search``: find pages by words, by a picture or by both; with a text tower, by words in the pages' pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .kb_pages import ProductFilter, TypeFilter
from .shared import (
    HomeOption,
    MilvusTokenOption,
    MilvusUriOption,
    ProfileOption,
    make_console,
    print_line,
    settings,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..agent.inspector import InspectionDeps
    from ..tools.knowledge.search import Found

_COLUMNS = ("document", "score", "words", "picture", "product", "type", "title")
_IN_PICTURES = "words_to_picture"
"""The column between ``words`` and ``picture``, there only where words are looked for in pictures."""


def register(app: typer.Typer) -> None:
    """Add the command to ``kb``."""
    app.command("search")(search)


def search(
    words: Annotated[str, typer.Argument(metavar="WORDS", help="What to look for, such as 'burr on the edge'.")] = "",
    picture: Annotated[Path | None, typer.Option("--picture", help="Find pages with pictures like this one.")] = None,
    product: ProductFilter = None,
    type_name: TypeFilter = None,
    number: Annotated[int, typer.Option("-k", "--number", min=1, help="Pages at most.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="One page a line.")] = False,
    milvus_uri: MilvusUriOption = None,
    milvus_token: MilvusTokenOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Search the pages by words, by a picture, or by both: then the two rankings are joined."""
    from ..agent.errors import ConfigError
    from ..agent.inspector import InspectionDeps
    from ..agent.terminal import ProgressBar
    from ..tools.knowledge.sections import select_documents

    if picture is None and not words.strip():
        raise ConfigError("give words, a picture, or both.", hint="flawscope kb search 'burr on the edge'")
    loaded = settings(profile=profile, home=home, milvus_uri=milvus_uri, milvus_token=milvus_token)
    errors = make_console(stderr=True)
    with ProgressBar(errors) as progress:
        deps = InspectionDeps(loaded, progress=progress)
        try:
            select_documents(deps.knowledge.documents.values(), product, type_name)  # names a product that is none
            key = None if picture is None else _image_part(picture, deps)
            found = deps.knowledge.search(words, key, product=product, type_name=type_name, k=number)
            in_pictures = deps.knowledge.reads_pictures
            named = None if product == "general" else product
            unknown = "" if key is None else deps.knowledge.familiarity(key, named).sentence
        finally:
            deps.close()
    _print([_row(hit, in_pictures) for hit in found], as_json, in_pictures)
    if not found:
        errors.print("No page holds any of these words." if picture is None else "No page has a picture.")
    elif words.strip() and not any("words" in hit.ranks for hit in found):
        errors.print("None of these pages holds any of these words; their pictures alone rank them.")
    if found and unknown:
        errors.print(unknown, markup=False)


def _image_part(picture: Path, deps: InspectionDeps) -> NDArray[np.float32]:
    from ..tools.imaging import load_image
    from ..tools.knowledge.features import image_part
    from ..tools.views import encode

    rgb = load_image(picture, max_pixels=deps.settings.max_pixels).rgb
    return image_part(encode(deps.backbone, None, rgb))


def _row(hit: Found, in_pictures: bool) -> dict[str, Any]:
    page = hit.page
    return {
        "document": page.doc_id,
        "score": hit.score,
        "words": hit.word_score,
        **({_IN_PICTURES: hit.word_similarity} if in_pictures else {}),
        "picture": hit.similarity,
        "product": page.product,
        "type": page.defect_type,
        "title": page.title,
        **({"ranks": dict(hit.ranks)} if in_pictures else {}),
    }


def _print(rows: list[dict[str, Any]], as_json: bool, in_pictures: bool) -> None:
    if as_json or not rows:
        for row in rows:
            print_line(json.dumps(row))
        return
    from ..tools.knowledge.sections import printable

    def cell(row: dict[str, Any], name: str) -> str:
        value = row[name]
        if not isinstance(value, float):
            return "-" if value is None else printable(value)
        place = row.get("ranks", {}).get(name)
        return f"{value:.3f}" if place is None else f"{value:.3f} #{place}"

    columns = (*_COLUMNS[:3], _IN_PICTURES, *_COLUMNS[3:]) if in_pictures else _COLUMNS
    table = [columns, *(tuple(cell(row, name) for name in columns) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(columns))]
    for line in table:
        print_line("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
