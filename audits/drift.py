"""Whether the scores have moved away from what enrolment saw: one test a batch, one alarm level for all of them.

The references were scored at enrolment, each against the others. As long as light, camera and material stay as they
were, the parts of a batch score like them. Two things are tested, each with half of the batch's level: whether the
batch scores higher or lower (two-sample Cramér-von Mises test; Anderson 1962, "On the distribution of the two-sample
Cramér-von Mises criterion", Annals of Mathematical Statistics 33), to which a change of spread is nearly invisible,
and whether as many parts as expected lie between the quartiles of the references (an exact test of coverage; Wilks
1941, "Determination of sample sizes for setting tolerance limits", Annals of Mathematical Statistics 12). Falling
scores (a dirty lens) let defects escape as rising ones reject good parts, so both ways alarm.

Batches come one after the other, so the level is spent over them: batch k alarms at ``level / (k (k + 1))``. These add
up to ``level`` however many follow; by the union bound an audit of a product that has not drifted alarms with a
probability of at most ``level``, although every batch is compared with the same references, and an alarm once raised
does not depend on batches that came later.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import ConfigError
from ..tools.ad_expert.calibration import centre_and_spread
from ..tools.product_files import stored_calibration
from .records import AuditRecord

LEVEL = 0.01
"""Probability that the audit of a product alarms although nothing has drifted."""
MIN_REFERENCES = 5
"""With fewer there is next to nothing to compare with."""
MIN_PARTS = 20
"""Smaller batches are not tested: they could only show what everybody sees."""
WINDOW = 100
"""Lines of a batch where no lots are given."""
VIEW = "raw_whole"
"""The score that every inspection takes, in the unit of the calibration; image_score mixes the further looks."""

Quartiles = tuple[float, float, float]


@dataclass(frozen=True)
class Enrolment:
    """What the references of a product scored, each against the others.

    Attributes:
        product: its name.
        fingerprint: of its files, as records name it.
        scores: of the whole picture, raw.
    """

    product: str
    fingerprint: str
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Batch:
    """One batch against the references. Scores are in spreads of good parts, 0 is the references' median.

    Attributes:
        number: from 1, in the order of the worklist.
        lot: as given; None where the batch is a window of the worklist.
        station: as given.
        first_line: number of its first line in the worklist.
        parts: that were compared.
        left_out: lines without a score, labelled defective, or with a picture that the batch holds already.
        quartiles: first, median and third, None without parts.
        p_value: of the test; None when there were too few parts.
        level: at or below which the p-value alarms; None when there were too few parts.
        alarm: None when there were too few parts.
    """

    number: int
    lot: str | None
    station: str | None
    first_line: int
    parts: int
    left_out: int
    quartiles: Quartiles | None
    p_value: float | None
    level: float | None
    alarm: bool | None


@dataclass(frozen=True)
class ProductDrift:
    """The batches of one product.

    Attributes:
        product: its name, None for lines without a product.
        references: that it was enrolled with.
        quartiles: of the references, in spreads; None when there was nothing to compare with.
        level: of the alarm over all batches.
        batches: in the order of the worklist.
        alarm: whether any batch alarmed; None when none could be tested.
        reason: why none could be tested, empty otherwise.
    """

    product: str | None
    references: int
    quartiles: Quartiles | None
    level: float
    batches: tuple[Batch, ...]
    alarm: bool | None
    reason: str


def read_enrolment(products: Path, name: str) -> Enrolment:
    """What a product's references scored.

    Args:
        products: the folder of all products.
        name: of this one.

    Raises:
        ConfigError: the name cannot be one.
        ProductError: there is no such product, or it is damaged.
    """
    calibration, fingerprint = stored_calibration(products, name)
    column = calibration.views.index(VIEW.removeprefix("raw_"))
    return Enrolment(name, fingerprint, tuple(float(score) for score in calibration.scores[:, column]))


def find_drift(
    records: Iterable[AuditRecord], enrolments: Mapping[str, Enrolment | str], *, level: float = LEVEL
) -> tuple[ProductDrift, ...]:
    """Compare each batch (a lot at a station, or else ``WINDOW`` lines of a station) with its product's references.

    Parts labelled defective are left out; parts that the inspection itself calls NG are not, or a change that makes
    every part NG would go unseen. Without labels a large share of defects may therefore alarm too. A picture counts
    once in a batch. Memory grows by some 100 bytes a record.

    Args:
        records: of an audit, in its order.
        enrolments: by product; products that are not among them are not tested, nor those with a reason instead.
        level: of the alarm over all batches of a product, in (0, 1).

    Raises:
        ConfigError: the level is none.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError("the level of the alarm is a probability between 0 and 1, such as 0.01.")
    open_batches: dict[str | None, _Batches] = {}
    for record in records:
        open_batches.setdefault(record.line.product, _Batches()).add(record)
    return tuple(
        _judged(product, batches, enrolments.get(product or ""), level) for product, batches in open_batches.items()
    )


