"""``audit export``, ``summary``, ``diff`` and ``drift`` as a shell sees them: what is printed, and the exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from audit_records import made, written
from fakes import enlarged, texture, with_square
from inline_engine import InlineEngine
from PIL import Image

from flawscope.audits import runner
from flawscope.audits.drift import read_enrolment
from flawscope.audits.records import AuditRecord
from flawscope.audits.rle import decode_mask

SHIFT = [
    made(1, product="plate", lot="L1", label="good"),
    made(2, "NG", kind="dent", score=7.0, product="plate", lot="L1", label="dent"),
    made(3, "REVIEW", score=2.5, product="plate", lot="L2", label="dent"),
    made(4, error="input", product="plate", lot="L2"),
]


def like_the_references(cli: Any, shift: float = 0.0, count: int = 40) -> Iterator[AuditRecord]:
    """Records that score as the product's references did, or by so many of their spreads higher."""
    enrolment = read_enrolment(cli.home / "products", "plate")
    scores, random = np.array(enrolment.scores), np.random.default_rng(0)
    for number in range(1, count + 1):
        score = float(random.choice(scores)) + (shift + 0.01 * random.normal()) * float(scores.std())
        yield made(number, score=score, product="plate", lot="L1", versions={"product": enrolment.fingerprint})


def test_all_exports_at_once(cli) -> None:
    written(cli.folder / "shift", SHIFT)
    done = cli(
        "audit", "export", "shift", "--csv", "a.csv", "--coco", "a.json", "--junit", "a.xml", "--parquet", "a.pq"
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "a.csv: 4 rows",
        "a.pq: 4 rows",
        "a.json: 3 pictures, 0 areas, 0 with masks; left out for want of a picture: 1",
        "a.xml: 4 cases, 2 failures, 1 errors, 0 skipped",
    ]
    assert ElementTree.parse(cli.folder / "a.xml").getroot().get("name") == "shift"
    skipped = cli("audit", "export", "shift/records.jsonl", "--junit", "a.xml", "--review", "skipped")
    assert "1 failures, 1 errors, 1 skipped" in skipped.out


def test_an_export_needs_a_file_and_an_audit(cli) -> None:
    written(cli.folder / "shift", SHIFT)
    cli("audit", "export", "shift").refused(2, "--csv")
    cli("audit", "export", "nowhere", "--csv", "a.csv").refused(4, "nowhere")
    cli("audit", "export", "shift", "--csv", "shift/records.jsonl/a.csv").refused(10)
    assert not (cli.folder / "a.csv").exists()


def test_nothing_that_an_audit_lives_from_is_written_over(cli) -> None:
    written(cli.folder / "shift", SHIFT)
    before = (cli.folder / "shift" / "records.jsonl").read_bytes()
    for name in ("records.jsonl", "audit.json"):
        cli("audit", "page", "shift", "-o", f"shift/{name}").refused(2, "belongs to the audit")
    for audit in ("shift", "shift/records.jsonl"):
        cli("audit", "export", audit, "--csv", "shift/../shift/records.jsonl").refused(2, "belongs to the audit")
    cli("audit", "export", "shift", "--junit", "shift/audit.json").refused(2, "belongs to the audit")
    cli("audit", "export", "shift", "--csv", "a.out", "--coco", "./a.out").refused(2, "named twice")
    assert (cli.folder / "shift" / "records.jsonl").read_bytes() == before
    assert not (cli.folder / "a.out").exists()


def test_a_summary_is_a_page_or_json(cli) -> None:
    written(cli.folder / "shift", SHIFT)
    page = cli("audit", "summary", "shift")
    assert (page.code, page.err) == (0, "")
    assert "escapes (defective, called OK)" in page.out
    assert max(len(line) for line in page.out.splitlines()) <= 100
    found = json.loads(cli("audit", "summary", "shift", "--json").out)
    assert found["whole"]["counts"] == {"parts": 4, "ok": 1, "ng": 1, "review": 1, "errors": 1}
    assert found["whole"]["labelled"]["escapes"]["of"] == 2


def test_an_unfinished_audit_is_told(cli) -> None:
    written(cli.folder / "shift", SHIFT)
    records = cli.folder / "shift" / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-10])
    done = cli("audit", "summary", "shift", "--json")
    assert json.loads(done.out)["whole"]["counts"]["parts"] == 3
    assert "3 of 4 lines" in done.err


def test_a_folder_of_watch_is_told_and_exported_as_far_as_it_is(cli) -> None:
    folder = written(cli.folder / "line3", SHIFT)
    header = json.loads((folder / "audit.json").read_text())
    (folder / "audit.json").write_text(json.dumps({**header, "lines": 0}))
    done = cli("audit", "summary", "line3", "--json")
    assert json.loads(done.out)["whole"]["counts"]["parts"] == 4
    assert done.err == "flawscope: line3 is a folder of watch: 4 pictures so far.\n"
    assert cli("audit", "export", "line3", "--csv", "a.csv").out == "a.csv: 4 rows\n"
    assert cli("audit", "page", "line3").code == 0
    page = (folder / "page.html").read_text()
    assert "watched until 20" in page
    assert "finished 20" not in page


