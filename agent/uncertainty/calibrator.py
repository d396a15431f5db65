"""From signs of doubt to P(correct): a small linear model in a JSON file that can be read by eye.

A sign that is not known is never taken for 0: it counts as the calibration's mean, with a weight of its own for not
being known, and a combination of known and unknown signs that the calibration did not see gives no probability at all.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from ..errors import ConfigError, WeightsError
from ..home import write_json_atomically
from .features import FEATURES, Signs, signs_of_doubt
from .records import Answered
from .thresholds import Threshold, default_threshold, target_error

FORMAT: Literal["flawscope-calibrator"] = "flawscope-calibrator"
VERSION: Literal[1] = 1
MAX_BYTES = 4_000_000
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Weighed(BaseModel):
    """One sign of doubt and its weight.

    Attributes:
        name: of ``FEATURES``.
        mean: over the answers of the calibration where it was known.
        scale: its spread there, above 0.
        weight: added to the log-odds of being right, per spread.
        unknown_weight: added where it is not known; None where it always was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["entropy", "semantic_entropy", "disagreement", "permutation", "retrieval"]
    mean: FiniteFloat
    scale: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    weight: FiniteFloat
    unknown_weight: FiniteFloat | None


class Task(BaseModel):
    """What was learnt about one kind of question.

    Attributes:
        weight: added to the log-odds.
        patterns: combinations of signs seen in the calibration, ``1`` for known and ``0`` for unknown in the order of
            the calibrator's signs.
        threshold: of the doubt that an answer may carry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: FiniteFloat
    patterns: tuple[str, ...]
    threshold: Threshold


class Calibrator(BaseModel):
    """P(correct) of answers.

    Attributes:
        inputs_sha256: of the logs that it was fitted to.
        products: in them; no figure may be measured on these.
        model: whose answers they are.
        answers: how many.
        temperature: of the options' probabilities, fitted first; None where it could not be.
        signs: with their weights.
        intercept: log-odds of being right when every sign is at its mean.
        tasks: by name.
        steps: thresholds and rates of an isotonic regression over the linear model's P; None without one.
        similarities: of the nearest documents in the calibration, sorted, thinned to percentiles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["flawscope-calibrator"] = FORMAT
    version: Literal[1] = VERSION
    inputs_sha256: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...]
    products: tuple[Name, ...]
    model: str
    answers: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None
    signs: Annotated[tuple[Weighed, ...], Field(min_length=1)]
    intercept: FiniteFloat
    tasks: dict[Name, Task]
    steps: tuple[tuple[FiniteFloat, FiniteFloat], ...] | None = None
    similarities: tuple[FiniteFloat, ...] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        names = [sign.name for sign in self.signs]
        if len(set(names)) != len(names):
            raise ValueError("a sign is weighed twice")
        if any(
            len(pattern) != len(names) or set(pattern) - {"0", "1"}
            for t in self.tasks.values()
            for pattern in t.patterns
        ):
            raise ValueError("a pattern does not fit the signs")
        if any(a > b for a, b in zip(self.similarities, self.similarities[1:], strict=False)):
            raise ValueError("similarities are not sorted")
        for earlier, later in zip(self.steps or (), (self.steps or ())[1:], strict=False):
            if earlier[0] > later[0] or earlier[1] > later[1]:
                raise ValueError("steps do not rise")
        if any(not 0.0 <= rate <= 1.0 for _, rate in self.steps or ()):
            raise ValueError("a rate is outside of [0, 1]")
        return self

    @property
    def sha256(self) -> str:
        """Of its content."""
        return content_sha256(self.model_dump(mode="json"))

    def p_correct(self, answered: Answered) -> float | None:
        """Probability that an answer is right; None where the calibration saw no such answers.

        That is so for another task, and for a combination of known and unknown signs that it never had.
        """
        task = self.tasks.get(answered.task)
        if task is None:
            return None
        signs = signs_of_doubt(answered, self.temperature, self.similarities)
        if pattern_of(signs, [sign.name for sign in self.signs]) not in task.patterns:
            return None
        odds = self.intercept + task.weight
        for sign in self.signs:
            value = signs[sign.name]
            if value is not None:
                odds += sign.weight * (value - sign.mean) / sign.scale
            elif sign.unknown_weight is not None:
                odds += sign.unknown_weight
        linear = 1.0 / (1.0 + math.exp(-min(700.0, max(-700.0, odds))))
        if self.steps is None:
            return linear
        return float(np.interp(linear, [x for x, _ in self.steps], [rate for _, rate in self.steps]))

    def threshold(self, task: str) -> Threshold:
        """Of the doubt that answers of a task may carry; the defaults for a task that it does not know."""
        known = self.tasks.get(task)
        return default_threshold(target_error(task)) if known is None else known.threshold

    def refuse_model(self, name: str) -> None:
        """Refuse to judge another model's answers.

        Raises:
            ConfigError: it was fitted to those of another one.
        """
        if name != self.model:
            raise ConfigError(
                f"the calibrator was fitted to the answers of {self.model!r}, and these are of {name!r}.",
                hint="Fit one to this reasoner's reports: flawscope bench calibrate REPORTS --out FILE.",
            )

    def refuse_products(self, products: Sequence[str]) -> None:
        """Refuse to measure on products that it was fitted to.

        Raises:
            ConfigError: there is one.
        """
        refuse_overlap(self.products, products)

    def save(self, path: Path) -> None:
        """Write the file; the same calibration gives the same bytes.

        Raises:
            StorageError: the disk refuses.
        """
        write_json_atomically(path, {**self.model_dump(mode="json"), "sha256": self.sha256})


