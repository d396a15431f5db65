"""Threads that wait for a person: found in a checkpointer, answered exactly once, and asked again after an undo.

The checkpointer commits a node's result and the question's end in one step, so what a graph has done can always be read
from it. Nothing here remembers anything: each call looks at the thread and does what is still missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError
from .items import Question, ReviewItem, thread_item


class GraphThreads:
    """The threads of one graph.

    Args:
        graph: a compiled inspection graph, or a parent graph whose inspection asks through it.
        checkpointer: the one that it was compiled with.
    """

    def __init__(self, graph: Any, checkpointer: Any) -> None:
        self._graph = graph
        self._checkpointer = checkpointer

    def waiting(self) -> list[ReviewItem]:
        """Everything that is asked now, the oldest question first."""
        newest: dict[str, tuple[str, bool]] = {}
        for kept in self._checkpointer.list(None):  # newest first; nothing else may be asked of it meanwhile
            at = kept.config["configurable"]
            if not at.get("checkpoint_ns") and at["thread_id"] not in newest:
                asks = any(write[1] == "__interrupt__" for write in kept.pending_writes or ())
                newest[at["thread_id"]] = (at["checkpoint_id"], asks)
        waiting = sorted((since, thread_id) for thread_id, (since, asks) in newest.items() if asks)
        return [item for _, thread_id in waiting for item in self._asked(thread_id)]

    def _asked(self, thread_id: str) -> Iterator[ReviewItem]:
        from langgraph.types import StateSnapshot

        state = self._graph.get_state(_config(thread_id), subgraphs=True)
        for task in state.tasks:
            values = task.state.values if isinstance(task.state, StateSnapshot) else state.values
            for asked in task.interrupts:
                if isinstance(asked.value, dict) and "image" in asked.value:
                    at = Question(
                        thread_id=thread_id,
                        interrupt_id=asked.id,
                        checkpoint_id=state.config["configurable"]["checkpoint_id"],
                    )
                    yield thread_item(at, asked.value, values)

    def waits(self, question: Question) -> bool:
        """Whether it has not been answered yet."""
        return question.interrupt_id in {asked.id for asked in self._state(question).interrupts}

    def answer(self, question: Question, decision: dict[str, Any]) -> str | None:
        """Take the graph from a question to its end, or on to its end when a killed process had begun to.

        Args:
            question: one that was asked; answering it again changes nothing.
            decision: as ``Inspector.resume`` takes it.

        Returns:
            The verdict that the graph ended with; None when it ended without one, or asks something else now.

        Raises:
            ConfigError: the decision is none.
        """
        from langgraph.types import Command

        from ...graphs.evidence import checked_answer

        checked_answer(decision)
        if self.waits(question):
            self._run(Command(resume={question.interrupt_id: decision}), question)
        state = self._state(question)
        if state.tasks and not state.interrupts and "input" not in self._sources_since(question):
            self._run(None, question)
        report = self._state(question).values.get("report")
        return str(report["verdict"]) if isinstance(report, dict) and "verdict" in report else None

    def refuse_other_use(self, question: Question) -> None:
        """Say no where the thread has gone on to another picture, so that the question cannot be asked again.

        Raises:
            ConfigError: it has.
        """
        if "input" in self._sources_since(question):
            raise ConfigError(
                f"the thread {question.thread_id!r} has been used for another picture since, so it cannot ask again.",
                hint="Inspect the picture again under another thread id.",
            )

    def reopen(self, question: Question) -> Question:
        """Ask again what has been answered, in a fork of the state that the question was asked in.

        Returns:
            The question as it waits now; where it waits already, nothing is changed.

        Raises:
            ConfigError: the thread has been used for another picture since, or asks nothing now.
        """
        self.refuse_other_use(question)
        if "fork" not in self._sources_since(question):
            asked = {"thread_id": question.thread_id, "checkpoint_ns": "", "checkpoint_id": question.checkpoint_id}
            self._graph.update_state({"configurable": asked}, None, as_node="__copy__")
        state = self._state(question)
        if not state.interrupts:
            self._run(None, question)
            state = self._state(question)
        if not state.interrupts:
            raise ConfigError(f"the thread {question.thread_id!r} does not ask again.")
        return Question(
            thread_id=question.thread_id,
            interrupt_id=state.interrupts[0].id,
            checkpoint_id=state.config["configurable"]["checkpoint_id"],
        )

    def _state(self, question: Question) -> Any:
        return self._graph.get_state(_config(question.thread_id))

    def _run(self, given: Any, question: Question) -> None:
        from ...tools.blas import single_blas_thread

        with single_blas_thread():
            # each step is on the disk before the next begins, so that what a kill leaves is one of few states
            self._graph.invoke(given, _config(question.thread_id), durability="sync")

    def _sources_since(self, question: Question) -> set[str]:
        """How the states after the question came about: ``loop``, ``input`` (another picture) or ``fork``."""
        found = set()
        for state in self._graph.get_state_history(_config(question.thread_id)):
            if state.config["configurable"]["checkpoint_id"] <= question.checkpoint_id:  # ids grow with time
                break
            found.add(state.metadata["source"])
        return found


def _config(thread_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread_id}}
