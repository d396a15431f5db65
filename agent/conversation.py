"""Talk about an inspected picture. Answers come from the report's evidence or from looking again, never from invention.

Where a model composed the report it also answers the questions, checked sentence by sentence; else, and whenever
nothing usable comes of it, the answers are the report's own.
A thread (its report and every turn) is kept by a LangGraph checkpointer, so a conversation can be taken up again by its
id in another process.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, NotRequired, TypedDict

from pydantic import ValidationError

from ..prompts import render
from .errors import ConfigError, FlawscopeError, StorageError
from .inspector import InspectionDeps
from .reasoner.base import HasModel
from .report_answers import HELP, Answer, asks_to_keep, respond
from .schemas import InspectionReport
from .vision_language import Picture

__all__ = ["HELP", "Answer", "ChatState", "Conversation", "respond", "told_by_the_report"]


class ChatState(TypedDict):
    """A conversation as plain data.

    Attributes:
        report: what is talked about.
        references: good pictures that stood in for a product.
        question: the latest one.
        turns: question, answer and cited evidence ids of each turn; those of a model also with its tool calls, the
            evidence that they added, and what was cut.
    """

    report: dict[str, Any]
    references: NotRequired[list[str]]
    question: NotRequired[str]
    turns: Annotated[list[dict[str, Any]], operator.add]


class Conversation:
    """A thread about one report.

    Args:
        deps: for looking again; products are loaded only when a question needs them.
        checkpointer: keeps the thread.
        thread_id: its id.
    """

    def __init__(self, deps: InspectionDeps, checkpointer: Any, thread_id: str) -> None:
        from langgraph.graph import END, START, StateGraph

        self.deps = deps
        self.thread_id = thread_id
        self._pictures: tuple[Picture, ...] | None = None
        self._config = {"configurable": {"thread_id": thread_id}}
        graph = StateGraph(ChatState)
        graph.add_node("answer", self._answer)
        graph.add_edge(START, "answer")
        graph.add_edge("answer", END)
        self._graph: Any = graph.compile(checkpointer=checkpointer)

    def start(self, report: InspectionReport, references: Sequence[str] = ()) -> None:
        """Begin the thread with a report and the references that it was judged by, if not by a product."""
        given = {"report": report.model_dump(mode="json"), "references": list(references), "question": ""}
        self._graph.invoke(given, self._config)

    @property
    def report(self) -> InspectionReport:
        """The report that the thread is about.

        Raises:
            ConfigError: there is no such thread.
            StorageError: it was written by another version.
        """
        state = self._graph.get_state(self._config).values
        if "report" not in state:
            raise ConfigError(
                f"no conversation with the id {self.thread_id!r}.", hint="The id is printed when one begins."
            )
        try:
            return InspectionReport.model_validate(state["report"])
        except ValidationError as error:
            raise StorageError(
                f"the conversation {self.thread_id!r} was kept by another version and cannot be read.",
                hint="Inspect the picture again.",
            ) from error

    @property
    def turns(self) -> list[dict[str, Any]]:
        """Everything said so far."""
        return list(self._graph.get_state(self._config).values.get("turns", []))

    def ask(self, question: str) -> Answer:
        """Answer one question and keep the turn."""
        state = self._graph.invoke({"question": question}, self._config)
        turn = state["turns"][-1]
        problems, calls = tuple(turn.get("problems", ())), tuple(turn.get("calls", ()))
        return Answer(turn["answer"], tuple(turn["cites"]), turn["picture"], problems, calls)

    def _answer(self, state: ChatState) -> dict[str, Any]:
        question = state.get("question", "")
        if not question:
            return {"turns": []}
        report = InspectionReport.model_validate(state["report"])
        self.deps.references = tuple(state.get("references", []))
        turns = state.get("turns", [])
        if told_by_the_report(question, report):
            return {"turns": [_turn(question, self._by_report(question, report, turns))]}
        return {"turns": [self._by_model(question, report, turns)]}

    def _by_report(self, question: str, report: InspectionReport, turns: list[dict[str, Any]]) -> Answer:
        from .chat_messages import earlier_evidence

        whole = report.model_copy(update={"evidence": (*report.evidence, *earlier_evidence(turns))})
        try:
            return respond(question, whole, self.deps, turns, self.thread_id)
        except FlawscopeError as error:  # looking again may fail; the conversation goes on
            return Answer(f"That could not be done: {error}")

    def _by_model(self, question: str, report: InspectionReport, turns: list[dict[str, Any]]) -> dict[str, Any]:
        """A model's answer, or the report's: with the reason why it is not the model's, where there is one."""
        from .chat_messages import chat_pictures
        from .model_conversation import Spoken, converse

        try:
            reasoner = self.deps.reasoner
            if not isinstance(reasoner, HasModel):
                return _turn(question, self._by_report(question, report, turns))
            if self._pictures is None:
                self._pictures = chat_pictures(report, self.deps)
            spoken = converse(question, report, self.deps, reasoner.model, turns, self._pictures)
            why = render("chat", spoken.failed) if spoken.failed else ""
        except FlawscopeError as error:
            spoken, why = Spoken(""), render("chat", "fallback_failed", why=str(error))
        answer = Answer(spoken.text, spoken.cites, spoken.picture, spoken.problems, spoken.calls)
        if why:
            told = self._by_report(question, report, turns)
            answer = replace(answer, text=f"{why} {told.text}", cites=told.cites, picture=told.picture)
        added = [item.model_dump(mode="json") for item in spoken.evidence]
        return {**_turn(question, answer), "calls": list(spoken.calls), "evidence": added}


def _turn(question: str, answer: Answer) -> dict[str, Any]:
    """A turn as plain data."""
    turn = {"question": question, "answer": answer.text, "cites": list(answer.cites), "picture": answer.picture}
    return {**turn, "problems": list(answer.problems)} if answer.problems else turn


def told_by_the_report(question: str, report: InspectionReport) -> bool:
    """Whether a question is for the record itself, so that no model is asked: history, one item, help, keeping."""
    text = " ".join(question.lower().split())
    return report.error is not None or bool(_OF_THE_RECORD.search(text)) or asks_to_keep(text)


_OF_THE_RECORD = re.compile(
    r"^(?:history|what did i ask\??|help|what can (?:i|you) (?:ask|do)\??|(?:show )?(?:me )?(?:the )?evidence|"
    r"(?:show )?(?:me )?(?:document |doc |page )?[a-z]\d{1,4}\??)$"
)
