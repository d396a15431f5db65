"""``flawscope models``: what it prints and what it exits with."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from flawscope.tools.weights import CATALOGUE, Weights, WeightsFile


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Weights:
    """An entry whose origin refuses every connection."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.bin"
    entry = Weights("local", "a test", "MIT", 1, (WeightsFile("x.bin", url, hashlib.sha256(b"whole").hexdigest()),))
    monkeypatch.setitem(CATALOGUE, "local", entry)
    return entry


def put(cli: Any, content: bytes) -> Path:
    place = cli.home / "models" / "local" / "x.bin"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return Path(place)


def test_list_names_every_set_with_licence_and_presence(cli: Any) -> None:
    result = cli("models", "list", COLUMNS="200")
    assert (result.code, result.err) == (0, "")
    lines = {line.split()[0]: line for line in result.out.splitlines()[1:]}
    assert set(lines) == set(CATALOGUE)
    assert "shipped" in lines["efficientnet-lite2"]
    assert " no " in lines["clip-vit-l-14-336-openai"]
    assert "3035c92b3509" in lines["clip-vit-l-14-336-openai"]
    assert "unknown" in lines["qwen2.5-vl-7b"]


def test_names_are_whole_on_a_narrow_terminal(cli: Any) -> None:
    result = cli("models", "list", COLUMNS="80")
    assert set(CATALOGUE) <= {line.split(" ")[0] for line in result.out.splitlines()}


def test_list_as_json_holds_the_origins(cli: Any, local: Weights) -> None:
    put(cli, b"whole")
    rows = {row["name"]: row for row in map(json.loads, cli("models", "list", "--json").out.splitlines())}
    assert rows["local"]["here"] == "yes"
    assert rows["qwen2.5-vl-3b"]["here"] == "no"
    clip = rows["clip-vit-l-14-336-openai"]
    assert clip["clip_model"] == "ViT-L-14-336-quickgelu"
    assert clip["files"][0]["url"].endswith("/ViT-L-14-336px.pt")


def test_pull_without_a_network_is_one_line_with_the_way_by_hand(cli: Any, local: Weights) -> None:
    result = cli("models", "pull", "local")
    result.refused(9, "cannot be downloaded", local.files[0].url, str(cli.home / "models" / "local" / "x.bin"))
    cli("models", "pull", "lokal").refused(2, "Did you mean local?")


def test_what_was_put_there_by_hand_counts(cli: Any, local: Weights) -> None:
    place = put(cli, b"whole")
    for command in (("pull", "local"), ("verify", "local"), ("verify",)):
        result = cli("models", *command)
        assert (result.code, result.err) == (0, "")
        assert f"ok {local.files[0].sha256} {place}" in result.out.splitlines()


def test_verify_finds_damage_and_absence(cli: Any, local: Weights) -> None:
    cli("models", "verify", "local").refused(9, "is absent", "flawscope models pull local")
    place = put(cli, b"cut")
    result = cli("models", "verify")
    result.refused(9, f"{place} is damaged", "flawscope models pull local")
    assert f"damaged {hashlib.sha256(b'cut').hexdigest()} {place}" in result.out.splitlines()


def test_the_paper_profile_without_weights_is_one_line(cli: Any) -> None:
    result = cli("inspect", cli.plant.square, "--profile", "paper", FLAWSCOPE_BACKBONE="")
    result.refused(9, "ViT-L-14-336px.pt", "flawscope models pull clip-vit-l-14-336-openai", str(cli.home / "models"))


@pytest.mark.parametrize("config", ["{", "[]", '{"model_type": "llama"}', '{"model_type": "qwen2_5_vl"}'])
def test_checkpoints_of_ones_own_are_listed_and_hashed_and_nothing_else_is(cli: Any, config: str) -> None:
    folder = cli.home / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(b"x" * 2_000_000)
    rows = {row["name"]: row for row in map(json.loads, cli("models", "list", "--json").out.splitlines())}
    if "qwen2_5_vl" not in config:
        assert set(rows) == set(CATALOGUE)
        cli("models", "verify", "mine").refused(2, "unknown weights")
        return
    assert (rows["mine"]["here"], rows["mine"]["purpose"], rows["mine"]["size_mb"]) == ("yes", "reasoner", 2)
    for command in (("verify", "mine"), ("verify",)):
        result = cli("models", *command)
        assert (result.code, result.err) == (0, "")
        assert f"unverified {hashlib.sha256(b'x' * 2_000_000).hexdigest()} {folder / 'model.safetensors'}" in result.out


def test_a_laboratory_animal_is_called_one(cli: Any) -> None:
    folder = cli.home / "models" / "mini"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl", "flawscope": {"laboratory": true}}')
    rows = {row["name"]: row for row in map(json.loads, cli("models", "list", "--json").out.splitlines())}
    assert rows["mini"]["purpose"] == "reasoner (laboratory animal)"
