"""Products, knowledge bases, conversations, weights and disks that are not what they should be."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flawscope.tools.product_files import manifest_hash


def _flip(path: Path, position: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * position)] ^= 0xFF
    path.write_bytes(bytes(data))


def _change(path: Path, **values: Any) -> None:
    manifest = {**json.loads(path.read_text()), **values}
    sealed = {"sha256": manifest_hash(manifest)} if "sha256" in manifest else {}  # so that not only the seal is tested
    path.write_text(json.dumps({**manifest, **sealed}))


def _edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"rotate": false', '"rotate": true'))


Damage = Callable[[Path], object]
PRODUCT_DAMAGE: dict[str, tuple[Damage, str]] = {
    "manifest gone": (lambda p: (p / "product.json").unlink(), "damaged"),
    "manifest empty": (lambda p: (p / "product.json").write_text(""), "damaged"),
    "manifest truncated": (lambda p: os.truncate(p / "product.json", 200), "damaged"),
    "manifest a list": (lambda p: (p / "product.json").write_text("[]"), "damaged"),
    "manifest binary": (lambda p: (p / "product.json").write_bytes(b"\xff\xfe\0"), "damaged"),
    "manifest nested too deep": (lambda p: (p / "product.json").write_text("[" * 100_000), "damaged"),
    "manifest edited": (lambda p: _edit(p / "product.json"), "damaged"),
    "manifest without files": (lambda p: _change(p / "product.json", files=None), "damaged"),
    "manifest of another version": (lambda p: _change(p / "product.json", format=99), "another version"),
    "other backbone": (
        lambda p: _change(p / "product.json", backbone={"name": "clip", "weights_sha256": "f" * 64}),
        "backbone clip",
    ),
    "arrays flipped": (lambda p: _flip(p / "arrays.npz"), "arrays.npz"),
    "arrays truncated": (lambda p: os.truncate(p / "arrays.npz", 1000), "arrays.npz"),
    "arrays gone": (lambda p: (p / "arrays.npz").unlink(), "damaged"),
    "types flipped": (lambda p: _flip(p / "types.npz"), "types.npz"),
    "types gone": (lambda p: (p / "types.npz").unlink(), "damaged"),
    "reference gone": (lambda p: (p / "references" / "000.png").unlink(), "damaged"),
    "reference flipped": (lambda p: _flip(p / "references" / "003.png"), "003.png"),
    "everything gone": (lambda p: (shutil.rmtree(p), p.mkdir()), "damaged"),
}


@pytest.mark.parametrize("name", PRODUCT_DAMAGE)
def test_a_damaged_product_is_refused_by_name_and_can_be_enrolled_again(cli: Any, name: str) -> None:
    damage, word = PRODUCT_DAMAGE[name]
    damage(cli.home / "products" / "plate")
    for command in (("inspect", cli.plant.new_good, "-p", "plate"), ("products", "show", "plate")):
        cli(*command).refused(5, "'plate'", word, "--replace")
    assert cli("enroll", "plate", *cli.plant.good, "--replace").code == 0
    assert cli("inspect", cli.plant.new_good, "-p", "plate", "--json").code == 0


def _base(home: Path) -> Path:
    (base,) = (home / "knowledge").iterdir()
    return base


KNOWLEDGE_DAMAGE: dict[str, Damage] = {
    "manifest empty": lambda b: (b / "manifest.json").write_text(""),
    "manifest a list": lambda b: (b / "manifest.json").write_text("[]"),
    "manifest of other content": lambda b: _change(b / "manifest.json", content_hash="0" * 64),
    "manifest of other documents": lambda b: _change(b / "manifest.json", doc_ids=["general.dent"]),
    "vectors flipped": lambda b: _flip(b / "vectors.npz"),
    "vectors truncated": lambda b: os.truncate(b / "vectors.npz", 100),
    "vectors gone": lambda b: (b / "vectors.npz").unlink(),
}


@pytest.mark.parametrize("name", KNOWLEDGE_DAMAGE)
def test_a_damaged_knowledge_base_is_refused_and_rebuilt_once_deleted(cli: Any, name: str) -> None:
    KNOWLEDGE_DAMAGE[name](_base(cli.home))
    cli("inspect", cli.plant.square, "-p", "plate").refused(6, "knowledge base", "Delete that folder")
    shutil.rmtree(_base(cli.home))
    assert cli("inspect", cli.plant.square, "-p", "plate", "--json").code == 1


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "LOCK")


@pytest.mark.parametrize("damage", ["every file emptied", "every file overwritten"])
def test_a_damaged_vector_database_never_judges_by_half(cli: Any, damage: str) -> None:
    env = {"FLAWSCOPE_STORE": "milvus"}
    assert cli.process("inspect", cli.plant.square, "-p", "plate", "--json", env=env).code == 1
    database = _base(cli.home) / "kb.db"
    for path in _files(database):
        path.write_bytes(b"" if damage == "every file emptied" else b"\xff" * 64)
    result = cli.process("inspect", cli.plant.square, "-p", "plate", "--json", env=env)
    result.refused(6, "knowledge base")
    assert cli("inspect", cli.plant.square, "-p", "plate", "--json").code == 1  # the copy in memory still works
    shutil.rmtree(_base(cli.home))
    assert cli.process("inspect", cli.plant.square, "-p", "plate", "--json", env=env).code == 1


HOLD = """
import sys
from pathlib import Path
from flawscope.tools.knowledge.milvus import MilvusLiteStore
store = MilvusLiteStore(Path(sys.argv[1]), int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
store.close()
"""


def test_a_knowledge_base_open_elsewhere_is_refused_and_readable_from_memory(cli: Any) -> None:
    import numpy as np

    env = {"FLAWSCOPE_STORE": "milvus"}
    assert cli.process("inspect", cli.plant.square, "-p", "plate", "--json", env=env).code == 1
    base = _base(cli.home)
    with np.load(base / "vectors.npz") as arrays:
        dim = arrays["vectors"].shape[1]
    command = [sys.executable, "-c", HOLD, str(base), str(dim)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=cli.environment()) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        locked = cli.process("inspect", cli.plant.square, "-p", "plate", "--json", env=env)
        copied = cli.process("inspect", cli.plant.square, "-p", "plate", "--json")
        holder.stdin.close()
        assert holder.wait(timeout=30) == 0
    locked.refused(6, "another process", "FLAWSCOPE_STORE=memory")
    assert copied.code == 1
    assert cli.process("inspect", cli.plant.square, "-p", "plate", "--json", env=env).code == 1


# --- conversations ----------------------------------------------------------------------------------------------------


def _garbage(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not a database " * 100)


@pytest.mark.parametrize("command", ["chat", "inspect"])
def test_a_damaged_conversation_database_is_refused_and_kept(cli: Any, command: str) -> None:
    threads = cli.home / "threads" / "threads.sqlite"
    _garbage(threads)
    given = ("chat", "abcd1234") if command == "chat" else ("inspect", cli.plant.square, "-p", "plate", "--ask", "why?")
    result = cli(*given)
    assert "Move that file away" in result.err
    assert (result.code, result.err.count("\n")) == (10, 1)
    assert threads.read_bytes().startswith(b"not a database")


def test_a_conversation_of_another_version_is_refused(cli: Any) -> None:
    assert cli("inspect", cli.plant.square, "-p", "plate", "--ask", "where?").code == 1
    path = cli.home / "threads" / "threads.sqlite"
    with sqlite3.connect(path) as database:
        (thread,) = database.execute("select distinct thread_id from checkpoints").fetchone()
        for table, column in (("checkpoints", "checkpoint"), ("writes", "value")):
            for key, blob in database.execute(f"select rowid, {column} from {table}").fetchall():
                odd = blob.replace(b"schema_version\xa31.0", b"schema_version\xa39.9")
                database.execute(f"update {table} set {column} = ? where rowid = ?", (odd, key))
    database.close()
    cli("chat", thread, "--ask", "where?").refused(10, "another version")


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damaged_weights_are_refused(cli: Any, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    from flawscope.tools.backbones import onnx_lite

    weights = cli.folder / "weights.onnx"
    if damage == "flipped":
        shutil.copy(onnx_lite.WEIGHTS_PATH, weights)
        _flip(weights)
    monkeypatch.setattr(onnx_lite.load_session, "__defaults__", (weights, onnx_lite.WEIGHTS_SHA256, 1))
    env = {"FLAWSCOPE_BACKBONE": "efficientnet-lite2"}
    cli("inspect", cli.plant.square, **env).refused(9, "weights.onnx", "Reinstall")
    cli("enroll", "new", *cli.plant.good, **env).refused(9, "weights.onnx")
    assert not (cli.home / "products" / "new").exists()
    result = cli("doctor", **env)
    assert result.code == 9
    assert "Reinstall" in result.out


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_home_is_refused(cli: Any) -> None:
    (cli.folder / "home").write_text("x")
    cli("enroll", "new", *cli.plant.good[:3], "--home", "home").refused(10, "cannot write", "FLAWSCOPE_HOME")
    cli("inspect", cli.plant.square, "--home", "home").refused(10, "cannot write")
    assert (cli.folder / "home").read_text() == "x"


def test_a_home_that_cannot_be_made_is_refused(cli: Any) -> None:
    cli("enroll", "new", *cli.plant.good[:3], "--home", "/proc/flawscope").refused(10, "/proc/flawscope")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_what_the_disk_says_is_passed_on(cli: Any, snapshot: Any, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    before = snapshot(cli.home)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    result = cli("enroll", "plate", *cli.plant.good[:3], "--replace")
    result.refused(10, os.strerror(number))
    assert ("Free some space" in result.err) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert snapshot(cli.home) == before


def _limit_files(size_bytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def test_a_full_disk_during_enrolment_keeps_the_old_product(cli: Any, snapshot: Any) -> None:
    before = snapshot(cli.home / "products")
    result = cli.process("enroll", "plate", *cli.plant.good, "--replace", preexec_fn=_limit_files(4096))
    result.refused(10, "cannot write", os.strerror(errno.EFBIG))
    assert snapshot(cli.home / "products") == before


@pytest.mark.parametrize("store", ["milvus", "memory"])
def test_a_full_disk_while_the_knowledge_base_is_built_leaves_it_buildable(cli: Any, store: str) -> None:
    shutil.rmtree(cli.home / "knowledge")
    command = ("inspect", cli.plant.square, "-p", "plate", "--json")
    env = {"FLAWSCOPE_STORE": store}
    cli.process(*command, env=env, preexec_fn=_limit_files(512)).refused(10, os.strerror(errno.EFBIG))
    assert cli.process(*command, env=env).code == 1


def test_a_full_disk_below_the_database_leaves_it_buildable(cli: Any) -> None:
    """The vectors are there, what Milvus Lite writes is refused."""
    command = ("inspect", cli.plant.square, "-p", "plate", "--json")
    env = {"FLAWSCOPE_STORE": "milvus"}
    result = cli.process(*command, env=env, preexec_fn=_limit_files(256))
    assert result.code in (6, 10)
    result.refused(result.code, "knowledge base" if result.code == 6 else "cannot write")
    assert cli.process(*command, env=env).code == 1


def test_a_full_disk_for_conversations_is_refused(cli: Any) -> None:
    command = ("inspect", cli.plant.square, "-p", "plate", "--ask", "where?")
    result = cli.process(*command, preexec_fn=_limit_files(1024))
    assert (result.code, result.err.count("\n")) == (10, 1)
    assert "conversations" in result.err
    assert cli.process(*command).code == 1


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/out", "/dev/null/out"])
def test_an_output_folder_that_cannot_be_made_is_refused_before_the_first_picture(cli: Any, out: str) -> None:
    (cli.folder / "file").write_text("x")
    cli("inspect", cli.plant.square, "-p", "plate", "--out", out).refused(10, "cannot write", "--out")


def test_a_disk_that_fills_up_among_the_output_files_keeps_the_finished_ones(cli: Any) -> None:
    (cli.folder / "out").mkdir()
    (cli.folder / "out" / "scratch").write_text("a file where a folder must be")
    result = cli("inspect", cli.plant.square, cli.plant.scratch, "-p", "plate", "--out", "out", "--json")
    assert (result.code, result.err.count("\n"), result.out.count("\n")) == (10, 1, 1)
    assert sorted(path.name for path in (cli.folder / "out" / "square").iterdir()) == [
        "heatmap.png",
        "overlay.png",
        "report.json",
    ]


# --- output -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("inspect", "{good}", "-p", "plate", "--json"), ("--help",)])
def test_a_full_device_as_output_is_a_failure(cli: Any, command: tuple[str, ...]) -> None:
    given = [part.format(good=cli.plant.new_good) for part in command]
    with Path("/dev/full").open("wb") as full:
        options: dict[str, Any] = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        cli.process(*given, **options).refused(10, os.strerror(errno.ENOSPC))


def test_a_reader_that_goes_away_is_no_verdict(cli: Any) -> None:
    command = cli.command("inspect", *[cli.plant.new_good] * 40, "-p", "plate", "--json")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environment(), cwd=cli.folder
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert json.loads(running.stdout.readline())["verdict"] == "OK"
        running.stdout.close()
        complaint = running.stderr.read()
        assert (running.wait(timeout=60), complaint) == (130, b"")


def test_closed_streams_neither_crash_nor_swallow(cli: Any) -> None:
    command = " ".join(f"'{part}'" for part in cli.command("inspect", cli.plant.new_good, "-p", "plate"))
    options: dict[str, Any] = {"env": cli.environment(), "cwd": cli.folder, "capture_output": True, "timeout": 60}
    closed = subprocess.run(f"{command} >&-", shell=True, check=False, **options)
    assert (closed.returncode, closed.stderr.count(b"\n")) == (10, 1)
    assert b"standard output is closed" in closed.stderr
    rest = subprocess.run(f"{command} <&- 2>&-", shell=True, check=False, **options)
    assert (rest.returncode, rest.stdout.lstrip().startswith(b"OK")) == (0, True)


def test_a_terminal_without_the_characters_gets_escapes(cli: Any) -> None:
    (cli.folder / "Prüfteil.png").write_bytes(cli.plant.square.read_bytes())
    result = cli.process("inspect", "Prüfteil.png", "-p", "plate", env={"PYTHONIOENCODING": "ascii"})
    assert (result.code, result.err) == (1, "")
    assert "Pr\\xfcfteil.png" in result.out
