"""A part that deviates as one on a page of the plant is said to, and its verdict does not hang on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import save
from fakes import texture, with_scratch, with_square

from flawscope.agent.inspector import Inspector

BLUE = (40, 60, 235)
JUDGED = ("verdict", "verdict_reason", "image_score", "probability", "threshold", "regions", "defect_type", "action")


def inspect(cli: Any, picture: Path, product: str = "plate") -> dict[str, Any]:
    report: dict[str, Any] = json.loads(cli("inspect", picture, "--product", product, "--json").out)
    return report


@pytest.fixture
def parts(cli: Any) -> tuple[Path, Path]:
    """Two parts with the same defect."""
    blue = [with_square(texture(seed), 40 + 2 * seed, 40, colour=BLUE) for seed in (1, 2)]
    first, second = (save(cli.folder, f"{n}.png", pixels) for n, pixels in enumerate(blue))
    return first, second


def test_the_same_deviation_is_named_and_changes_no_verdict(cli: Any, parts: tuple[Path, Path]) -> None:
    photo, part = parts
    before = inspect(cli, part)
    cli("kb", "add", photo, "--note", "burr on edge, due to dull punch", "--product", "plate")
    after = inspect(cli, part)
    assert {name: after[name] for name in JUDGED} == {name: before[name] for name in JUDGED}
    assert "deviates as the part on the plant's page plate.burr.1 does (similarity" in after["description"]
    assert after["root_cause"] == "Likely cause, if it is the same burr: dull punch."
    (page,) = [item for item in after["evidence"] if item["source"] == "plate.burr.1"]
    assert page["values"]["resemblance"] > 0.9
    assert (
        {"D1"} == {i for c in after["claims"] if c["field"] == "root_cause" for i in c["evidence_ids"]} == {page["id"]}
    )
    assert after == {**inspect(cli, part), "trace": after["trace"]}  # from the kept deviations
    cli("kb", "remove", "plate.burr.1", "--yes")
    assert inspect(cli, part)["root_cause"] == before["root_cause"]


def test_a_page_that_is_removed_or_edited_while_a_line_runs_stops_no_inspection(
    cli: Any, parts: tuple[Path, Path]
) -> None:
    names = ("plate.burr.1", "plate.burr.2")
    for photo, name in zip((parts[0], cli.plant.square), names, strict=True):
        assert cli("kb", "add", photo, "--note", "burr on edge", "--product", "plate", "--id", name).code == 0
    with Inspector(cli.plant.loaded(home=cli.home)) as line:
        line.prepare("plate")
        assert set(names) <= set(line.deps.knowledge.documents)
        assert cli("kb", "remove", names[0], "--yes").code == 0
        assert cli("kb", "edit", names[1], "--note", "burr on the rim").code == 0
        report = line.inspect(parts[1], product="plate")
    assert report.error is None
    assert "deviates as the part" not in report.description


def test_another_deviation_is_not(cli: Any, parts: tuple[Path, Path]) -> None:
    cli("kb", "add", parts[0], "--note", "burr on edge, due to dull punch", "--product", "plate")
    other = save(cli.folder, "other.png", with_scratch(texture(7)))
    assert "plate.burr.1 does" not in inspect(cli, other)["description"]
    assert "plate.burr.1 does" not in inspect(cli, cli.plant.new_good)["description"]


def test_a_damaged_deviation_is_named(cli: Any, parts: tuple[Path, Path]) -> None:
    cli("kb", "add", parts[0], "--note", "burr on edge", "--product", "plate")
    inspect(cli, parts[1])
    kept = sorted((cli.home / "knowledge" / "plant_deviations").iterdir())
    assert len(kept) == 2  # what is normal, and the page's
    for file in kept:
        file.write_bytes(b"x")
    error = inspect(cli, parts[1])["error"]
    assert error["code"] == "knowledge"
    assert "Delete that file" in error["message"]
