"""Layers in their order, each value with its origin; what is not usable is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flawscope.agent.errors import ConfigError
from flawscope.agent.settings import Settings, describe_settings, load_settings


def test_later_layers_win_and_say_so(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text("documents = 5\nmax_actions = 1\nfalse_alarm = 0.1\nentropy_accept = 0.5\n")
    file = tmp_path / "site.toml"
    file.write_text("max_actions = 2\nfalse_alarm = 0.2\nentropy_accept = 0.4\n")
    environ = {"FLAWSCOPE_FALSE_ALARM": "0.3", "FLAWSCOPE_ENTROPY_ACCEPT": "0.3", "PATH": "/bin"}
    flags = {"entropy_accept": 0.2, "profile": str(profile), "reasoner": None}
    loaded = load_settings(flags, config_file=file, environ=environ)
    found = loaded.settings
    assert (found.documents, found.max_actions, found.false_alarm, found.entropy_accept) == (5, 2, 0.3, 0.2)
    assert loaded.origins["documents"] == f"profile {profile}"
    assert loaded.origins["max_actions"] == f"file {file}"
    assert loaded.origins["false_alarm"] == "env FLAWSCOPE_FALSE_ALARM"
    assert loaded.origins["entropy_accept"] == loaded.origins["profile"] == "flag"
    assert loaded.origins["store"] == "default"


def test_environment_values_are_parsed_by_their_type() -> None:
    environ = {"FLAWSCOPE_ACTIONS": "zoom, more_docs", "FLAWSCOPE_ASK_HUMAN": "true", "FLAWSCOPE_DOCUMENTS": "7"}
    found = load_settings(environ=environ).settings
    assert (found.actions, found.ask_human, found.documents) == (("zoom", "more_docs"), True, 7)
    assert load_settings(environ={"FLAWSCOPE_ACTIONS": ","}).settings.actions == ()
    assert load_settings(environ={"FLAWSCOPE_DOCUMENTS": ""}).origins["documents"] in ("default", "profile embedded")


def test_the_configuration_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("documents = 3\n")
    assert load_settings(environ={"FLAWSCOPE_CONFIG": str(file)}).settings.documents == 3


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        ({"docments": 3}, {}, "unknown setting 'docments'.*Did you mean 'documents'"),
        ({}, {"FLAWSCOPE_COLOUR": "red"}, "unknown setting 'colour'.*Known"),
        ({"documents": 0}, {}, "'documents' .flag. is not usable"),
        ({}, {"FLAWSCOPE_DOCUMENTS": "many"}, "'documents' .env FLAWSCOPE_DOCUMENTS. is not usable"),
        ({"false_alarm": 0.5}, {}, "false_alarm"),
        ({"false_alarm": float("nan")}, {}, "false_alarm"),
        ({"false_alarm": 0.0}, {}, "false_alarm"),
        ({"time_budget_s": float("nan")}, {}, "time_budget_s"),
        ({"time_budget_s": float("inf")}, {}, "time_budget_s"),
        ({"entropy_accept": float("nan")}, {}, "entropy_accept"),
        ({"store": "sqlite"}, {}, "store"),
        ({"actions": ("dance",)}, {}, "actions"),
        ({"profile": "nothing"}, {}, "unknown profile 'nothing'.*Known: .*embedded"),
        ({"profile": "nothing.toml"}, {}, "cannot read the settings file"),
        ({}, {"FLAWSCOPE_CONFIG": "/no/such/file.toml"}, "cannot read the settings file"),
    ],
)
def test_what_is_not_usable_is_refused_by_name(flags: dict[str, Any], environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(flags, environ=environ)


@pytest.mark.parametrize("content", [b"documents = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings(config_file=tmp_path / "bad.toml", environ={})


def test_every_setting_is_described() -> None:
    rows = describe_settings(load_settings(environ={}))
    assert [row.name for row in rows] == list(Settings.model_fields)
    assert all(row.meaning and row.value and row.origin for row in rows)


def test_the_home_is_the_one_given(tmp_path: Path) -> None:
    assert load_settings({"home": tmp_path}, environ={}).home.root == tmp_path
    assert load_settings(environ={"FLAWSCOPE_HOME": str(tmp_path)}).home.products == tmp_path / "products"
    assert load_settings(environ={}).home.root.is_absolute()


def test_the_names_that_other_programs_use_for_milvus_are_read_below_our_own() -> None:
    environ = {"MILVUS_URI": "http://a:1", "MILVUS_TOKEN": "hush", "FLAWSCOPE_MILVUS_URI": "http://b:2"}
    loaded = load_settings(environ=environ)
    assert loaded.settings.milvus_uri == "http://b:2"
    assert loaded.origins["milvus_uri"] == "env FLAWSCOPE_MILVUS_URI"
    assert loaded.origins["milvus_token"] == "env MILVUS_TOKEN"
    assert loaded.settings.milvus_token is not None
    assert loaded.settings.milvus_token.get_secret_value() == "hush"
    shown = [*map(str, describe_settings(loaded)), repr(loaded), loaded.model_dump_json()]
    assert not any("hush" in text for text in shown)
    assert load_settings({"milvus_uri": "http://c:3"}, environ=environ).settings.milvus_uri == "http://c:3"
    assert load_settings(environ={"MILVUS_URI": ""}).settings.milvus_uri is None


@pytest.mark.parametrize("uri", ["http://127.0.0.1:19530", "http://[::1]:19530", "https://host.example/plant"])
def test_an_address_of_a_milvus_server_is_taken(uri: str) -> None:
    assert load_settings({"milvus_uri": uri}, environ={}).settings.milvus_uri == uri


@pytest.mark.parametrize(
    "uri",
    [
        "here",
        "kb.db",
        "tcp://here:1",
        "http://",
        "http://a b:1",
        "http://h:0",
        "http://h:x",
        "http://h:65536",
        "http://[b",
        "http://me:hush@h:1",
        "http://hush@h",
        "http://h:1?token=hush",
        "http://h:1#hush",
    ],
)
def test_what_is_no_plain_address_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"'milvus_uri' .flag. is not usable") as raised:
        load_settings({"milvus_uri": uri}, environ={})
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("token", ["", "hush", "hush" * 3 + "hus", "hush hush hush hush", "hush" * 4 + "\u00e4"])
def test_a_token_of_the_mcp_server_that_could_be_guessed_is_refused(token: str) -> None:
    if not token:  # as good as not set
        assert load_settings(environ={"FLAWSCOPE_MCP_TOKEN": token}).settings.mcp_token is None
        return
    with pytest.raises(ConfigError, match="16 characters") as raised:
        load_settings(environ={"FLAWSCOPE_MCP_TOKEN": token})
    assert "hush" not in str(raised.value)


def test_a_token_of_the_mcp_server_is_never_shown() -> None:
    loaded = load_settings(environ={"FLAWSCOPE_MCP_TOKEN": "hush" * 4})
    assert loaded.settings.mcp_token is not None
    shown = [*map(str, describe_settings(loaded)), repr(loaded), loaded.model_dump_json()]
    assert not any("hush" in text for text in shown)


def test_a_token_must_not_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("milvus_token = 'hush'\n")
    with pytest.raises(ConfigError, match="secret") as raised:
        load_settings(config_file=file, environ={})
    assert "hush" not in str(raised.value)
