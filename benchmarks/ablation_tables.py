"""The ladder's tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..agent.vision_language.latent.settings import MOST_CUT
from ..training.questions import TASKS
from .ablation_stress import LATENT, GoodsRow, StressRow
from .mmad.arms import Arm
from .mmad.scoring import Scores
from .mmad.statistics import Flips, Interval, bootstrap_difference, flips, holm
from .mmad.tables import SHORT, Summary, interval, markdown, number, seconds, summarise

Lines = Sequence[Mapping[str, Any]]
EXPLAINED = (
    "Strict accuracy in percent, mean over subtasks (detection: mean over good and defective parts), with 95% "
    "bootstrap intervals over pictures. p: exact McNemar test against the row named, after Holm over all rows."
)


def render(result: Mapping[str, Any]) -> str:
    """A result of ``run_ablation`` as Markdown."""
    rows = {name: summarise(name, lines) for name, lines in result["lines"].items()}
    rows |= {name: summarise(name, lines) for name, lines in result["baselines"].items()}
    asked = f"{result['questions']} questions about {result['images']} pictures"
    part = "" if result["whole"] else ", a part of the set"
    parts = [
        f"{result['title']}, {result['model']}: {asked}{part}.",
        EXPLAINED,
        ladder_table(result["arms"], rows, result["missing"], result["baselines"]),
        "By subtask:",
        task_table(result["arms"], rows, result["baselines"]),
        "How sure the answers were, and what they cost:",
        cost_table(result["arms"], rows, result["lines"], result["peaks"]),
    ]
    if latent := thought_table(result["lines"]):
        parts += ["Latent reasoning and its controls before the guards:", latent]
    if "A0" in result["lines"] and "A5" in result["lines"]:
        gain = bootstrap_difference(result["lines"]["A0"], result["lines"]["A5"])
        parts.append(f"A5 against A0: {signed(gain)} points.")
    if result["stress"]:
        parts += ["A5 with false evidence:", stress_table(result["stress"])]
    if result["goods"]:
        parts += [
            "Good reference pictures called defective, each asked about in both orders of yes and no:",
            goods_table(result["goods"]),
        ]
        parts += [cut_line(row) for row in result["goods"] if row.cut]
    return "\n\n".join(parts)


def ladder_table(
    arms: Sequence[Arm], rows: Mapping[str, Summary], missing: Mapping[str, str], baselines: Mapping[str, Lines]
) -> str:
    """Each row with its gain over the row it is compared with."""
    compared: dict[str, tuple[Interval, Flips]] = {}
    for arm in arms:
        if arm.against is not None and arm.against in rows and arm.name in rows:
            before, after = rows[arm.against].lines, rows[arm.name].lines
            compared[arm.name] = (bootstrap_difference(before, after), flips(before, after))
    corrected = dict(zip(compared, holm([found.p for _, found in compared.values()]), strict=True))
    body = [[name, "", *_accuracy(rows[name]), *[""] * 5] for name in baselines]
    for arm in arms:
        if arm.name in missing:
            body.append([arm.name, f"{arm.what}: {missing[arm.name]}", *[""] * 8])
            continue
        row = rows[arm.name]
        gain, flipped = compared.get(arm.name, (None, None))
        cells = _gain(arm, gain, flipped, corrected.get(arm.name))
        body.append([arm.name, arm.what, *_accuracy(row), *cells])
    head = ["", "what", "accuracy", "good called bad", "bad called good", "against", "gain", "wrong to right"]
    return markdown([*head, "right to wrong", "p"], body)


def _accuracy(row: Summary) -> list[str]:
    strict: Scores = row.strict
    overkill = [value for value in strict.overkill.values() if value is not None]
    miss = [value for value in strict.miss.values() if value is not None]
    found = f"{row.interval.value:.1f} [{row.interval.low:.1f}, {row.interval.high:.1f}]"
    return [found, *(number(sum(each) / len(each) if each else None) for each in (overkill, miss))]


def _gain(arm: Arm, gain: Interval | None, flipped: Flips | None, p: float | None) -> list[str]:
    if gain is None or flipped is None or p is None:
        return ["", "", "", "", ""]
    return [str(arm.against), signed(gain), str(flipped.gained), f"{flipped.lost} (net {flipped.net:+d})", f"{p:.2g}"]


def signed(gain: Interval) -> str:
    """A difference with its sign and interval."""
    return f"{gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"


def task_table(arms: Sequence[Arm], rows: Mapping[str, Summary], baselines: Mapping[str, Lines]) -> str:
    """Accuracy by subtask."""
    names = [*baselines, *(arm.name for arm in arms if arm.name in rows)]
    tasks = [task for task in TASKS if any(task in rows[name].strict.by_task for name in names)]
    body = [[name, *(number(rows[name].strict.by_task.get(task)) for task in tasks)] for name in names]
    return markdown(["", *(SHORT[task] for task in tasks)], body)


def cost_table(
    arms: Sequence[Arm],
    rows: Mapping[str, Summary],
    lines: Mapping[str, Lines],
    peaks: Mapping[str, float | None],
) -> str:
    """Calibration, selective risk, whether entropy predicts errors, time, memory, calls, prompt."""
    body = []
    for arm in arms:
        if arm.name not in lines:
            continue
        row, answers = rows[arm.name], lines[arm.name]
        calls = sum(int(line.get("calls", 1)) for line in answers) / len(answers)
        prompts = [int(line["usage"]["prompt_tokens"]) for line in answers if line["usage"].get("prompt_tokens")]
        tokens = number(sum(prompts) / len(prompts), 0) if prompts else "-"
        sure = [interval(row.entropy_auroc), number(row.ece, 3), number(row.aurc, 3)]
        positions = number(sum(int(line["positions"]) for line in answers) / len(answers), 0)
        cost = [number(peaks.get(arm.name), 0), f"{calls:.2f}", tokens, positions]
        body.append([arm.name, *sure, *seconds(row.seconds), *cost])
    head = ["", "AUROC of entropy for errors", "ECE", "AURC", "p50 ms", "p95 ms", "peak MB", "calls", "prompt tokens"]
    head.append("positions")
    return markdown(head, body)


def thought_table(lines: Mapping[str, Lines]) -> str:
    """What think tokens proposed, and what the guards let through."""
    body = []
    for name, answers in lines.items():
        thought = [line for line in answers if "proposal" in line]
        if not thought:
            continue
        proposed = [line for line in thought if line["proposal"] is not None]
        other = [line for line in proposed if line["proposal"] != line["base"]]
        accepted = sum(bool(line["accepted"]) for line in thought)
        good = sum(line["proposal"] == line["truth"] for line in other)
        bad = sum(line["base"] == line["truth"] for line in other)
        flipped = sum(line["answer"] != line["base"] for line in thought)
        steps = sum(int(line["steps"]) for line in thought) / len(thought)
        counts = [len(proposed), len(other), good, bad, accepted, flipped]
        body.append([name, *map(str, counts), f"{steps:.1f}"])
    if not body:
        return ""
    head = ["", "proposals", "of another letter", "to right", "from right", "accepted", "answers changed", "steps"]
    return markdown(head, body)


def stress_table(rows: Sequence[StressRow]) -> str:
    """What false evidence did."""
    body = [
        [
            row.name,
            str(row.questions),
            f"{row.accuracy[0]:.1f} -> {row.accuracy[1]:.1f}",
            f"{row.confidence[0]:.3f} -> {row.confidence[1]:.3f}",
            f"{row.change.value:+.3f} [{row.change.low:+.3f}, {row.change.high:+.3f}]",
            f"{row.changed:.1f}",
            f"{row.objections[0]} -> {row.objections[1]} of {row.checked}",
            row.outcome,
        ]
        for row in rows
    ]
    head = ["", "questions", "accuracy", "confidence", "change", "answers changed, %", "verifier objects", "outcome"]
    return markdown(head, body)


def cut_line(row: GoodsRow) -> str:
    """How many searches about good references were cut off, and what that means for inspections."""
    said = f"{row.arm}: {row.cut} of {row.questions} searches were cut off for want of time or memory"
    measured = row.arm != LATENT or row.cut <= MOST_CUT * row.questions
    return f"{said}." if measured else f"{said}, too many to say what the search does: normals.json will be refused."


def goods_table(rows: Sequence[GoodsRow]) -> str:
    """How often good references are called defective, and how that changes."""
    body = []
    for row in rows:
        share = 100.0 * row.alarms / row.questions if row.questions else 0.0
        more = "" if row.against is None else f"{100.0 * (row.alarms - row.against) / max(1, row.questions):+.1f}"
        body.append([row.arm, str(row.questions), f"{row.alarms} ({share:.1f}%)", more])
    return markdown(["", "questions", "called defective", "points more than the row compared with"], body)
