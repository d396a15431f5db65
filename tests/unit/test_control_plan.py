"""The control plan: what it may say, the lines that complaints name, its history, and that one schema serves both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flawscope.agent.errors import ConfigError, ProductError
from flawscope.tools.control_plan.reading import parse_plan, product_plan
from flawscope.tools.control_plan.schema import ControlPlan
from flawscope.tools.control_plan.store import PlanStore
from flawscope.tools.knowledge.control_plan import read_plan

PLAN = """\
control_plan: CP-17
products:
  - product: transistor
    normal_traits: [The mark may be faint.]
    false_alarm: 0.02
    scale_px_per_mm: 40
    picture_size_px: [640, 480]
    severity: 3
    disposition: scrap
    regions:
      - {name: fixture, look: ignore, box: [0, 360, 640, 480]}
    tools: [count, measurement]
    characteristics:
      - characteristic: lead geometry
        severity: 8
        defects:
          - type: bent_lead
            note: A lead is bent outwards.
            action: rework
            causes: [worn die]
"""


def test_what_is_said_below_goes_before_what_is_said_above() -> None:
    plan = product_plan(parse_plan(PLAN), "transistor")
    bent = plan.consequence_of("Bent lead")
    assert (bent.severity, bent.disposition) == (8, "rework")
    other = plan.consequence_of("scratch")
    assert (other.severity, other.disposition) == (3, "scrap")
    assert plan.ignored_shares() == ((0.0, 0.75, 1.0, 1.0),)
    assert plan.inspected_shares() == ()


@pytest.mark.parametrize(
    ("was", "becomes", "line", "words"),
    [
        ("false_alarm: 0.02", "false_alarm: 2", 5, "less than 1"),
        ("false_alarm: 0.02", "false_alarms: 0.02", 5, "not known"),
        ("look: ignore", "look: skip", 11, "'inspect' or 'ignore'"),
        ("box: [0, 360, 640, 480]", "box: [0, 360, 641, 480]", 3, "leaves the picture"),
        ("[count, measurement]", "[count, weigh]", 12, "template"),
        ("    scale_px_per_mm: 40\n", "", 3, "needs scale_px_per_mm"),
        ("            note: A lead is bent outwards.\n", "            type: again\n", 18, "written twice"),
        ("note: A lead", "note: *lead A", 18, "alias"),
        ("control_plan: CP-17", "control_plan: [", 3, "no valid YAML"),
    ],
)
def test_a_complaint_names_its_line(was: str, becomes: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_plan(PLAN.replace(was, becomes), "plan.yaml")
    assert words in str(error.value)
    assert f"line {line}" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_committed_schema_is_the_models() -> None:
    path = Path(__file__).parents[2] / "docs" / "control_plan.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == ControlPlan.model_json_schema()


def test_the_import_of_defects_reads_the_same_file(tmp_path: Path) -> None:
    source = read_plan(tmp_path / "plan.yaml", PLAN, None, ())
    assert source.refused == ()
    (row,) = source.rows
    assert row.fields["product"] == "transistor"
    assert (row.fields["type"], row.fields["severity"], row.fields["action"]) == ("bent_lead", "8", "rework")


def test_history_only_grows_and_going_back_is_a_new_version(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    assert store.plan("transistor") is None
    first = store.set("transistor", PLAN, author="ann", note="first")
    assert store.set("transistor", PLAN, author="ann").version == first.version == 1
    stricter = PLAN.replace("0.02", "0.01") + "# stricter\n"
    assert store.set("transistor", stricter, author="bob").version == 2
    assert store.text("transistor") == stricter
    assert store.roll_back("transistor", 1, author="eve").version == 3
    assert store.text("transistor") == PLAN
    assert [(v.version, v.author, v.note) for v in store.history("transistor")] == [
        (1, "ann", "first"),
        (2, "bob", ""),
        (3, "eve", "back to version 1"),
    ]
    found = store.plan("transistor")
    assert found is not None
    assert found[0].false_alarm == 0.02


def test_what_is_no_plan_changes_nothing(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    with pytest.raises(ConfigError, match="plans nothing for 'bolt'"):
        store.set("bolt", PLAN, author="ann")
    with pytest.raises(ConfigError, match="cannot name"):
        store.set("../bolt", PLAN, author="ann")
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_was_changed_on_disk_is_refused(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    store.set("transistor", PLAN, author="ann")
    (tmp_path / "transistor" / "0001.yaml").write_text(PLAN + "\n", encoding="utf-8")
    with pytest.raises(ProductError, match="changed on disk"):
        store.plan("transistor")
    with pytest.raises(ProductError, match="no version 4"):
        store.text("transistor", 4)
