"""Answers to questions about an inspected picture from its report alone, or from looking again; no model is asked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .look_again import compare_with_reference, zoom_into
from .reasoner.evidence import number, words
from .schemas import Evidence, InspectionReport, Verdict

if TYPE_CHECKING:
    from .inspector import InspectionDeps

HELP = (
    "You can ask: what is it? · where exactly? · what could cause it? · what happens if it ships? · what should I do? "
    "· "
    "how sure are you? · show the evidence · show document D1 · why not a scratch? · zoom into region 2 · "
    "compare with the reference · this is a burr, add it · history · quit"
)


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: what is said.
        cites: evidence ids that carry it.
        picture: path of a picture made for it, None when there is none.
        problems: what a model said beyond that and why it is not shown.
        calls: a model's tool calls: ``tool``, ``arguments``, ``result``, ``failed``.
    """

    text: str
    cites: tuple[str, ...] = ()
    picture: str | None = None
    problems: tuple[str, ...] = ()
    calls: tuple[dict[str, Any], ...] = ()


def asks_to_keep(text: str) -> bool:
    """Whether an operator wants their word about the part to be kept."""
    return "?" not in text and bool(re.search(r"\b(?:add|remember|keep|store|learn) (?:it|this|that)\b", text))


def respond(
    question: str, report: InspectionReport, deps: InspectionDeps, turns: list[dict[str, Any]], thread_id: str = ""
) -> Answer:
    """Find what is asked and answer it from the report.

    Args:
        question: free text; the first intent whose words occur in it is taken.
        report: the inspection.
        deps: for looking again.
        turns: earlier turns.
        thread_id: of the conversation, for what can be done about it elsewhere.
    """
    text = " ".join(question.lower().split())
    if report.error is not None:
        return Answer(f"The picture could not be inspected: {report.error.message}")
    if thread_id and asks_to_keep(text):
        return _keep(question, report, thread_id)
    if match := re.search(r"\b(?:zoom|closer|magnify|enlarge)\b(?:\D*(\d{1,4}))?", text):
        return _zoom(report, deps, int(match[1] or 1))
    if re.search(r"\b(?:compare|comparison|reference|good one|side by side)\b", text):
        seen = compare_with_reference(report, deps)
        return Answer(seen.text, ("M1",), seen.picture)
    if match := re.search(r"\bwhy (?:is it |is this |it'?s )?not (?:an? |the )?([a-z_ -]+?)\s*\??$", text):
        asked = match[1].strip()
        return _verdict(report) if asked in _VERDICT_WORDS else why_not(report, asked.replace(" ", "_"))
    if match := re.search(r"\b(?:document|doc|page)\s*(d\d+)\b|^(d\d+|[a-z]\d+)\??$", text):
        return _show_one(report, (match[1] or match[2]).upper())
    if re.search(r"\bhistory\b|\bwhat did i ask\b", text):
        said = [f"{turn['question']} — {turn['answer']}" for turn in turns]
        return Answer("\n".join(said) or "Nothing has been asked yet.")
    for pattern, handler in _INTENTS:
        if re.search(pattern, text):
            return handler(report)
    return Answer("I can only answer from the evidence of this inspection. " + HELP)


def _claims(report: InspectionReport, *fields: str) -> Answer | None:
    found = [claim for claim in report.claims if claim.field in fields]
    if not found:
        return None
    cites = tuple(dict.fromkeys(cite for claim in found for cite in claim.evidence_ids))
    return Answer(" ".join(claim.text for claim in found), cites)


def _where(report: InspectionReport) -> Answer:
    if not report.regions:
        return Answer("No area stands out from the good references.", _ids(report, "measurement"))
    lines = []
    for region in report.regions:
        x0, y0, x1, y1 = region.box
        size = f"{x1 - x0} x {y1 - y0} px, {region.area_px} px in area"
        lines.append(
            f"{region.id}: {region.place}, from ({x0}, {y0}) to ({x1}, {y1}), {size}, peak {number(region.peak)}."
        )
    return Answer("\n".join(lines), tuple(region.id for region in report.regions))


