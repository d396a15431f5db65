"""One answered question as a line of JSON, with all that can be known about how sure the answer was.

Benchmarks write these lines, a calibrator is fitted to them. What is not known is null, never 0. Further fields of a
line are left alone, so that a benchmark may log more.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InputError

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
DETECTION = "detection"
"""The task whose answer is whether the part is defective."""
_SAME_TASK = {"anomaly_detection": DETECTION, "defect_detection": DETECTION, "verdict": DETECTION}


def task_name(name: str) -> str:
    """A task's name in one spelling: ``Anomaly Detection`` is ``detection``, ``Defect Analysis`` ``defect_analysis``.

    Names follow MMAD's subtasks; the yes/no question about a defect is ``detection`` wherever it is asked.
    """
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return _SAME_TASK.get(slug, slug)


class Answered(BaseModel):
    """What is known about one answer before anyone says whether it is right.

    Attributes:
        task: which kind of question; see ``task_name``.
        product: what the part is; calibration and test share no product.
        model: who answered; a calibrator is one model's.
        answer: the option's letter or the verdict; None when the reply named none.
        probabilities: of each option, adding up to 1, before any temperature; None without token probabilities.
        mass: share of the whole probability that fell on the options.
        entropy: normalised entropy of the options, when the probabilities themselves were not kept.
        p_defect: the model's probability that the part is defective; None where that was not asked.
        s_cal: the expert's calibrated probability of a defect; None without calibration.
        retrieval_similarity: cosine of the nearest document, None when nothing was looked for or found.
        permuted: answers to the same question with its options in another order, mapped back; None inside where such a
            reply named no option. Empty when it was not asked again.
        samples: what was meant by answers drawn at a temperature, equal texts for equal meanings, None inside where a
            draw had no meaning. Empty without draws.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: Annotated[str, Field(min_length=1)]
    product: Annotated[str, Field(min_length=1)]
    model: str = ""
    answer: str | None = None
    probabilities: dict[str, Share] | None = None
    mass: Share | None = None
    entropy: Share | None = None
    p_defect: Share | None = None
    s_cal: Share | None = None
    retrieval_similarity: Annotated[float, Field(ge=-1.0001, le=1.0001, allow_inf_nan=False)] | None = None
    permuted: tuple[str | None, ...] = ()
    samples: tuple[str | None, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _spell_the_task(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("task"), str):
            return {**value, "task": task_name(value["task"])}
        return value

    @model_validator(mode="after")
    def _is_a_distribution(self) -> Self:
        shares = self.probabilities
        if shares is not None and (len(shares) < 2 or not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-3)):
            raise ValueError("probabilities are of two options at least and add up to 1")
        return self


class AnswerRecord(Answered):
    """An answer that somebody has checked: a line of a log.

    Attributes:
        id: of the question, unique within its log.
        dataset: where the picture is from.
        truth: the right option or verdict.
        correct: whether the answer is that.
    """

    id: str = ""
    dataset: str = ""
    truth: str | None = None
    correct: bool


@dataclass(frozen=True)
class AnswerLog:
    """A file of answers.

    Attributes:
        records: its lines.
        sha256: of the file.
    """

    records: tuple[AnswerRecord, ...]
    sha256: str


def read_log(path: Path) -> AnswerLog:
    """Read a file of one JSON object a line; empty lines are passed over.

    Raises:
        InputError: it cannot be read, a line is no answer, or it holds none.
    """
    try:
        blob = path.read_bytes()
        lines = blob.decode("utf-8").split("\n")  # other line breaks may stand in a text
    except OSError as error:
        raise InputError(
            f"the log {path} cannot be read: {error.strerror or error}.", hint="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"the log {path} is not UTF-8 text.", hint="It must be a per-item log of a benchmark."
        ) from error
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not records:
        raise InputError(f"the log {path} holds no answers.", hint="Run the benchmark first.")
    return AnswerLog(tuple(records), hashlib.sha256(blob).hexdigest())


def _record(path: Path, number: int, line: str) -> AnswerRecord:
    try:
        return AnswerRecord.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise InputError(f"line {number} of {path} is no answer: {where}: {first['msg']}.") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"line {number} of {path} is not JSON.", hint="Was the log cut off? Remove that line."
        ) from error


def products_of(records: Sequence[AnswerRecord]) -> tuple[str, ...]:
    """The products, sorted."""
    return tuple(sorted({record.product for record in records}))
