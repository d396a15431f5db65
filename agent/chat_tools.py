"""Tools for questions about an inspected picture, as LangChain tools: look closer, compare, measure, read pages.

Each returns a record for a model, and as its artifact what it found: new evidence with an id that an answer may cite,
and a picture. They change nothing of the inspection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import FlawscopeError, InputError
from .look_again import Look, compare_with_reference, zoom_into
from .reasoner.evidence import number
from .schemas import Evidence, InspectionReport, Region
from .vision_language import Picture

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool

    from .inspector import InspectionDeps

Record = dict[str, Any]
RegionId = Annotated[str, Field(pattern=r"^R\d{1,3}$", description="id of a suspicious area, such as R1")]
MAX_DOCUMENTS = 3
SHOWN_FAULTS = 3


@dataclass(frozen=True)
class Found:
    """What a tool found.

    Attributes:
        record: for the model, plain data.
        evidence: new items, which may be cited from now on.
        picture: to be shown to the model.
        path: of the picture's file, to be shown to the operator.
    """

    record: Record
    evidence: tuple[Evidence, ...] = ()
    picture: Picture | None = None
    path: str | None = None


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ZoomArguments(_Arguments):
    """Of ``zoom``."""

    region: RegionId | None = Field(None, description="area to magnify, such as R1; or give x and y")
    x: int | None = Field(None, description="point to magnify, picture pixels")
    y: int | None = Field(None, description="point to magnify, picture pixels")


class CompareArguments(_Arguments):
    """Of ``compare_with_reference``."""


class MeasureArguments(_Arguments):
    """Of ``measure``."""

    region: RegionId
    other: RegionId | None = Field(None, description="second area, for the distance of the two")


class ShowArguments(_Arguments):
    """Of ``show_document``."""

    id: Annotated[str, Field(pattern=r"^D\d{1,4}$", description="id of a page, such as D1")]


class SearchArguments(_Arguments):
    """Of ``search_documents``."""

    query: Annotated[str, Field(min_length=1, max_length=200, description="words, such as a defect and what to know")]
    k: int = Field(2, ge=1, le=MAX_DOCUMENTS, description="pages wanted")


class ChatTools:
    """The tools, bound to one report.

    Args:
        report: of the inspection.
        deps: for looking again and for the knowledge base.
        further: evidence that earlier turns of the conversation added.
    """

    def __init__(self, report: InspectionReport, deps: InspectionDeps, further: Sequence[Evidence] = ()) -> None:
        self.report = report
        self.deps = deps
        self.evidence = [*report.evidence, *further]
        self._tools = {tool.name: tool for tool in self._bound()}

    def langchain_tools(self) -> list[StructuredTool]:
        """For any chat model: ``response_format`` is content and artifact, the artifact a ``Found``."""
        return list(self._tools.values())

    def call(self, name: str, arguments: Mapping[str, Any]) -> Found:
        """Use a tool; what is wrong with a call is told in its record, for the model to read."""
        tool = self._tools.get(name)
        if tool is None:
            return refused("unknown_tool", f"there is no tool {name[:40]!r}; there are {', '.join(self._tools)}")
        try:
            message = tool.invoke({"type": "tool_call", "id": "call", "name": name, "args": dict(arguments)})
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)[:SHOWN_FAULTS]
            said = "; ".join(f"{'.'.join(map(str, f['loc']))[:40] or 'arguments'}: {f['msg']}" for f in faults)
            return refused("arguments", said)
        found: Found = message.artifact
        self.evidence += found.evidence
        return found

    def _bound(self) -> list[StructuredTool]:
        from langchain_core.tools import StructuredTool

        offered = (
            (self.zoom, ZoomArguments, "Magnify a suspicious area or a point and score it against good parts."),
            (
                self.compare_with_reference,
                CompareArguments,
                "Lay the part beside the good part that it resembles most.",
            ),
            (self.measure, MeasureArguments, "Width, height, area and place of a suspicious area, distance of two."),
            (self.show_document, ShowArguments, "Read a page of the evidence in full."),
            (self.search_documents, SearchArguments, "Search the knowledge base for further pages by words."),
        )
        return [
            StructuredTool.from_function(
                _answering(function),
                name=function.__name__,
                description=description,
                args_schema=schema,
                response_format="content_and_artifact",
            )
            for function, schema, description in offered
        ]

    # --- the tools ----------------------------------------------------------------------------------------------------

    def zoom(self, region: str | None = None, x: int | None = None, y: int | None = None) -> Found:
        """Magnify an area, the strongest one when nothing is named, or a point in original pixels.

        Raises:
            InputError: there is no such area, or the point lies outside the picture.
            FlawscopeError: the picture or its product cannot be used.
        """
        if (x is None) != (y is None) or (region is not None and x is not None):
            raise InputError("the place to magnify is either an area or both x and y.")
        if x is not None and y is not None:
            width, height = self._size_px()
            if not (0 <= x < width and 0 <= y < height):
                raise InputError(f"the point ({x}, {y}) lies outside the picture of {width} x {height} px.")
            place = Region(id=f"P{x}x{y}", box=(x, y, x + 1, y + 1), area_px=1, peak=0.0, place="point")
        else:
            place = self._region(region or (self.report.regions[0].id if self.report.regions else "R1"))
        return self._looked("zoom", "Z", zoom_into(self.report, self.deps, place))

    def compare_with_reference(self) -> Found:
        """Lay the part beside the most similar good reference.

        Raises:
            FlawscopeError: there are no references, or the picture cannot be used.
        """
        return self._looked("reference", "C", compare_with_reference(self.report, self.deps))

    def measure(self, region: str, other: str | None = None) -> Found:
        """Sizes of an area in pixels, and the distance of two areas' centres.

        Raises:
            InputError: there is no such area, or both are the same.
        """
        one, (width, height) = self._region(region), self._size_px()
        x0, y0, x1, y1 = one.box
        share = 100.0 * one.area_px / (width * height)
        values: dict[str, float | int | str | bool | None] = {
            "x0": x0,
            "y0": y0,
            "x1": x1,
            "y1": y1,
            "width_px": x1 - x0,
            "height_px": y1 - y0,
            "area_px": one.area_px,
            "percent_of_picture": share,
        }
        text = (
            f"{one.id} at the {one.place} is {x1 - x0} px wide and {y1 - y0} px high, {one.area_px} px in area, "
            f"{number(share)} percent of the picture of {width} x {height} px."
        )
        if other is not None:
            two = self._region(other)
            if two.id == one.id:
                raise InputError("a distance needs two different areas.")
            centres = [((r.box[0] + r.box[2]) / 2, (r.box[1] + r.box[3]) / 2) for r in (one, two)]
            distance = float(np.hypot(centres[0][0] - centres[1][0], centres[0][1] - centres[1][1]))
            values |= {"distance_px": distance, "other": two.id}
            text += f" The centres of {one.id} and {two.id} are {number(distance)} px apart."
        text += " How many millimetres a pixel is, is not known."
        item = Evidence(id=self._next_id("M"), kind="measurement", text=text, source="measure", values=values)
        return Found({"id": item.id, "text": text}, (item,))

    def show_document(self, id: str) -> Found:  # what a model calls it
        """A page of the evidence, as far as the report holds it.

        Raises:
            InputError: there is no such page.
        """
        pages = {item.id: item for item in self.evidence if item.kind == "document"}
        if id not in pages:
            raise InputError(f"there is no page {id}; there are {', '.join(pages) or 'none'}.")
        return Found({"id": id, "page": pages[id].source, "text": pages[id].text})

    def search_documents(self, query: str, k: int = 2) -> Found:
        """Pages of the knowledge base by words; those that are new become evidence.

        Raises:
            KnowledgeError: the base is damaged, locked or away.
        """
        from ..graphs.evidence import document_evidence, document_records

        product = self.report.product
        have = {item.source: item.id for item in self.evidence if item.kind == "document"}
        found = self.deps.knowledge.retrieve(
            None,
            " ".join(filter(None, (product, query))),
            product=product,
            k=k,
            mode=self.deps.settings.retrieval,
            words=query,
        )
        pairs = list(zip(found.documents, found.similarities, strict=True))[:k]
        fresh = [(page, float(seen)) for page, seen in pairs if page.doc_id not in have]
        records = document_records(fresh, first=self._next_number("D"))
        items = tuple(Evidence.model_validate(item) for item in document_evidence(records).values())
        pages = [{"id": item.id, "page": item.source, "text": item.text} for item in items]
        known = [have[page.doc_id] for page, _ in pairs if page.doc_id in have]
        return Found({"pages": pages, "already_known": known}, items)

    # --- what they share ----------------------------------------------------------------------------------------------

    def _looked(self, kind: Any, prefix: str, seen: Look) -> Found:
        item = Evidence(id=self._next_id(prefix), kind=kind, text=seen.text, source="conversation")
        with Image.open(seen.picture) as picture:
            rgb = np.asarray(picture.convert("RGB"), dtype=np.uint8)
        return Found({"id": item.id, "text": seen.text}, (item,), Picture(rgb, kind), seen.picture)

    def _region(self, name: str) -> Region:
        for region in self.report.regions:
            if region.id == name:
                return region
        known = ", ".join(region.id for region in self.report.regions)
        raise InputError(f"there is no area {name}; {f'there are {known}' if known else 'none stands out'}.")

    def _size_px(self) -> tuple[int, int]:
        """Width and height of the original picture."""
        width, height = self.report.provenance["picture"]["original_size_px"]
        return int(width), int(height)

    def _next_number(self, prefix: str) -> int:
        taken = [item.id[1:] for item in self.evidence if item.id.startswith(prefix)]
        return 1 + max((int(digits) for digits in taken if digits.isdigit()), default=0)

    def _next_id(self, prefix: str) -> str:
        return f"{prefix}{self._next_number(prefix)}"


def refused(code: str, message: str) -> Found:
    """A call that came to nothing, told to the model."""
    return Found({"error": {"code": code, "message": message[:400]}})


def _answering(function: Any) -> Any:
    """A tool whose named failures are records: an exception would end the graph of the agent that called it."""

    def call(**arguments: Any) -> tuple[str, Found]:
        try:
            found: Found = function(**arguments)
        except FlawscopeError as error:
            found = refused(error.code, str(error))
        return json.dumps(found.record, ensure_ascii=False), found

    return call