def _what(report: InspectionReport) -> Answer:
    if report.verdict is Verdict.OK:
        return Answer("No defect: " + report.verdict_reason, _ids(report, "measurement"))
    known = _claims(report, "defect_type", "description")
    return known or Answer("The defect type is unknown.", _ids(report, "type", "measurement"))


def _cause(report: InspectionReport) -> Answer:
    if report.verdict is Verdict.OK:
        return Answer("The part is OK, there is no cause to look for.", _ids(report, "measurement"))
    return _claims(report, "root_cause") or Answer("The evidence names no cause.", _ids(report, "type"))


def _consequence(report: InspectionReport) -> Answer:
    return _claims(report, "consequence") or Answer("The evidence names no consequence.", _ids(report, "type"))


def _action(report: InspectionReport) -> Answer:
    return _claims(report, "action") or Answer("The evidence asks for no action.", _ids(report, "measurement"))


def _sure(report: InspectionReport) -> Answer:
    measured = _ids(report, "measurement")
    if report.probability is None or report.uncertainty.entropy is None:
        return Answer("How sure cannot be said: " + (report.verdict_reason or "the score is not calibrated."), measured)
    basis = (
        "calibrated on this product's references"
        if report.uncertainty.calibrated
        else "extrapolated from few references"
    )
    text = (
        f"The probability of a defect is {number(report.probability)} ({basis}); the decision entropy is "
        f"{number(report.uncertainty.entropy)} of 1{_worth(report)}. Checks made: "
        + ", ".join(step.action.replace("_", " ") for step in report.trace if step.action not in _PLUMBING)
        + "."
    )
    return Answer(text, measured)


def _worth(report: InspectionReport) -> str:
    if report.uncertainty.p_correct is not None:
        return f"; such answers were right with a probability of {number(report.uncertainty.p_correct)}"
    return " (uncalibrated: how often such answers are right is not known)" if report.uncertainty.parts else ""


def _verdict(report: InspectionReport) -> Answer:
    return Answer(f"{report.verdict.value}. {report.verdict_reason}", _ids(report, "measurement", "zoom", "reference"))


def _evidence(report: InspectionReport) -> Answer:
    lines = [f"{item.id} ({item.kind}): {_short(item)}" for item in report.evidence]
    return Answer("\n".join(lines) or "There is no evidence.", tuple(item.id for item in report.evidence))


def _show_one(report: InspectionReport, item_id: str) -> Answer:
    for item in report.evidence:
        if item.id == item_id:
            return Answer(f"{item.id} ({item.kind}, {item.source or 'this picture'}): {item.text}", (item.id,))
    return Answer(f"There is no {item_id}. Known: {', '.join(item.id for item in report.evidence)}.")


def _help(report: InspectionReport) -> Answer:
    return Answer(HELP)


def _ids(report: InspectionReport, *kinds: str) -> tuple[str, ...]:
    return tuple(item.id for item in report.evidence if item.kind in kinds)


def _short(item: Evidence) -> str:
    text = " ".join(item.text.split())
    return f"{item.source}: {text[:110]}…" if item.kind == "document" and len(text) > 110 else text


def _zoom(report: InspectionReport, deps: InspectionDeps, index: int) -> Answer:
    if not report.regions:
        return Answer("No area stands out, so there is nothing to zoom into.", _ids(report, "measurement"))
    if not 1 <= index <= len(report.regions):
        return Answer(f"There are {len(report.regions)} regions; ask for one of 1 to {len(report.regions)}.")
    seen = zoom_into(report, deps, report.regions[index - 1])
    return Answer(seen.text, (report.regions[index - 1].id,), seen.picture)


_ASKED_TO_KEEP = re.compile(
    r"[,;.]?\s*(?:\b(?:and|so|please|then|now)\s+)*\b(?:add|remember|keep|store|learn)\s+(?:it|this|that)\b.*$", re.I
)
_NAMED = re.compile(r"^(?:no,?\s+)?(?:this|it|that)(?:\s+is|'s)\s+(?:actually\s+|really\s+)?(?:an?\s+)?", re.I)