def test_diff_says_by_its_exit_code_whether_anything_differs(cli) -> None:
    written(cli.folder / "a", SHIFT, false_alarm=0.1)
    written(cli.folder / "b", [*SHIFT[:2], made(3, "OK", score=2.5, product="plate", lot="L2", label="dent"), SHIFT[3]])
    same = cli("audit", "diff", "a", "a")
    assert (same.code, same.out) == (0, "4 lines before, 4 after: 4 unchanged.\n")
    changed = cli("audit", "diff", "a", "b")
    assert changed.code == 1
    assert "escapes by the labels: 1 new, 0 mended." in changed.out
    assert "false_alarm" in changed.out
    found = json.loads(cli("audit", "diff", "a", "b", "--json").out)
    assert found["transitions"] == [["REVIEW", "OK", 1]]
    cli("audit", "diff", "a", "nowhere").refused(4, "nowhere")
    cli("audit", "diff", "a", "b", "--tolerance", "-1").refused(2, "tolerance")


def test_drift_says_by_its_exit_code_whether_it_alarms(cli) -> None:
    written(cli.folder / "calm", like_the_references(cli))
    written(cli.folder / "moved", like_the_references(cli, shift=6.0))
    assert cli("audit", "drift", "calm").code == 0
    moved = cli("audit", "drift", "moved")
    assert (moved.code, moved.err) == (1, "")
    assert "DRIFT" in moved.out
    (found,) = json.loads(cli("audit", "drift", "moved", "--json").out)
    assert found["alarm"] is True
    assert found["batches"][0]["p_value"] <= found["batches"][0]["level"]


@pytest.mark.parametrize("records", [[], SHIFT, [made(1, product="unheard_of")], [made(1, product="../plate")]])
def test_drift_that_cannot_be_tested_is_no_all_clear(cli, records: list[AuditRecord]) -> None:
    written(cli.folder / "shift", records)
    done = cli("audit", "drift", "shift")
    assert done.code == 3
    assert "Traceback" not in done.err


def test_a_product_that_drift_does_not_know_is_told_once_with_the_reason(cli) -> None:
    written(cli.folder / "shift", [made(1, product="unheard_of")])
    done = cli("audit", "drift", "shift")
    assert (done.code, done.err) == (3, "")
    assert done.out.count("unheard_of: not tested: ") == 1
    assert "no product 'unheard_of'" in " ".join(done.out.split())
    (found,) = json.loads(cli("audit", "drift", "shift", "--json").out)
    assert "no product 'unheard_of'" in found["reason"]


def test_a_real_audit_from_pictures_to_masks(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LocalEngine", InlineEngine)
    manifest = ["image,product,serial,lot,label"]
    for number, pixels in enumerate((texture(200), texture(201), with_square(texture(301))), start=1):
        Image.fromarray(enlarged(pixels)).save(cli.folder / f"{number}.png")
        manifest.append(f"{number}.png,plate,S{number},L1,{'hole' if number == 3 else 'good'}")
    (cli.folder / "lot.csv").write_text("\n".join(manifest) + "\n", encoding="utf-8")
    assert cli("audit", "lot.csv", "--out", "run", "--pictures", "none").code == 0
    found = json.loads(cli("audit", "summary", "run", "--json").out)
    assert found["whole"]["labelled"]["escapes"]["count"] == 0
    assert cli("audit", "export", "run", "--coco", "a.json").code == 0
    data = json.loads((cli.folder / "a.json").read_text(encoding="utf-8"))
    masked = [area for area in data["annotations"] if area["segmentation"] and area["image_id"] == 3]
    assert masked
    for area in masked:
        mask = decode_mask(area["segmentation"]["counts"], *area["segmentation"]["size"])
        assert mask.sum() == area["area"] > 0
        x, y, width, height = area["bbox"]
        assert mask[y : y + height, x : x + width].sum() == area["area"]
    assert cli("audit", "lot.csv", "--out", "other", "--pictures", "none", "--false-alarm", "0.3").code == 0
    changed = cli("audit", "diff", "run", "other", "--json")
    assert "false_alarm" in [setting["name"] for setting in json.loads(changed.out)["settings"]]
    assert cli("audit", "drift", "run").code == 3  # three parts are too few


def test_the_pages_example_runs(cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit_outputs.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    written(cli.folder / "shift-6", like_the_references(cli))
    written(cli.folder / "shift-7", like_the_references(cli, shift=6.0))
    monkeypatch.chdir(cli.folder)
    monkeypatch.setenv("FLAWSCOPE_HOME", str(cli.home))
    exec(compile(example, "audit_outputs.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said == ["Counts(parts=40, ok=40, ng=0, review=0, errors=0)", "plate True ", "()"]


def test_other_versions_and_damage_are_refused(cli) -> None:
    folder = written(cli.folder / "shift", SHIFT)
    data = (folder / "records.jsonl").read_bytes()
    for damaged in (data.replace(b'"1.0"', b'"9.9"', 1), b"\0" * 50 + b"\n", b"[]\n", b"[" * 9_000 + b"\n", data[1:]):
        (folder / "records.jsonl").write_bytes(damaged)
        for command in (("summary", "shift"), ("drift", "shift"), ("diff", "shift", "shift")):
            cli("audit", *command).refused(4, "line 1")
        cli("audit", "export", "shift", "--csv", "a.csv").refused(4, "line 1")
    assert not (cli.folder / "a.csv").exists()
