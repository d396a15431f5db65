"""The inspection graph's steps run one after the other, for scripts that inspect thousands of pictures.

The nodes, the reducers and the routing are the graph's own; only what LangGraph adds is left out: checkpoints,
interrupts, streams and its threads, which cost as much as the localisation. A test holds the reports of both equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_type_hints

from ..agent.errors import ConfigError
from .nodes import InspectionNodes
from .report import compose_report, failure_report
from .routing import route
from .state import InspectionState

if TYPE_CHECKING:
    from ..agent.inspector import InspectionDeps
    from ..agent.schemas import InspectionReport


def _reducers() -> dict[str, Any]:
    """How updates of a key are joined with what is there, as the state's annotations say it."""
    hints = get_type_hints(InspectionState, include_extras=True)
    return {key: hint.__metadata__[0] for key, hint in hints.items() if hasattr(hint, "__metadata__")}


class StraightInspection:
    """Inspects pictures without LangGraph.

    Args:
        deps: what the nodes work with.

    Raises:
        ConfigError: a person shall be asked, which needs the graph and its checkpointer.
    """

    def __init__(self, deps: InspectionDeps) -> None:
        if deps.settings.ask_human:
            raise ConfigError("asking a person needs the graph and its checkpointer.", hint="Unset ask_human.")
        self._deps = deps
        self._nodes = InspectionNodes(deps)
        self._reducers = _reducers()

    def inspect(self, image: str, product: str | None = None, instruction: str = "") -> InspectionReport:
        """Inspect one picture; what cannot be inspected gives a report with ``error``.

        Args:
            image: its path.
            product: an enrolled product, None for none.
            instruction: what is asked.
        """
        from ..tools.blas import single_blas_thread

        with single_blas_thread():  # as in the graph: sums over several threads differ in their last digits
            return self._inspect(image, product, instruction)

    def _inspect(self, image: str, product: str | None, instruction: str) -> InspectionReport:
        nodes = self._nodes
        state: Any = {"image": image, "product": product, "instruction": instruction}
        self._join(state, nodes.see(state))
        found, pages = nodes.localise(state), nodes.retrieve(state)  # side by side: neither sees the other's update
        self._join(state, found)
        self._join(state, pages)
        while True:
            for step in (nodes.classify, nodes.reason, nodes.verify):
                self._join(state, step(state))
            following = route(state, self._deps.settings, nodes.available(state))
            if following == "report":
                return failure_report(state, self._deps) if state.get("error") else compose_report(state, self._deps)
            self._join(state, getattr(nodes, following)(state))

    def _join(self, state: Any, update: dict[str, Any]) -> None:
        for key, value in update.items():
            reduce = self._reducers.get(key)
            state[key] = value if reduce is None or key not in state else reduce(state[key], value)
