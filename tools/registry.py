"""The tools that an agent may call, by name. Adding one is a function and a line in ``TOOLS``.

A function takes an Inspector first, then the arguments that the agent fills in, each ``Annotated`` with a pydantic
``Field`` that describes it, and returns plain JSON-able data:

    TOOLS["gauge"] = ToolSpec("my_plant.tools:gauge", "Measure the part's width in millimetres.")
"""

from __future__ import annotations

import contextvars
import inspect
import pkgutil
import threading
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, create_model

from ..agent.errors import FlawscopeError

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool

    from ..agent.inspector import Inspector

Record = dict[str, Any]


@dataclass(frozen=True)
class ToolSpec:
    """One tool.

    Attributes:
        function: where it is, ``package.module:name``; imported when first needed.
        description: what a model reads when it chooses among the tools.
    """

    function: str
    description: str

    def load(self) -> Callable[..., Record]:
        """Import the function.

        Raises:
            ImportError, AttributeError: there is none of that name.
        """
        found: Callable[..., Record] = pkgutil.resolve_name(self.function)
        return found


_CALLS = f"{__package__}.calls"
_LOGIC = f"{__package__}.logic.calls"

TOOLS: dict[str, ToolSpec] = {
    "inspect_picture": ToolSpec(
        f"{_CALLS}:inspect_picture",
        "Inspect a picture of a part: verdict OK, NG or REVIEW with probability, regions, defect type, description, "
        "root cause, action and the evidence that each claim cites.",
    ),
    "locate_anomalies": ToolSpec(
        f"{_CALLS}:locate_anomalies",
        "Find where a part differs from good ones: regions in pixels, image score and alarm threshold. Quicker than "
        "inspect_picture and without words.",
    ),
    "name_defect_type": ToolSpec(
        f"{_CALLS}:name_defect_type",
        "Compare the suspicious place with the product's known defect types: name, posterior and shortlist.",
    ),
    "zoom": ToolSpec(
        f"{_CALLS}:zoom",
        "Look at one place of the picture again at twice the resolution and score it against good parts.",
    ),
    "compare_with_reference": ToolSpec(
        f"{_CALLS}:compare_with_reference",
        "Compare the picture place by place with the most similar good reference, and name that reference.",
    ),
    "compare_with_template": ToolSpec(
        f"{_LOGIC}:compare_with_template",
        "Align the picture to a defect-free template and list missing and extra material in pixels; for printed "
        "circuit boards and other parts that must match.",
    ),
    "check_parts": ToolSpec(
        f"{_LOGIC}:check_parts",
        "Count the parts of the picture, and check which are missing and where they lie, against good references.",
    ),
    "measure_region": ToolSpec(
        f"{_LOGIC}:measure_region",
        "Measure a box of the picture in millimetres with its uncertainty, where the product's scale is known.",
    ),
    "retrieve_documents": ToolSpec(
        f"{_CALLS}:retrieve_documents",
        "Search the knowledge base of defects by words, by picture or both: looks, causes, consequences, actions.",
    ),
}


def args_schema(name: str, function: Callable[..., Record]) -> type[BaseModel]:
    """The arguments of a tool as a closed pydantic model, taken from the function's own signature.

    Args:
        name: of the tool.
        function: whose first parameter, the Inspector, is left out.
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    # Only the arguments are resolved: the Inspector's own type is imported for type checkers alone.
    module = vars(inspect.getmodule(function))
    fields: dict[str, Any] = {}
    for parameter in parameters:
        hints = {"value": parameter.annotation}
        holder = type("Holder", (), {"__annotations__": hints})
        kind = typing.get_type_hints(holder, module, include_extras=True)["value"]
        fields[parameter.name] = (kind, ... if parameter.default is parameter.empty else parameter.default)
    return create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)


def build_langchain_tools(inspector: Inspector) -> list[StructuredTool]:
    """The registry as LangChain tools bound to an inspector.

    A FlawscopeError becomes the record ``{"error": {"code": ..., "message": ...}}``, because an exception inside a tool
    ends the graph of the agent that called it; anything else is a defect of the program and is raised. Calls wait for
    each other: an agent may make several at once, and an inspector works on one picture at a time.

    Args:
        inspector: stays open as long as the tools are used.
    """
    from langchain_core.tools import StructuredTool

    turn = threading.Lock()
    tools = []
    for name, spec in TOOLS.items():
        function = spec.load()
        tool = StructuredTool.from_function(
            _answering(function, inspector, turn),
            name=name,
            description=spec.description,
            args_schema=args_schema(name, function),
        )
        tools.append(tool)
    return tools


def _answering(function: Callable[..., Record], inspector: Inspector, turn: threading.Lock) -> Callable[..., Record]:
    from .blas import single_blas_thread
    from .calls import StepError

    def call(**arguments: Any) -> Record:
        # A context of its own: inside an agent's graph the inspection would otherwise take itself for a subgraph and
        # write into the agent's thread, where two calls of one turn collide.
        context = contextvars.Context()
        with turn, single_blas_thread():
            try:
                return context.run(function, inspector, **arguments)
            except StepError as error:
                return {"error": {"code": error.record["code"], "message": error.record["message"]}}
            except FlawscopeError as error:
                return {"error": {"code": error.code, "message": str(error)}}

    return call
