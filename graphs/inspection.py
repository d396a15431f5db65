"""The inspection graph.

    see -+-> localise -+-> classify -> reason -> verify -> route -> report
         +-> retrieve -+       ^                             |
                               +-- zoom, reference, ... <----+ doubt
                                                             +-> human -> report

To see is to load the picture and to encode it. The two knowledge paths run side by side, as in ADSeeker. Each action
ends in ``classify``: it added evidence, so the type, the words and the verdict are formed anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from ..agent.inspector import InspectionDeps
from .nodes import InspectionNodes
from .routing import Next, route
from .state import Action, InspectionInput, InspectionOutput, InspectionState

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Checkpointer

RECURSION_LIMIT = 40
"""Super-steps: 6 for the first round, 4 per action (five at most, each once), 2 to end; the rest is margin."""


def build_inspection_graph(
    deps: InspectionDeps, checkpointer: Checkpointer = None
) -> CompiledStateGraph[InspectionState, None, InspectionInput, InspectionOutput]:
    """Compile the graph.

    Args:
        deps: backbone, products, knowledge, reasoner, settings, artifacts. For a graph that may be resumed by another
            process (a checkpointer on disk, here or in the parent) their artifact store must be on disk too.
        checkpointer: needed for interrupts and resuming; None inherits a parent graph's, or runs without; False never
            keeps anything, so that a resumed parent inspects from the start again.

    Returns:
        A compiled LangGraph graph from InspectionInput to InspectionOutput. Use it on its own, or as a node of a
        parent graph whose state has ``image``, ``product`` and ``report``.
    """
    from langgraph.graph import END, START, StateGraph

    nodes = InspectionNodes(deps)
    graph = StateGraph(InspectionState, input_schema=InspectionInput, output_schema=InspectionOutput)
    for name in ("see", "localise", "retrieve", "classify", "reason", "verify", "human", "report"):
        graph.add_node(name, getattr(nodes, name))
    for action in get_args(Action):
        graph.add_node(action, getattr(nodes, action))
        graph.add_edge(action, "classify")

    def decide_next(state: InspectionState) -> Next:
        return route(state, deps.settings, nodes.available(state))

    graph.add_edge(START, "see")
    graph.add_edge("see", "localise")
    graph.add_edge("see", "retrieve")
    graph.add_edge(["localise", "retrieve"], "classify")
    graph.add_edge("classify", "reason")
    graph.add_edge("reason", "verify")
    graph.add_conditional_edges("verify", decide_next, list(get_args(Next)))
    graph.add_edge("human", "report")
    graph.add_edge("report", END)
    return graph.compile(checkpointer=checkpointer).with_config(recursion_limit=RECURSION_LIMIT)
