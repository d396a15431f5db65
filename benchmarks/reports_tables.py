"""What is counted of inspected pictures with and without a model, and the tables of it as Markdown.

Shares of pictures come with exact binomial intervals (Clopper & Pearson 1934). Sentences of one report are no
independent draws: their share comes without. A share of nothing is None, and a dash in the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .detection_metrics import clopper_pearson
from .mmad.statistics import error_auroc
from .mmad.tables import markdown

EVIDENCE, MODEL = "evidence", "model"
ALL = "all"
DASH = "–"
MIN_EACH = 5
"""Right answers, and others, below which nothing is said of how well the entropy tells them apart."""
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Share:
    """So many of so many.

    Attributes:
        hits: that have it.
        of: that could have it.
    """

    hits: int
    of: int

    def plain(self, *, pictures: bool = True) -> dict[str, Any]:
        """JSON values: counts, the share and, for pictures, its 95% interval; None where there is nothing to share."""
        low, high = clopper_pearson(self.hits, self.of) if pictures and self.of else (None, None)
        return {
            "hits": self.hits,
            "of": self.of,
            "share": self.hits / self.of if self.of else None,
            "low": low,
            "high": high,
        }


def figures(records: Sequence[Record]) -> dict[str, Any]:
    """Everything that is counted.

    Args:
        records: of ``reports``, a picture each.

    Returns:
        Plain data: ``products`` (by name, and ``all`` of them: for ``evidence`` and ``model`` what `of_reasoner`
        gives) and ``together`` (`together`).
    """
    groups = {
        name: [r for r in records if r["product"] == name] for name in dict.fromkeys(r["product"] for r in records)
    }
    groups[ALL] = list(records)
    return {
        "products": {name: {who: of_reasoner(mine, who) for who in (EVIDENCE, MODEL)} for name, mine in groups.items()},
        "together": together(records),
    }


def of_reasoner(records: Sequence[Record], who: str) -> dict[str, Any]:
    """The figures of one reasoner.

    Args:
        records: a picture each.
        who: ``evidence`` or ``model``.

    Returns:
        ``usable_at_once``, ``usable_repaired`` and ``unusable`` of all pictures and ``sentences`` (kept of written),
        each None for a reasoner that does not say; ``decided`` of all and ``right`` of these; ``ng_of_good``,
        ``ok_of_defective``; ``named`` (a type, of NG pictures that are defective in a way with examples) and
        ``named_right`` of these; ``looked_again`` (pictures with retries), ``retries``, ``p50_s``, ``p95_s`` and
        ``entropy_auroc``: how well the entropy tells whether the answer, before the last check, was the truth.
    """
    truths = ["OK" if record["truth"] == "good" else "NG" for record in records]
    mine = [record[who] for record in records]
    pairs = list(zip(truths, mine, strict=True))
    decided = [(truth, each) for truth, each in pairs if each["verdict"] != "REVIEW"]
    ng = [r for r in records if r["nameable"] and r[who]["verdict"] == "NG"]
    named = [r for r in ng if r[who]["type"] not in (None, "unknown")]
    says = bool(mine) and all(each["usable"] is not None for each in mine)
    times = [each["seconds"] for each in mine]
    written = sum(each["written"] or 0 for each in mine)

    def count(test: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
        return Share(sum(map(test, mine)), len(mine)).plain() if says else None

    return {
        "pictures": len(mine),
        "usable_at_once": count(lambda each: each["usable"] and not each["repaired"]),
        "usable_repaired": count(lambda each: each["usable"] and each["repaired"]),
        "unusable": count(lambda each: not each["usable"]),
        "decided": Share(len(decided), len(pairs)).plain(),
        "right": Share(sum(truth == each["verdict"] for truth, each in decided), len(decided)).plain(),
        "ng_of_good": _wrong(pairs, "OK", "NG"),
        "ok_of_defective": _wrong(pairs, "NG", "OK"),
        "sentences": Share(sum(each["kept"] for each in mine), written).plain(pictures=False) if says else None,
        "named": Share(len(named), len(ng)).plain(),
        "named_right": Share(sum(r[who]["type"] == r["truth"] for r in named), len(named)).plain(),
        "looked_again": Share(sum(bool(each["retries"]) for each in mine), len(mine)).plain(),
        "retries": sum(len(each["retries"]) for each in mine),
        "p50_s": float(np.percentile(times, 50)) if times else None,
        "p95_s": float(np.percentile(times, 95)) if times else None,
        "entropy_auroc": _entropy_auroc(records, who),
    }


def _wrong(pairs: Sequence[tuple[str, Mapping[str, Any]]], truth: str, verdict: str) -> dict[str, Any]:
    of = [each for true, each in pairs if true == truth]
    return Share(sum(each["verdict"] == verdict for each in of), len(of)).plain()


def _entropy_auroc(records: Sequence[Record], who: str) -> dict[str, float] | None:
    """Of answers before the last check, which itself goes by the entropy; an answer REVIEW is not right."""
    asked = [
        {
            "image": record["picture"],
            "entropy": record[who]["entropy"],
            "correct": record[who]["said_verdict"] == ("OK" if record["truth"] == "good" else "NG"),
        }
        for record in records
        if record[who]["said_verdict"] is not None and record[who]["entropy"] is not None
    ]
    right = sum(each["correct"] for each in asked)
    if min(right, len(asked) - right) < MIN_EACH:
        return None
    found = error_auroc(asked)
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def together(records: Sequence[Record]) -> dict[str, Any]:
    """Both reasoners on the same pictures.

    Returns:
        ``both_decided``, of these ``same``, ``model_alone`` and ``evidence_alone`` (decided by the one and not by the
        other), ``model_wrong`` (wrong decisions of the model) and of these ``shared`` with the evidence reasoner.
    """
    pairs = [(r["truth"] == "good", r[EVIDENCE]["verdict"], r[MODEL]["verdict"]) for r in records]
    open_ = "REVIEW"
    wrong = [(theirs, ours) for good, theirs, ours in pairs if ours != open_ and (ours == "OK") != good]
    return {
        "both_decided": sum(open_ not in (theirs, ours) for _, theirs, ours in pairs),
        "same": sum(theirs == ours != open_ for _, theirs, ours in pairs),
        "model_alone": sum(theirs == open_ != ours for _, theirs, ours in pairs),
        "evidence_alone": sum(ours == open_ != theirs for _, theirs, ours in pairs),
        "model_wrong": len(wrong),
        "shared": sum(theirs == ours for theirs, ours in wrong),
    }


def render(result: Mapping[str, Any]) -> str:
    """A result of ``run_reports`` as Markdown."""
    counted = result["figures"]["products"]
    names = list(counted) if len(counted) > 2 else [ALL]
    rows = [(name, who, counted[name][who]) for name in names for who in (EVIDENCE, MODEL)]
    return "\n\n".join(
        [
            _about(result),
            "What could be read, what was kept of it, and what it took:",
            _usable_table([(name, found) for name, who, found in rows if who == MODEL]),
            "What was decided, with 95% intervals (Clopper-Pearson) over pictures:",
            _decided_table(rows),
            "Types and further looks:",
            _looks_table(rows),
            *_sentences(result["figures"]),
        ]
    )


def _about(result: Mapping[str, Any]) -> str:
    records = result["records"]
    good = sum(record["truth"] == "good" for record in records)
    taught = "; ".join(
        f"{each['product']}: {each['references']} references"
        + (f", {result['examples']} examples at most of {', '.join(each['types'])}" if each["types"] else "")
        for each in result["drawn"]
    )
    left = f" Left out for want of references: {', '.join(result['left_out'])}." if result["left_out"] else ""
    return (
        f"{result['title']}, {result['reasoner']} ({result['model']}): {len(records)} pictures, {good} good and "
        f"{len(records) - good} defective, seed {result['seed']}. {taught}.{left}"
    )


def _usable_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    head = ["", "pictures", "usable at once", "after one repair", "unusable", "sentences kept", "entropy's AUROC"]
    body = [
        [
            name,
            str(found["pictures"]),
            *(share(found[key]) for key in ("usable_at_once", "usable_repaired", "unusable", "sentences")),
            _auroc(found["entropy_auroc"]),
        ]
        for name, found in rows
    ]
    return markdown(head, body)


def _decided_table(rows: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    head = ["", "reasoner", "decided", "of these rightly", "NG of good", "OK of defective"]
    keys = ("decided", "right", "ng_of_good", "ok_of_defective")
    return markdown(head, [[name, who, *(share(found[key]) for key in keys)] for name, who, found in rows])


def _looks_table(rows: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    head = ["", "reasoner", "type named in NG", "of these rightly", "looked again", "retries", "p50 s", "p95 s"]
    body = []
    for name, who, found in rows:
        shares = [share(found[key]) for key in ("named", "named_right", "looked_again")]
        times = [DASH if found[key] is None else f"{found[key]:.2f}" for key in ("p50_s", "p95_s")]
        body.append([name, who, *shares, str(found["retries"]), *times])
    return markdown(head, body)


def _sentences(counted: Mapping[str, Any]) -> list[str]:
    both = counted["together"]
    return [
        f"Decided by both: {both['both_decided']}, {both['same']} of them alike; by the model alone "
        f"{both['model_alone']}, by the evidence reasoner alone {both['evidence_alone']}. Wrong decisions of the "
        f"model: {both['model_wrong']}, {both['shared']} of them the evidence reasoner's too."
    ]


def share(found: Mapping[str, Any] | None) -> str:
    """``38/49 = 77.6% [63.4, 88.2]``, without brackets where there is no interval; a dash for a share of nothing."""
    if found is None or found["share"] is None:
        return DASH
    text = f"{found['hits']}/{found['of']} = {100 * found['share']:.1f}%"
    return text if found["low"] is None else f"{text} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _auroc(found: Mapping[str, float] | None) -> str:
    return DASH if found is None else f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
