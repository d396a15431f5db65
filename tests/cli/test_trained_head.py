"""The setting trained_head, from enrolment to reports, and what is said when it changes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_head import save_head, tiny_weights


@pytest.fixture
def head(cli: Any) -> Path:
    return save_head(cli.folder / "head.npz")


def test_from_file_to_report(cli: Any, head: Path) -> None:
    sha256 = hashlib.sha256(head.read_bytes()).hexdigest()
    done = cli("enroll", "own", *cli.plant.good, FLAWSCOPE_TRAINED_HEAD=str(head))
    assert done.code == 0, done.err
    assert f"trained head: {sha256[:12]}…" in done.out
    asked = ("inspect", cli.plant.square, cli.plant.new_good, "--product", "own", "--json")
    result = cli(*asked, FLAWSCOPE_TRAINED_HEAD=str(head))
    bad, good = (json.loads(line) for line in result.out.splitlines())
    assert (bad["verdict"], good["verdict"], result.code) == ("NG", "OK", 1)
    assert bad["regions"][0]["place"].startswith("upper left")
    assert bad["provenance"]["trained_head"] == sha256
    assert bad["provenance"]["settings"]["trained_head"]["origin"] == "env FLAWSCOPE_TRAINED_HEAD"
    shown = cli("products", "show", "own", FLAWSCOPE_TRAINED_HEAD=str(head))
    assert (shown.code, shown.out) == (0, done.out)

    cli(*asked).refused(5, f"was enrolled with the trained head {sha256[:12]}…", "now gives no trained head", "Enrol")
    other = save_head(cli.folder / "other.npz", tiny_weights(1))
    cli(*asked, FLAWSCOPE_TRAINED_HEAD=str(other)).refused(5, "was enrolled with the trained head", "Enrol it again")
    cli("products", "show", "own").refused(5, "Enrol it again")
    plate = cli("inspect", cli.plant.square, "-p", "plate", "--json", FLAWSCOPE_TRAINED_HEAD=str(head))
    plate.refused(5, "'plate' was enrolled with no trained head")


def test_references_in_place_of_a_product_go_through_the_head_too(cli: Any, head: Path) -> None:
    asked = ("inspect", cli.plant.square, "--reference", *cli.plant.good, "--json")
    plain, through = (json.loads(cli(*asked, **env).out) for env in ({}, {"FLAWSCOPE_TRAINED_HEAD": str(head)}))
    assert (plain["verdict"], through["verdict"]) == ("NG", "NG")
    assert "trained_head" not in plain["provenance"]
    assert through["image_score"] != pytest.approx(plain["image_score"], rel=1e-3)


@pytest.mark.parametrize("command", [("train", "tokens"), ("bench", "forgetting")])
def test_training_on_evidence_refuses_a_head_that_it_would_not_use(cli: Any, head: Path, command: Any) -> None:
    refused = cli(*command, "--data", cli.folder, "--hold-out", "plate", FLAWSCOPE_TRAINED_HEAD=str(head))
    refused.refused(2, "trained_head (env FLAWSCOPE_TRAINED_HEAD) does not count here", "Leave trained_head empty")


def test_the_doctor_reads_the_head_before_there_is_a_product(cli: Any, head: Path) -> None:
    shutil.rmtree(cli.home / "products")
    missing = cli("doctor", FLAWSCOPE_TRAINED_HEAD=str(cli.folder / "none.npz"))
    assert missing.code == 9
    assert "there is no trained head at" in " ".join(missing.out.split())
    whole = cli("doctor", FLAWSCOPE_TRAINED_HEAD=str(head))
    assert (whole.code, "broken" in whole.out) == (0, False)


def test_the_doctor_reads_trained_prompts(cli: Any) -> None:
    assert "none set (FLAWSCOPE_TRAINED_PROMPTS)" in " ".join(cli("doctor").out.split())
    found = cli("doctor", FLAWSCOPE_TRAINED_PROMPTS=str(cli.folder / "prompts.safetensors"))
    assert found.code == 2
    assert "the setting trained_prompts (env FLAWSCOPE_TRAINED_PROMPTS) is for CLIP" in " ".join(found.out.split())


@pytest.mark.parametrize("content", [b"", b"no head", None])
def test_a_head_that_cannot_be_used_is_said_before_anything_else(cli: Any, content: bytes | None) -> None:
    path = cli.folder / "head.npz"
    if content is not None:
        path.write_bytes(content)
    for command in (("inspect", cli.plant.square, "-p", "plate"), ("enroll", "own", *cli.plant.good)):
        cli(*command, FLAWSCOPE_TRAINED_HEAD=str(path)).refused(9, "trained head", "Train it again")
    unused = cli("inspect", cli.plant.square, "--json", FLAWSCOPE_TRAINED_HEAD=str(path))
    unused.refused(9, "trained head")
