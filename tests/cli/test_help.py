"""Help pages, completion, the doctor and the settings table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = ("torch", "pymilvus", "langgraph", "sklearn", "onnxruntime", "scipy", "PIL", "numpy", "yaml")


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["enroll", "--help"], ["products"], ["nope"]])
def test_help_and_wrong_arguments_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from flawscope.cli import main; sys.argv = ['flawscope', *sys.argv[1:]]\n"
        "try: main()\n"
        f"except SystemExit: print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(cli: Any, shell: str) -> None:
    source = cli.process(env={"_FLAWSCOPE_COMPLETE": f"source_{shell}"})
    assert source.code == 0
    assert "_FLAWSCOPE_COMPLETE" in source.out


def test_completion_is_printed_for_a_named_shell(cli: Any) -> None:
    result = cli.process("--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert (result.code, result.err) == (0, "")
    assert "complete -o default -F _flawscope_completion flawscope" in result.out


def _complete(cli: Any, words: str, **env: str) -> tuple[list[str], str]:
    given = {"_FLAWSCOPE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = cli.process(env={**given, **env})
    return result.out.split(), result.err


def test_commands_options_and_products_are_completed(cli: Any) -> None:
    assert _complete(cli, "flawscope ins") == (["inspect"], "")
    assert _complete(cli, "flawscope inspect --no-c") == (["--no-chat"], "")
    assert _complete(cli, "flawscope inspect -p pl") == (["plate"], "")
    assert _complete(cli, "flawscope products remove ") == (["plate"], "")
    assert _complete(cli, "flawscope inspect -p pl", FLAWSCOPE_NONSENSE="1") == ([], "")


def test_products_are_listed_shown_and_removed(cli: Any) -> None:
    assert cli("enroll", "another", *cli.plant.good[:3]).code == 0
    assert cli("products", "list").out == "another\nplate\n"
    shown = cli("products", "show", "plate").out
    assert "plate: 12 good references" in shown
    assert "defect types: hole (3), scratch (3)" in shown
    assert cli("products", "remove", "another", "--yes").code == 0
    assert cli("products", "list").out == "plate\n"
    cli("products", "remove", "another", "--yes").refused(5, "another")
    shutil.rmtree(cli.home / "products")
    empty = cli("products", "list")
    assert (empty.code, empty.out) == (0, "")
    assert "flawscope enroll PRODUCT" in empty.err


def test_the_doctor_finds_a_healthy_home_healthy(cli: Any) -> None:
    result = cli("doctor")
    assert (result.code, result.err) == (0, "")
    for line in ("state directory: ", "products: 1 enrolled, all files verified", "knowledge base: 6 documents"):
        assert line in result.out
    assert "broken" not in result.out
    assert "absent  torch" in result.out or "ok      torch" in result.out


def test_the_doctor_names_what_is_broken_and_goes_on(cli: Any) -> None:
    (cli.home / "products" / "plate" / "arrays.npz").write_bytes(b"")
    (base,) = (cli.home / "knowledge").iterdir()
    (base / "vectors.npz").write_bytes(b"")
    result = cli("doctor")
    assert result.code == 5
    broken = [line for line in result.out.splitlines() if line.startswith("broken")]
    assert ["products" in broken[0], "knowledge base" in broken[1], len(broken)] == [True, True, 2]
    assert "--replace" in broken[0]
    assert "Delete that folder" in broken[1]


@pytest.mark.parametrize(
    ("env", "code", "word"),
    [
        ({"FLAWSCOPE_BACKBONE": "none"}, 2, "unknown backbone"),
        ({"FLAWSCOPE_REASONER": "none"}, 2, "reasoner"),
        ({"FLAWSCOPE_HOME": "/proc/nowhere"}, 10, "/proc/nowhere"),
    ],
)
def test_the_doctor_exits_with_the_code_of_the_first_finding(
    cli: Any, env: dict[str, str], code: int, word: str
) -> None:
    result = cli("doctor", **env)
    assert (result.code, result.err) == (code, "")
    assert word in result.out


def test_the_doctor_prints_odd_paths_as_they_are(cli: Any) -> None:
    home = cli.folder / "[red]odd[" / "\x1b[31mhome"
    result = cli("doctor", FLAWSCOPE_HOME=str(home))
    assert "[red]odd[" in result.out
    assert "\x1b" not in result.out


def test_settings_say_where_they_come_from(cli: Any) -> None:
    (cli.folder / "mine.toml").write_text('reasoner = "evidence"\nmax_actions = 2\n')
    (cli.folder / "line.toml").write_text("documents = 6\n")
    env = {"FLAWSCOPE_CONFIG": "line.toml", "FLAWSCOPE_ACTIONS": "zoom, reference"}
    result = cli("config", "show", "--json", "--profile", "mine.toml", "--home", "elsewhere", **env)
    shown = json.loads(result.out)
    assert shown["max_pixels"] == {"value": "200000000", "origin": "default"}
    assert shown["max_actions"] == {"value": "2", "origin": "profile mine.toml"}
    assert shown["documents"] == {"value": "6", "origin": "file line.toml"}
    assert shown["actions"] == {"value": "zoom, reference", "origin": "env FLAWSCOPE_ACTIONS"}
    assert shown["home"] == {"value": "elsewhere", "origin": "flag"}
    assert shown["false_alarm"]["origin"] == "env FLAWSCOPE_FALSE_ALARM"


def test_the_settings_table_names_every_setting(cli: Any) -> None:
    from flawscope.agent.settings import Settings

    out = cli("config", "show", "--home", "odd[red]").out
    assert all(name in out for name in Settings.model_fields)
    assert "odd[red]" in out


def test_the_console_script_and_the_file_are_one(cli: Any) -> None:
    script = Path(sys.executable).with_name("flawscope")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, env=cli.environment())
    assert done.stdout == cli.process("--help", real=True).out


def test_debug_shows_the_traceback(cli: Any) -> None:
    result = cli.process("--debug", "products", "show", "nothing")
    assert result.code == 1
    assert "ProductError" in result.err
