"""What a model is shown when an operator asks about an inspected part: pictures, evidence, pages, last questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..prompts import render
from .chat_answers import bundle_of
from .schemas import Evidence, InspectionReport
from .vision_language import Message, Part, Picture
from .vision_language.tool_text import ToolDescription, tool_instructions

if TYPE_CHECKING:
    from .chat_tools import ChatTools
    from .inspector import InspectionDeps

PROMPTS = "chat"
EVIDENCE_TOKENS = 80
HISTORY_TOKENS = 800
"""Of earlier questions and answers that the model is shown, the latest first."""
QUESTION_TOKENS = 200


def opening(
    question: str,
    report: InspectionReport,
    earlier: Sequence[Evidence],
    tools: ChatTools,
    turns: Sequence[Mapping[str, Any]],
    pictures: Sequence[Picture],
    *,
    native: bool = False,
) -> list[Message]:
    """The conversation up to the question.

    Args:
        question: free text, quoted.
        report: with the evidence.
        earlier: evidence that earlier turns added.
        tools: offered.
        turns: earlier ones; the latest that fit are shown, and how many are not.
        pictures: of the part.
        native: the tools are handed over in the model's own way, so that no words tell of them.
    """
    role = render(PROMPTS, "role", verdict=report.verdict.value)
    if not native:
        role += f"\n\n{tool_instructions(described(tools))}"
    kept, left_out = recent(turns)
    evidence = _evidence_parts(report, earlier, pictures)
    if left_out:
        evidence.append(f"{render(PROMPTS, 'left_out', count=left_out)}\n")
    asked = [str(turn["question"]) for turn in kept] + [question]
    messages = [Message("system", (role,)), Message("user", (*evidence, _asked(asked[0])))]
    for turn, following in zip(kept, asked[1:], strict=True):
        messages += [Message("assistant", (_answered(turn),)), Message("user", (_asked(following),))]
    return messages


def _evidence_parts(report: InspectionReport, earlier: Sequence[Evidence], pictures: Sequence[Picture]) -> list[Part]:
    from ..tools.knowledge.schema import cut_to_budget, plain_text
    from .reasoner.composing import document_lines

    bundle = bundle_of(report, earlier)
    told = [
        cut_to_budget(f"[{item.id}] {plain_text(item.text)}", EVIDENCE_TOKENS)
        for item in bundle.items
        if item.kind != "document"
    ]
    lines = [render(PROMPTS, "evidence"), *told]
    if bundle.grid:
        rows = bundle.grid.splitlines()
        lines += [render(PROMPTS, "grid", rows=len(rows), columns=len(rows[0])), *rows]
    parts: list[Part] = []
    for picture in pictures:
        section, _, region = picture.label.partition(" ")
        heading = render(PROMPTS, "crop", id=region) if region else render(PROMPTS, section)
        parts += [f"{heading}\n", picture, "\n"]
    parts.append("".join(f"{line}\n" for line in lines))
    if pages := document_lines(bundle.documents):
        parts.append("".join(f"{line}\n" for line in (render(PROMPTS, "documents"), *pages)))
    return parts


def _asked(question: str) -> str:
    from ..tools.knowledge.schema import cut_to_budget, plain_text

    return f"{render(PROMPTS, 'asked')}\n{cut_to_budget(f'> {plain_text(question)}', QUESTION_TOKENS)}\n"


def _answered(turn: Mapping[str, Any]) -> str:
    cites = f" [{', '.join(turn['cites'])}]" if turn["cites"] else ""
    return f"{' '.join(str(turn['answer']).split())}{cites}"


def recent(turns: Sequence[Mapping[str, Any]], budget: int = HISTORY_TOKENS) -> tuple[list[Mapping[str, Any]], int]:
    """The latest turns that fit into a budget, whole and in order, and how many are left out.

    Args:
        turns: all of a thread.
        budget: estimated tokens.
    """
    from ..tools.knowledge.schema import estimated_tokens

    kept: list[Mapping[str, Any]] = []
    for turn in reversed(turns):
        budget -= min(QUESTION_TOKENS, estimated_tokens(str(turn["question"]))) + estimated_tokens(_answered(turn))
        if budget < 0:
            break
        kept.insert(0, turn)
    return kept, len(turns) - len(kept)


def earlier_evidence(turns: Sequence[Mapping[str, Any]]) -> tuple[Evidence, ...]:
    """What tools added in earlier turns."""
    return tuple(Evidence.model_validate(item) for turn in turns for item in turn.get("evidence", ()))


def described(tools: ChatTools) -> list[ToolDescription]:
    """What a model is told of the tools."""
    found = []
    for tool in tools.langchain_tools():
        schema: Any = tool.args_schema
        found.append(ToolDescription(tool.name, tool.description, _brief(schema.model_json_schema())))
    return found


def _brief(schema: Any) -> dict[str, Any]:
    """A schema without titles and defaults: a model with a small context reads it."""
    properties = {}
    for name, part in schema.get("properties", {}).items():
        kinds = [part, *part.get("anyOf", ())]
        kind = next(str(one["type"]) for one in kinds if "type" in one)
        properties[name] = {"type": kind, "description": part.get("description", "")}
    return {"properties": properties, "required": schema.get("required", [])}


def chat_pictures(report: InspectionReport, deps: InspectionDeps) -> tuple[Picture, ...]:
    """The part, the good part that it resembles most, and its suspicious areas enlarged.

    Raises:
        InputError: the picture is gone or no longer the one that was inspected.
        FlawscopeError: the product cannot be used.
    """
    from ..graphs.pictures import CROP_SIDE_PX, REFERENCE_SIDE_PX, crop_box, reduced
    from ..tools import views
    from ..tools.ad_expert.expert import expert_tokens
    from .look_again import reload_picture
    from .reasoner.composing import BOXES

    picture, product = reload_picture(report, deps)
    rgb, shown = picture.rgb, []
    if product is not None:
        features = views.encode(deps.backbone, product, rgb)
        owners = views.nearest_references(expert_tokens(features), features.grid, product.reference_tokens)
        good = product.reference_picture(owners[0], deps.settings.max_pixels)
        shown.append(Picture(reduced(good, REFERENCE_SIDE_PX), "reference"))
    shown.append(Picture(rgb, "query"))
    scale = (picture.meta.scale_x, picture.meta.scale_y)
    for region in report.regions[:BOXES]:
        box = crop_box(list(region.box), scale, (rgb.shape[0], rgb.shape[1]))
        if box is not None:
            x0, y0, x1, y1 = box
            shown.append(Picture(reduced(rgb[y0:y1, x0:x1], CROP_SIDE_PX), f"crop {region.id}"))
    return tuple(shown)