def pattern_of(signs: Signs, names: Sequence[str]) -> str:
    """Which signs are known, ``1`` or ``0`` each."""
    return "".join("0" if signs[name] is None else "1" for name in names)


def refuse_overlap(calibration: Sequence[str], test: Sequence[str]) -> None:
    """Refuse a split that shares products.

    Raises:
        ConfigError: it does.
    """
    shared = sorted(set(calibration) & set(test))
    if shared:
        raise ConfigError(
            f"calibration and test share {len(shared)} product(s): {', '.join(shared[:5])}.",
            hint="Figures on products that a calibrator has seen say nothing; split by product.",
        )


def content_sha256(content: dict[str, Any]) -> str:
    """Hash of JSON content, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def load_calibrator(path: Path) -> Calibrator:
    """Read a calibrator's file.

    Raises:
        WeightsError: it is missing, no calibrator, of another version, or was changed since it was written.
    """
    again = "Fit it again: flawscope bench calibrate LOG --out FILE."
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path} is too large for a calibrator.", hint=again)
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"the calibrator {path} cannot be read: {error.strerror or error}.", hint=again) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON
        raise WeightsError(f"{path} is no calibrator.", hint=again) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise WeightsError(f"{path} is no calibrator.", hint=again)
    if content.get("version") != VERSION:
        raise WeightsError(
            f"the calibrator {path} has version {content.get('version')!r:.20}, not {VERSION}.", hint=again
        )
    stated = content.pop("sha256", None)
    try:
        calibrator = Calibrator.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WeightsError(f"the calibrator {path} is damaged: {where} {first['msg']}.", hint=again) from error
    if calibrator.sha256 != stated:
        raise WeightsError(f"the calibrator {path} was changed since it was fitted.", hint=again)
    return calibrator


def known_features(names: Sequence[str]) -> tuple[str, ...]:
    """Names of signs in their fixed order.

    Raises:
        ConfigError: one is unknown, or there is none.
    """
    unknown = [name for name in names if name not in FEATURES]
    if unknown or not names:
        raise ConfigError(f"unknown sign of doubt {unknown[:1] or 'none'}.", hint=f"Known: {', '.join(FEATURES)}.")
    return tuple(name for name in FEATURES if name in names)
