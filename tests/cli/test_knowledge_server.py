"""The command line with a Milvus server: away, refused, shared by processes; its token is nowhere to be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flawscope.benchmarks.lite_server import free_port, lite_server

SECRET = "hush-hush"
LITE = {"FLAWSCOPE_STORE": "milvus"}


def closed() -> str:
    return f"http://127.0.0.1:{free_port()}"


def test_inspect_goes_on_without_a_server_that_is_away(cli: Any) -> None:
    asked = ("inspect", cli.plant.square, "-p", "plate", "--milvus-uri", closed(), "--milvus-token", SECRET)
    as_json = cli.process(*asked, "--json", env=LITE)
    assert (as_json.code, as_json.err) == (1, "")
    [said] = [item for item in json.loads(as_json.out)["evidence"] if item["id"] == "K1"]
    assert "cannot be reached" in said["text"]
    shown = cli(*asked, "--no-chat", **LITE)
    assert (shown.code, shown.err) == (1, "")
    assert "Inspected without searching the knowledge base" in " ".join(shown.out.split())
    required = cli(*asked, "--json", **LITE, FLAWSCOPE_KNOWLEDGE_REQUIRED="true")
    required.refused(6, "cannot be reached", "milvus_uri")
    assert SECRET not in as_json.out + shown.out + required.err


def test_a_page_added_while_the_server_is_away_counts_when_it_is_back(cli: Any, tmp_path: Path) -> None:
    port = free_port()
    env = {**LITE, "FLAWSCOPE_MILVUS_URI": f"http://127.0.0.1:{port}", "FLAWSCOPE_MILVUS_TIMEOUT_S": "20"}
    added = cli(
        "kb", "add", cli.plant.square, "--product", "plate", "--type", "hole", "--note", "A square hole.", **env
    )
    assert added.code == 0
    assert "take effect there as soon as it can be reached" in added.err
    with lite_server(tmp_path / "data", port):
        one = cli.process("inspect", cli.plant.scratch, "-p", "plate", "--json", env=env)
        sources = {item["source"] for item in json.loads(one.out)["evidence"] if item["kind"] == "document"}
        assert "plate.hole.1" in sources
        assert one.err == ""
        verified = cli("kb", "verify", **env)
        assert (verified.code, verified.out.splitlines()[-1]) == (0, "no faults")
        two = cli.process("inspect", cli.plant.scratch, "-p", "plate", "--json", env=env)  # a second process, at once
        assert json.loads(two.out)["evidence"] == json.loads(one.out)["evidence"]
    cli("kb", "verify", **env).refused(6, "cannot be reached")
    examined = cli("doctor", **env)
    assert examined.code == 6
    assert "cannot be reached" in " ".join(examined.out.split())


@pytest.mark.parametrize(
    "uri",
    [
        "nonsense",
        "kb.db",
        "http://me:hush-hush@here:1",
        "http://me:hush-hush",
        "http://me:hush-hush/x@here:1",
        "http://here:99999",
        "http://here:0",
        "http://here:1/\x1b[2J",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_a_secret(cli: Any, uri: str) -> None:
    refused = cli("inspect", cli.plant.square, "-p", "plate", MILVUS_URI=uri)
    refused.refused(2, "milvus_uri", "env MILVUS_URI")
    assert SECRET not in refused.err


def test_the_token_is_shown_nowhere(cli: Any) -> None:
    for arguments in (("config", "show"), ("config", "show", "--json")):
        shown = cli(*arguments, MILVUS_TOKEN=SECRET, MILVUS_URI="http://here:1")
        assert shown.code == 0
        assert SECRET not in shown.out
        assert "MILVUS_TOKEN" in shown.out
    report = cli("inspect", cli.plant.square, "-p", "plate", "--json", MILVUS_TOKEN=SECRET)
    assert report.code == 1
    assert SECRET not in report.out


def test_an_address_that_the_client_cannot_be_imported_with_does_no_harm(cli: Any) -> None:
    seen = cli.process(
        "inspect", cli.plant.square, "-p", "plate", "--json", env={**LITE, "MILVUS_URI": "http://[::1]:1"}
    )
    assert (seen.code, seen.err) == (1, "")
    assert "http://[::1]:1 cannot be reached" in seen.out
