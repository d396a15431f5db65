"""Arguments, settings and enrolments that make no sense: one line, the right exit code, and nothing changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@dataclass(frozen=True)
class Case:
    """A command that must be refused.

    Attributes:
        arguments: ``{good}``, ``{square}``, ``{flat}`` and ``{refs}`` stand for pictures of the plant.
        code: exit code.
        words: parts of the line.
        env: environment.
        prepare: makes files in the working folder.
    """

    arguments: str
    code: int
    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Any], object] = lambda cli: None


def _file(name: str, content: str | bytes = "x") -> Callable[[Any], object]:
    def make(cli: Any) -> None:
        path = cli.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def _folder(name: str) -> Callable[[Any], object]:
    return lambda cli: (cli.folder / name).mkdir(parents=True)


def _links(name: str) -> Callable[[Any], object]:
    """A folder with a picture and a link to nothing."""

    def make(cli: Any) -> None:
        _file(f"{name}/a.png", cli.plant.square.read_bytes())(cli)
        (cli.folder / name / "link.png").symlink_to("gone.png")

    return make


def _defects_with_a_corrupt_example(cli: Any) -> None:
    _file("defects/hole/a.png", cli.plant.square.read_bytes())(cli)
    _file("defects/hole/b.png", b"not a picture")(cli)


INSPECT = "inspect {good} -p plate"
CASES: dict[str, Case] = {
    # commands and options
    "unknown command": Case("inspekt {good}", 2, ("inspekt", "Did you mean", "--help")),
    "unknown command with a line break": Case("in\nspect", 2, ("No such command",)),
    "unknown option": Case(f"{INSPECT} --jsn", 2, ("--jsn", "flawscope inspect --help")),
    "no pictures": Case("inspect -p plate", 2, ("images",)),
    "option without a value": Case("inspect {good} --product", 2, ("--product",)),
    "reference without a value": Case("inspect {good} --reference", 2, ("--reference",)),
    "reference without a value before another option": Case("inspect {good} -r --json", 2, ("--reference",)),
    "product and reference": Case(f"{INSPECT} --reference {{good}}", 2, ("either --product or --reference",)),
    "pictures after reference": Case("inspect --reference {refs} {square}", 2, ("before --reference",)),
    "missing reference": Case("inspect {good} -r nowhere.png", 4, ("nowhere.png",)),
    "corrupt reference": Case("inspect {good} -r bad.png", 4, ("bad.png",), prepare=_file("bad.png")),
    "flat reference": Case("inspect {good} -r {flat}", 4, ("one flat colour",)),
    "empty folder of references": Case("inspect {good} -r refs", 4, ("holds no pictures",), prepare=_folder("refs")),
    "chat without an id": Case("chat", 2, ("thread",)),
    "chat with an unknown id": Case("chat 12345678", 2, ("12345678", "printed when one begins")),
    "chat with markup as id": Case("chat [/red]", 2, ("[/red]",)),
    "unknown subcommand": Case("products drop plate", 2, ("drop",)),
    # --false-alarm
    **{
        f"false alarm {value}": Case(f"{INSPECT} --false-alarm {value}", 2, ("false_alarm", "flag"))
        for value in ("0", "1", "0.5", "-1", "nan", "inf")
    },
    "false alarm text": Case(f"{INSPECT} --false-alarm five", 2, ("--false-alarm", "number")),
    # products
    "unknown product": Case("inspect {good} -p plat", 5, ("'plat'", "Enrolled: plate")),
    "unknown product to show": Case("products show plat", 5, ("'plat'", "plate")),
    "unknown product to remove": Case("products remove plat --yes", 5, ("'plat'",)),
    "removal without an answer": Case("products remove plate", 2, ("--yes",)),
    "removal of everything": Case("products remove .. --yes", 2, ("cannot name a product",)),
    "removal by path": Case("products remove ../products/plate --yes", 2, ("cannot name a product",)),
    "product with a slash": Case("inspect {good} -p a/b", 2, ("cannot name a product",)),
    "product above": Case("inspect {good} -p ../plate", 2, ("cannot name a product",)),
    "product empty": Case("inspect {good} --product=", 2, ("cannot name a product",)),
    "product with escapes": Case("inspect {good} -p \x1b[31mred", 2, ("cannot name a product",)),
    # enrolment
    "enrol under a path": Case("enroll ../x {refs}", 2, ("cannot name a product",)),
    "enrol under a dot": Case("enroll .hidden {refs}", 2, ("cannot name a product",)),
    "enrol a long name": Case(f"enroll {'x' * 65} {{refs}}", 2, ("cannot name a product",)),
    "enrol twice": Case("enroll plate {refs}", 2, ("enrolled already", "--replace")),
    "enrol nothing": Case("enroll new", 2, ("images",)),
    "enrol an empty folder": Case("enroll new none", 4, ("holds no pictures",), prepare=_folder("none")),
    "enrol a missing picture": Case("enroll new {refs} nowhere.png", 4, ("nowhere.png",)),
    "enrol a link to nothing": Case(
        "enroll new {refs} link.png", 4, ("link.png", "does not exist"), prepare=_links(".")
    ),
    "enrol a folder with a link to nothing": Case(
        "enroll new {refs} parts", 4, ("parts/link.png", "does not exist"), prepare=_links("parts")
    ),
    "defects with a link to nothing": Case(
        "enroll new {refs} --defects d", 4, ("d/hole/link.png", "does not exist"), prepare=_links("d/hole")
    ),
    "enrol a corrupt picture": Case("enroll new {refs} bad.png", 4, ("bad.png",), prepare=_file("bad.png")),
    "replace by a corrupt picture": Case(
        "enroll plate {refs} bad.png --replace", 4, ("bad.png",), prepare=_file("bad.png")
    ),
    "enrol a flat picture": Case("enroll new {refs} {flat}", 4, ("one flat colour",)),
    "missing defects": Case("enroll new {refs} --defects nowhere", 4, ("nowhere", "one subfolder per defect type")),
    "empty defects": Case("enroll new {refs} --defects d", 4, ("has no examples",), prepare=_folder("d")),
    "defects without pictures": Case("enroll new {refs} --defects d", 4, ("no examples",), prepare=_folder("d/hole")),
    "defects with a corrupt example": Case(
        "enroll new {refs} --defects defects", 4, ("b.png",), prepare=_defects_with_a_corrupt_example
    ),
    "replace with a corrupt example": Case(
        "enroll plate {refs} --replace --defects defects", 4, ("b.png",), prepare=_defects_with_a_corrupt_example
    ),
    # benchmarks
    "bench shots text": Case("bench fewshot --data . --shots few", 2, ("--shots", "few")),
    "bench shots zero": Case("bench fewshot --data . --shots 0", 2, ("--shots",)),
    "bench shots empty": Case("bench fewshot --data . --shots 1,,4", 2, ("--shots",)),
    "bench data missing": Case("bench fewshot --data nowhere", 4, ("nowhere",)),
    "bench data not given": Case("bench fewshot", 2, ("--data",)),
    "bench draws zero": Case("bench fewshot --data . --draws 0", 2, ("--draws",)),
    "bench types unknown": Case("bench zsad --data . --types all", 2, ("--types", "base")),
    # settings
    "unknown variable": Case(INSPECT, 2, ("'retreival'", "'retrieval'"), {"FLAWSCOPE_RETREIVAL": "paper"}),
    "unknown variable like nothing": Case(INSPECT, 2, ("'qqq'", "Known:"), {"FLAWSCOPE_QQQ": "1"}),
    "wrong type": Case(INSPECT, 2, ("documents", "FLAWSCOPE_DOCUMENTS"), {"FLAWSCOPE_DOCUMENTS": "many"}),
    "out of range": Case(INSPECT, 2, ("documents",), {"FLAWSCOPE_DOCUMENTS": "0"}),
    "unknown retrieval": Case(INSPECT, 2, ("retrieval", "relevance"), {"FLAWSCOPE_RETRIEVAL": "magic"}),
    "unknown store": Case(INSPECT, 2, ("store",), {"FLAWSCOPE_STORE": "redis"}),
    "unknown action": Case(INSPECT, 2, ("actions",), {"FLAWSCOPE_ACTIONS": "zoom,guess"}),
    "unknown backbone": Case("inspect {good}", 2, ("unknown backbone", "Known"), {"FLAWSCOPE_BACKBONE": "resnet"}),
    "unknown reasoner": Case(INSPECT, 2, ("reasoner",), {"FLAWSCOPE_REASONER": "oracle"}),
    **{
        f"trained prompts without a text tower: {command}": Case(
            command, 2, ("FLAWSCOPE_TRAINED_PROMPTS", "profile paper"), {"FLAWSCOPE_TRAINED_PROMPTS": "p.safetensors"}
        )
        for command in ("inspect {good}", INSPECT, "inspect {good} -r {square}", "enroll new {refs}")
    },
    "asking without a checkpointer": Case(INSPECT, 2, ("checkpointer",), {"FLAWSCOPE_ASK_HUMAN": "true"}),
    "unknown profile": Case(f"{INSPECT} --profile gpu", 2, ("unknown profile 'gpu'", "embedded")),
    "missing profile file": Case(f"{INSPECT} --profile mine.toml", 2, ("mine.toml",)),
    "unknown key in a file": Case(
        INSPECT, 2, ("'treshold'", "file"), {"FLAWSCOPE_CONFIG": "c.toml"}, _file("c.toml", "treshold = 1\n")
    ),
    "wrong type in a file": Case(
        INSPECT, 2, ("max_pixels", "c.toml"), {"FLAWSCOPE_CONFIG": "c.toml"}, _file("c.toml", "max_pixels = [1]\n")
    ),
    "invalid file": Case(
        INSPECT, 2, ("not valid TOML",), {"FLAWSCOPE_CONFIG": "c.toml"}, _file("c.toml", "documents = = 2\n")
    ),
    "file nested too deep": Case(
        INSPECT, 2, ("c.toml",), {"FLAWSCOPE_CONFIG": "c.toml"}, _file("c.toml", "a = " + "[" * 20_000 + "\n")
    ),
    "binary file": Case(
        INSPECT, 2, ("not valid TOML",), {"FLAWSCOPE_CONFIG": "c.toml"}, _file("c.toml", b"\xff\xfe\0\x01")
    ),
    "missing file": Case(INSPECT, 2, ("cannot read", "gone.toml"), {"FLAWSCOPE_CONFIG": "gone.toml"}),
    "folder as file": Case(INSPECT, 2, ("cannot read",), {"FLAWSCOPE_CONFIG": "dir.toml"}, _folder("dir.toml")),
    "table in a file": Case(
        INSPECT, 2, ("'inspect'",), {"FLAWSCOPE_CONFIG": "c.toml"}, _file("c.toml", "[inspect]\ndocuments = 2\n")
    ),
    "home of nobody": Case(f"{INSPECT} --home ~nobody-of-that-name/x", 2, ("unknown user",)),
}


def _arguments(cli: Any, text: str) -> list[str]:
    plant = cli.plant
    words = {"good": plant.new_good, "square": plant.square, "flat": plant.flat}
    given: list[str] = []
    for part in text.split(" "):
        given += [str(path) for path in plant.good] if part == "{refs}" else [part.format(**words)]
    return given


@pytest.mark.parametrize("name", CASES)
def test_a_senseless_command_ends_in_one_line_and_changes_nothing(cli: Any, snapshot: Any, name: str) -> None:
    case = CASES[name]
    case.prepare(cli)
    before = snapshot(cli.home)
    cli(*_arguments(cli, case.arguments), **case.env).refused(case.code, *case.words)
    assert snapshot(cli.home) == before
    assert not [path for path in (cli.home / "products").iterdir() if path.name != "plate"]


def test_every_family_of_codes_occurs() -> None:
    assert {case.code for case in CASES.values()} == {2, 4, 5}


def test_duplicates_are_learnt_once_and_named(cli: Any) -> None:
    for name in ("copy [red].png", "copy two.png"):
        shutil.copy(cli.plant.good[0], cli.folder / name)
    result = cli("enroll", "new", *cli.plant.good[:3], "copy [red].png", "copy two.png")
    assert result.code == 0
    assert "3 good references" in result.out
    assert "left out as exact copies: copy [red].png, copy two.png" in result.out
    assert "exact copies: copy [red].png" in cli("products", "show", "new").out


@pytest.mark.parametrize("count", [1, 2])
def test_few_references_are_enrolled_and_never_decide(cli: Any, count: int) -> None:
    enrolled = cli("enroll", "few", *cli.plant.good[:count])
    assert enrolled.code == 0
    assert "threshold: none" in enrolled.out
    result = cli("inspect", cli.plant.square, cli.plant.new_good, "-p", "few", "--json")
    assert result.code == 3
    assert result.out.count('"verdict":"REVIEW"') == 2
    assert result.err == ""


def test_only_copies_of_one_picture_count_as_one_reference(cli: Any) -> None:
    shutil.copy(cli.plant.good[0], cli.folder / "again.png")
    assert "1 good references" in cli("enroll", "one", cli.plant.good[0], "again.png").out


def test_a_product_can_be_replaced(cli: Any) -> None:
    result = cli("enroll", "plate", *cli.plant.good[:4], "--replace")
    assert (result.code, result.err) == (0, "")
    assert "plate: 4 good references" in cli("products", "show", "plate").out


def test_without_references_nothing_is_judged(cli: Any) -> None:
    result = cli("inspect", cli.plant.square, cli.plant.new_good)
    assert result.code == 3
    assert "flawscope enroll" in result.out
    assert "--reference" in result.out


def test_a_folder_of_references_with_a_picture_of_another_size_is_usable(cli: Any) -> None:
    with Image.open(cli.plant.good[0]) as picture:
        picture.resize((150, 60)).save(cli.folder / "wide.png")
    result = cli("enroll", "mixed", *cli.plant.good[:3], "wide.png")
    assert (result.code, result.err) == (0, "")
    assert Path(cli.home / "products" / "mixed" / "references" / "003.png").is_file()