def _keep(question: str, report: InspectionReport, thread_id: str) -> Answer:
    """How a person's word about the part becomes a page; nothing is written from within a conversation."""
    from ..tools.knowledge.plant_page import types_in

    said = _NAMED.sub("", _ASKED_TO_KEEP.sub("", " ".join(question.split()))).strip(" ,.;")
    passed = said.lower() in _VERDICT_WORDS - {"ng", "bad", "failed", "defective", "rejected", "review"}
    command = ["flawscope", "kb", "from-inspection", thread_id]
    if passed:
        command += ["--verdict", "OK", "--note", "WHAT MISLED THE INSPECTION"]
    else:
        named = types_in(said, report.product)
        command += ["--verdict", "NG"] * (report.verdict is not Verdict.NG)
        command += ["--type", named[0]] if len(named) == 1 else ["--type", "TYPE"]
        command += ["--note", said or "WHAT YOU SEE, WHY, WHAT TO DO"]
    text = "This report stays as it is. To keep your word as a page of the plant, run this; it shows the page and asks:"
    return Answer(f"{text}\n{shlex.join(command)}", tuple(region.id for region in report.regions[:1]))


def _plain(name: str) -> str:
    """A type's name as people write it, whatever its hyphens, underscores and capitals."""
    return " ".join(re.split(r"[\s_-]+", name.lower()))


def why_not(report: InspectionReport, asked: str) -> Answer:
    """Why the defect was not named ``asked``: its posterior, and what the pages say about telling the two apart."""
    from ..tools.knowledge.lookup import documents_about
    from ..tools.knowledge.schema import load_documents

    kind = report.defect_type
    if kind is None:
        return Answer("No defect was named, so no type was ruled out either.", _ids(report, "measurement"))
    pages, product = load_documents(), report.product
    known = [kind.name, *(candidate.name for candidate in kind.candidates), *(page.defect_type for page in pages)]
    asked = next((name for name in known if _plain(name) == _plain(asked)), asked)
    if asked == kind.name:
        return Answer(f"It was named {words(kind.name)}.", _ids(report, "type"))
    shares = {candidate.name: candidate.posterior for candidate in kind.candidates}
    if asked in shares:
        mine = f"{words(kind.name)} {number(kind.posterior or 0)}"
        said = f"{words(asked).capitalize()} has a posterior of {number(shares[asked])}, {mine}."
    else:
        said = (
            f"{words(asked).capitalize()} is not among the types that the comparison found likely or had examples of."
        )
    for mine, other in ((kind.name, asked), (asked, kind.name)):
        targets = {other, *(page.canonical_type for page in documents_about(pages, other, product))}
        for page in documents_about(pages, mine, product):
            for look_alike in page.look_alikes:
                if look_alike.defect_type in targets:
                    told = f" How to tell {words(mine)} from {words(other)}: {look_alike.how_to_tell} ({page.doc_id})"
                    return Answer(said + told, _ids(report, "type"))
    return Answer(said, _ids(report, "type"))


_VERDICT_WORDS = frozenset("ok okay ng review good bad fine passed passing failed defective rejected accepted".split())
_PLUMBING = frozenset({"load", "encode", "classify", "reason", "verify", "retrieve"})
_INTENTS: tuple[tuple[str, Callable[[InspectionReport], Answer]], ...] = (
    (r"\b(?:help|what can (?:i|you))\b", _help),
    (r"\bevidence\b|\bprove\b|\bdocuments?\b|\bsources?\b", _evidence),
    (r"\bwhere\b|\blocat|\bplace\b|\bposition\b", _where),
    (r"\bcause|\bwhy did\b|\bhow did\b|\bcome from\b|\broot\b|\breason for\b", _cause),
    (r"\bconsequence|\bhappen|\brisk\b|\bimpact\b|\bmatter\b", _consequence),
    (r"\bshould i\b|\baction\b|\bdo with\b|\bdo now\b|\bdisposition\b|\brework\b|\bscrap\b", _action),
    (r"\bsure\b|\bcertain|\bconfiden|\bprobab|\bentropy\b|\buncertain|\btrust\b", _sure),
    (r"\bwhat (?:is|kind|type|defect)\b|\btype\b|\bname\b|\bdescribe\b|\bwhat do you see\b", _what),
    (r"\bok\b|\bng\b|\bpass|\bfail|\bverdict\b|\bdefective\b|\bwhy\b|\bgood\b", _verdict),
)
