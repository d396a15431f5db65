"""``audit page`` as a shell sees it: what is written, what is printed, and the exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from audit_records import made, written
from page_audit import page_audit

from flawscope.audits.drift import read_enrolment


def index_of(path: Path) -> dict[str, Any]:
    """What the page's script reads first."""
    found = re.search(r'id="audit">([^<]*)<', path.read_text(encoding="utf-8"))
    assert found is not None
    index: dict[str, Any] = json.loads(found[1])
    return index


def test_the_page_lies_beside_the_records(cli) -> None:
    page_audit(cli.folder / "shift", 30, side_px=48, pictures=3, products=3)
    done = cli("audit", "page", "shift")
    assert done.code == 0
    size = (cli.folder / "shift" / "page.html").stat().st_size / 1e6
    assert done.out.splitlines() == [
        f"shift/page.html: {size:.1f} MB, 30 records, 30 with a thumbnail, 0 with a large view"
    ]
    reasons = sorted(each["reason"] for each in index_of(cli.folder / "shift" / "page.html")["drift"])
    assert reasons == [f"'plate {number}' cannot name a product" for number in range(3)]


def test_the_page_goes_where_it_is_told_and_keeps_to_its_size(cli) -> None:
    page_audit(cli.folder / "shift", 30, side_px=48, pictures=3)
    done = cli("audit", "page", "shift/records.jsonl", "--out", "out/shift.html", "--max-mb", "1")
    assert done.code == 0
    assert (cli.folder / "out" / "shift.html").stat().st_size < 1_000_000
    assert not (cli.folder / "shift" / "page.html").exists()


def test_drift_is_on_the_page(cli) -> None:
    enrolment = read_enrolment(cli.home / "products", "plate")
    scores = [10 + score for score in enrolment.scores] * 3
    records = [
        made(number, score=score, product="plate", versions={"product": enrolment.fingerprint})
        for number, score in enumerate(scores, start=1)
    ]
    written(cli.folder / "shift", records)
    assert cli("audit", "page", "shift").code == 0
    (drift,) = index_of(cli.folder / "shift" / "page.html")["drift"]
    assert drift["alarm"] is True
    assert drift["references"] == len(enrolment.scores)


def test_what_is_no_audit_is_refused(cli) -> None:
    cli("audit", "page", "nowhere").refused(4, "nowhere")
    page_audit(cli.folder / "shift", 3, side_px=48, pictures=1)
    cli("audit", "page", "shift", "--out", "shift/records.jsonl/page.html").refused(10)
    cli("audit", "page", "shift", "--max-mb", "0").refused(2, "--max-mb")