def compare_scores(references: NDArray[np.float64], parts: NDArray[np.float64]) -> float:
    """p-value of the hypothesis that references and parts score alike; it depends on their ranks alone.

    Args:
        references: (n,) scores.
        parts: (m,) scores.

    Returns:
        Twice the smaller p-value of the two tests, at most 1.
    """
    order = np.argsort(_ranks(np.concatenate([references, parts])))
    of_reference = order < len(references)
    places = np.arange(1.0, len(order) + 1.0)
    both = _p_of_place(places[of_reference], places[~of_reference]), _p_of_spread(of_reference)
    return min(1.0, 2.0 * min(both))


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Ranks from 0; equal scores get theirs by lot (always the same one), as the tests need them to differ."""
    lot = np.random.default_rng(0).random(len(scores))
    ranks = np.empty(len(scores), np.int64)
    ranks[np.lexsort((lot, scores))] = np.arange(len(scores))
    return ranks


def _p_of_place(references: NDArray[np.float64], parts: NDArray[np.float64]) -> float:
    """The limiting distribution for any size: for few references it errs to the safe side in the tail that matters."""
    from scipy.stats import cramervonmises_2samp

    return float(cramervonmises_2samp(references, parts, method="asymptotic").pvalue)


def _p_of_spread(of_reference: NDArray[np.bool_]) -> float:
    """Exact: the share between two order statistics is Beta, so the number of parts there is Beta-binomial.

    Args:
        of_reference: (n + m,) in the order of the scores, whether each belongs to a reference.
    """
    from scipy.special import betaln, gammaln

    places = np.flatnonzero(of_reference)
    count = len(places)
    beyond = max(1, round((count + 1) / 4))  # references on each side that bound the middle half
    low, high = int(places[beyond - 1]), int(places[count - beyond])
    inside = int((~of_reference[low:high]).sum())
    parts, a, b = len(of_reference) - count, count + 1 - 2 * beyond, 2 * beyond
    k = np.arange(parts + 1.0)
    chosen = gammaln(parts + 1) - gammaln(k + 1) - gammaln(parts - k + 1)
    chance = np.exp(chosen + betaln(k + a, parts - k + b) - betaln(a, b))
    return min(1.0, 2.0 * min(float(chance[: inside + 1].sum()), float(chance[inside:].sum())))


def batch_level(level: float, number: int) -> float:
    """What the ``number``-th tested batch may spend of the level; over all numbers this adds up to the level."""
    return level / (number * (number + 1))


def score_of(record: AuditRecord) -> float | None:
    """The raw score of the whole picture, None where nothing was compared with references."""
    if record.report is None:
        return None
    for item in record.report.get("evidence", ()):
        if VIEW in item.get("values", {}):
            return float(item["values"][VIEW])
    return None


@dataclass
class _OpenBatch:
    lot: str | None
    station: str | None
    first_line: int
    scores: array[float] = field(default_factory=lambda: array("d"))
    seen: set[int] = field(default_factory=set)
    left_out: int = 0


@dataclass
class _Batches:
    """The batches of a product while its records pass by."""

    batches: dict[tuple[str | None, str | None, int], _OpenBatch] = field(default_factory=dict)
    without_lot: dict[str | None, int] = field(default_factory=dict)
    fingerprints: set[str | None] = field(default_factory=set)

    def add(self, record: AuditRecord) -> None:
        line, window = record.line, 0
        if line.lot is None:
            count = self.without_lot.get(line.station, 0)
            self.without_lot[line.station] = count + 1
            window = count // WINDOW
        key = (line.lot, line.station, window)
        batch = self.batches.setdefault(key, _OpenBatch(line.lot, line.station, line.number))
        score = score_of(record)
        picture = int((record.sha256 or "0")[:16], 16)
        if score is None or line.expected == "NG" or picture in batch.seen:
            batch.left_out += 1
            return
        self.fingerprints.add(record.versions.get("product"))
        batch.seen.add(picture)
        batch.scores.append(score)


def _judged(product: str | None, found: _Batches, enrolment: Enrolment | str | None, level: float) -> ProductDrift:
    reason = _why_not(found, enrolment)
    references = np.asarray(enrolment.scores if isinstance(enrolment, Enrolment) else (), np.float64)
    centre, spread = (0.0, 1.0) if reason else (float(v[0]) for v in centre_and_spread(references[:, None]))
    quartiles = None if reason else _quartiles((references - centre) / spread)
    batches, tested = [], 0
    for number, batch in enumerate(found.batches.values(), start=1):
        scores = (np.asarray(batch.scores, np.float64) - centre) / spread
        p_value = own_level = alarm = None
        if not reason and len(scores) >= MIN_PARTS:
            tested += 1
            own_level = batch_level(level, tested)
            p_value = compare_scores((references - centre) / spread, scores)
            alarm = p_value <= own_level
        shown = None if reason else _quartiles(scores)
        place = (number, batch.lot, batch.station, batch.first_line, len(scores), batch.left_out)
        batches.append(Batch(*place, shown, p_value, own_level, alarm))
    if not reason and not tested:
        reason = f"no batch has {MIN_PARTS} parts to compare"
    alarmed = any(batch.alarm for batch in batches) if tested else None
    return ProductDrift(product, len(references), quartiles, level, tuple(batches), alarmed, reason)


def _why_not(found: _Batches, enrolment: Enrolment | str | None) -> str:
    if isinstance(enrolment, str):
        return enrolment
    if enrolment is None:
        return "no enrolled product to compare with"
    if len(enrolment.scores) < MIN_REFERENCES:
        return f"{len(enrolment.scores)} references; {MIN_REFERENCES} are the least to compare with"
    if not found.fingerprints:
        return "no line has a score"
    if found.fingerprints - {enrolment.fingerprint}:
        return "the product was enrolled anew since, or several times during the audit"
    return ""


def _quartiles(scores: NDArray[np.float64]) -> Quartiles | None:
    if not len(scores):
        return None
    first, median, third = (float(value) for value in np.quantile(scores, (0.25, 0.5, 0.75)))
    return first, median, third
