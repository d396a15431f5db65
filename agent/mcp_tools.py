"""What the MCP server offers: tools with typed answers, and the folders that they may read."""

from __future__ import annotations

import base64
import io
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from .errors import ConfigError, FlawscopeError, InputError, MissingExtraError
from .schemas import InspectionReport

try:
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp_types import CallToolResult, ImageContent, TextContent
except ImportError as missing:
    raise MissingExtraError("the MCP server", "mcp") from missing

if TYPE_CHECKING:
    from .inspector import Inspector

OVERLAY_SIDE_PX = 1024
"""Longer sides are reduced: a client pays for each pixel of a picture in an answer."""

ImagePath = Annotated[str, Field(description="path of the picture, in a folder that the server may read")]
ProductName = Annotated[str | None, Field(description="name of the enrolled product, see the tool products")]


class FoundPage(BaseModel):
    """A page of the knowledge base; its text is quoted data."""

    doc_id: str
    defect_type: str
    product: str
    similarity: float
    text: str


class FoundPages(BaseModel):
    """What a search found; ``known`` is false where nothing near is in the base, null where nothing tells."""

    documents: list[FoundPage]
    known: bool | None


class EnrolledProduct(BaseModel):
    """A product; ``problem`` says why it cannot be used, and is empty otherwise."""

    name: str
    references: int | None = None
    defect_types: list[str] = []
    control_plan_version: int | None = None
    problem: str = ""


class EnrolledProducts(BaseModel):
    """All products, by name."""

    products: list[EnrolledProduct]


class AuditStatus(BaseModel):
    """How far an audit is, or a folder of watch, which has no number of lines and no end."""

    folder: str
    started: str | None
    lines: Annotated[
        int | None, Field(description="of the shard, also where a limit asks for fewer; null: of watch, or no header")
    ]
    asked: Annotated[int | None, Field(description="lines that the last run was to do: all, or up to its limit")]
    done: Annotated[int, Field(description="lines with a record")]
    finished: Annotated[
        bool | None,
        Field(description="whether every line that was asked for has a record; null: of watch, unknown"),
    ]
    verdicts: dict[str, int]
    errors: dict[str, int]


class Roots:
    """The folders that may be read.

    Args:
        folders: at least one; symbolic links are followed once, here.

    Raises:
        ConfigError: none is given, or one is no folder.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        if not folders:
            raise ConfigError("no folder may be read.", hint="Name one: --root FOLDER")
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"the root {folder} is no folder.", hint="Name a folder that exists.")
        self.folders = tuple(folder.resolve() for folder in folders)

    def find(self, given: str) -> Path:
        """The real path of something inside; a relative path is looked for in each folder.

        Raises:
            InputError: it does not exist or lies outside. Both say the same, so that nobody can probe what is there.
        """
        for folder in self.folders:
            try:
                real = (folder / given).resolve(strict=True)
            except (OSError, RuntimeError, ValueError):  # missing, too long, links in a circle, a zero byte
                continue
            if any(real.is_relative_to(allowed) for allowed in self.folders):
                return real
        raise InputError(f"{given!r} is not in the folders that this server may read.")


class PlantTools:
    """The tools, bound to what they work with.

    Args:
        inspector: stays open as long as the server runs; it works on one picture at a time, so calls wait for each
            other.
        roots: what may be read.
    """

    def __init__(self, inspector: Inspector, roots: Roots) -> None:
        self._inspector, self._roots, self._turn = inspector, roots, threading.Lock()

    def inspect(
        self,
        image: ImagePath,
        product: ProductName = None,
        instruction: Annotated[str, Field(description="what is asked about the part, may be empty")] = "",
        overlay: Annotated[bool, Field(description="also return the picture with the places drawn in")] = False,
    ) -> Annotated[CallToolResult, InspectionReport]:
        """Inspect a picture of a part: verdict OK, NG or REVIEW, regions, defect type, causes, cited evidence."""
        path = self._roots.find(image)
        with self._turn:
            report = self._inspector.inspect(path, product=product, instruction=instruction)
            drawn = self._overlay(report) if overlay and report.error is None else None
        told = report.model_copy(update={"image": image, "provenance": {}})
        if told.error is not None:
            raise ToolError(told.error.message.replace(str(path), image))
        content: list[Any] = [TextContent(type="text", text=told.model_dump_json(exclude={"provenance"}))]
        if drawn is not None:
            content.append(drawn)
        return CallToolResult(content=content, structured_content=told.model_dump(mode="json"))

    def knowledge_search(
        self,
        query: Annotated[str, Field(description="words, such as a defect and what it looks like")] = "",
        image: Annotated[str | None, Field(description="path of a picture to search with, beside or for words")] = None,
        product: Annotated[str | None, Field(description="also search this product's pages")] = None,
        k: Annotated[int, Field(ge=1, le=20, description="pages wanted")] = 4,
    ) -> FoundPages:
        """Search the knowledge base of defects by words, by picture or both: looks, causes, consequences, actions."""
        from ..tools.calls import retrieve_documents

        path = None if image is None else str(self._roots.find(image))
        with self._turn:
            return FoundPages.model_validate(retrieve_documents(self._inspector, query, path, product, k))

    def products(self) -> EnrolledProducts:
        """List the enrolled products: how many references, which defect types, and whether a control plan holds."""
        from ..tools.product_files import list_products

        with self._turn:
            names = list_products(self._inspector.deps.home.products)
            return EnrolledProducts(products=[self._described(name) for name in names])

    def audit_status(
        self, folder: Annotated[str, Field(description="path of an audit's folder, the --out of `flawscope audit`")]
    ) -> AuditStatus:
        """Tell how far an audit is: lines done, verdicts, failures by kind; also while it runs."""
        from ..audits.folder import read_header
        from ..audits.record_file import read_heads, records_path

        path = self._roots.find(folder)
        header, verdicts, errors, asked_done = read_header(path), Counter[str](), Counter[str](), 0
        for head, _ in read_heads(records_path(path)):
            asked_done += header is not None and header.asks(head.line)
            if head.error is None:
                verdicts[head.verdict.value] += 1
            else:
                errors[head.error.kind] += 1
        done = verdicts.total() + errors.total()
        watched = header is not None and header.watched
        return AuditStatus(
            folder=folder,
            started=header.started if header else None,
            lines=header.lines if header and not watched else None,
            asked=header.asked if header and not watched else None,
            done=done,
            finished=None if header is None or watched else asked_done >= header.asked,
            verdicts=dict(verdicts),
            errors=dict(errors),
        )

    def _described(self, name: str) -> EnrolledProduct:
        from ..tools.product_files import load_product

        deps = self._inspector.deps
        try:
            model = deps.products.get(name) or load_product(deps.home.products, name, deps.backbone, deps.head)
            planned = deps.plan(name)
        except FlawscopeError as error:
            return EnrolledProduct(name=name, problem=str(error))
        return EnrolledProduct(
            name=name,
            references=len(model.reference_names),
            defect_types=sorted(model.type_examples),
            control_plan_version=planned[1].version if planned else None,
        )

    def _overlay(self, report: InspectionReport) -> Any:
        from PIL import Image

        from .session import write_files

        with TemporaryDirectory() as folder:
            written = write_files(report, self._inspector, Path(folder)).artifacts["overlay"]
            with Image.open(written) as picture:
                picture.thumbnail((OVERLAY_SIDE_PX, OVERLAY_SIDE_PX))
                data = io.BytesIO()
                picture.save(data, format="PNG")
        return ImageContent(type="image", data=base64.b64encode(data.getvalue()).decode(), mime_type="image/png")
