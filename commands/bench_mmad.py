"""``bench mmad``, ``bench mmad-make``: MMAD's questions to a vision-language model, and sets of its layout."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .shared import ProfileOption, make_console, print_line, settings, status

SetOption = Annotated[Path, typer.Option("--data", help="Folder with mmad.json and the folders of pictures.")]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="Folder of a Qwen2.5-VL checkpoint (default: the profile's).")
]
ReasonerOption = Annotated[
    str | None,
    typer.Option("--model", help="qwen_vl in this process or openai_api on a server (default: the profile's)."),
]
ProductsOption = Annotated[str | None, typer.Option("--products", help="Only these, comma-separated.")]
TasksOption = Annotated[str | None, typer.Option("--tasks", help="Only these subtasks, comma-separated.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Pictures of each product at most.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Keep answers here; a run there goes on.")]


class TemplateKind(StrEnum):
    """Which good pictures a question comes with."""

    RANDOM = "random"
    SIMILAR = "similar"


class PromptForm(StrEnum):
    """Whose words a question is asked in."""

    OFFICIAL = "official"
    OWN = "own"


def register(app: typer.Typer) -> None:
    """Add the commands to ``bench``."""
    app.command("mmad")(bench_mmad)
    app.command("mmad-make")(bench_mmad_make)


def bench_mmad(
    data: SetOption,
    profile: ProfileOption = None,
    model: ReasonerOption = None,
    weights: WeightsOption = None,
    shots: Annotated[int, typer.Option("--shots", min=0, max=8, help="Good pictures shown with each question.")] = 1,
    templates: Annotated[
        TemplateKind, typer.Option("--templates", help="Which of those that the set names.")
    ] = TemplateKind.RANDOM,
    form: Annotated[
        PromptForm, typer.Option("--form", help="Words of the published script, or of prompts/question.md.")
    ] = PromptForm.OFFICIAL,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Tell the set's texts about the true product: an oracle's knowledge.")
    ] = False,
    numbered: Annotated[bool, typer.Option("--numbered", help="'Question N:' before questions.")] = False,
    free: Annotated[
        bool, typer.Option("--free", help="Answers in words, 128 tokens at most; letters are read.")
    ] = False,
    permute: Annotated[int, typer.Option("--permute", min=0, max=4, help="Ask again so often, options moved on.")] = 0,
    products: ProductsOption = None,
    tasks: TasksOption = None,
    limit: LimitOption = None,
    out: OutOption = None,
) -> None:
    """MMAD: multiple-choice questions by its protocol, scored as its scripts do and strictly; goes on when cut off."""
    from ..agent.errors import ConfigError
    from ..agent.terminal import ProgressBar
    from ..agent.vision_language.loading import load_model, weights_identity
    from ..benchmarks.mmad.answering import ByLetter, InWords
    from ..benchmarks.mmad.run import Protocol, run_mmad
    from ..benchmarks.mmad.tables import render

    if oracle and form is PromptForm.OWN:
        raise ConfigError("--oracle is of the official form.", hint="bench ablation gives retrieved pages.")
    errors = make_console(stderr=True)
    with status(errors, hidden=False) as say:
        say("loading the model")
        loaded = settings(profile=profile, reasoner=model, vlm_weights=weights)
        found = load_model(loaded)
    protocol = Protocol(shots, templates.value, form.value, oracle, numbered, free, permute)
    with ProgressBar(errors) as progress:
        result = run_mmad(
            data,
            InWords(found) if free else ByLetter(found),
            protocol,
            products=names(products),
            tasks=names(tasks),
            limit=limit,
            weights=weights_identity(loaded),
            out=out,
            progress=progress,
        )
    print_line(render(result))


def bench_mmad_make(
    data: Annotated[Path, typer.Option("--data", help="Labelled data set, one tree per product.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the set.")],
    products: Annotated[str, typer.Option("--products", help="Whose pictures to ask about, comma-separated.")],
    good: Annotated[int, typer.Option("--good", min=0, help="Good test pictures of each product at most.")] = 40,
    defective: Annotated[int, typer.Option("--defective", min=1, help="Defective ones of each type at most.")] = 12,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Of each type set aside, never asked about.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="Of every draw.")] = 0,
) -> None:
    """Make a set in MMAD's layout from labelled pictures and the pages about their products."""
    from ..benchmarks.mmad.making import Plan, make_questions
    from ..benchmarks.untouched import untouched_tests
    from ..tools.knowledge.builder import shipped_documents

    plan = Plan(tuple(names(products) or ()), good=good, defective=defective, examples=examples, seed=seed)
    with untouched_tests(), status(make_console(stderr=True), hidden=False) as say:
        count = make_questions(data, out, plan, shipped_documents(), say)
    print_line(f"{count} questions in {out}")


def names(text: str | None) -> list[str] | None:
    """Comma-separated names, None for none."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else None


def tell_result(text: str, out: Path | None) -> None:
    """Print a benchmark's page, and keep it in its folder."""
    from ..agent.home import storage_errors

    print_line(text)
    if out is not None:
        with storage_errors(out):
            (out / "results.md").write_text(text + "\n", encoding="utf-8")
