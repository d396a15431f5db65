"""Writing: the old file or the new one, never half of one, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from flawscope.agent.errors import StorageError
from flawscope.agent.home import Home, new_folder, storage_errors, write_atomically, write_json_atomically
from flawscope.agent.home import write_text_atomically as write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    write_text(path, "neu: ä")
    assert path.read_text(encoding="utf-8") == "neu: ä"
    assert names(path.parent) == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("bug"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(StorageError if isinstance(error, OSError) else type(error)):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_json_is_sorted_and_strict(tmp_path: Path) -> None:
    write_json_atomically(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [1.5, None], "b": 1}
    assert text.index('"a"') < text.index('"b"')
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomically(tmp_path / "a.json", {"a": float("nan")})
    assert (tmp_path / "a.json").read_text() == text


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not write"),
        (errno.EIO, "Check the disk"),
    ],
)
def test_the_disks_refusal_says_what_to_do(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(StorageError, match=advice) as raised, storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert "FLAWSCOPE_HOME" in str(raised.value)


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "product"
    with new_folder(path) as fresh:
        (fresh / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    with new_folder(path) as fresh:
        (fresh / "b").write_text("2")
    assert names(path) == ["b"]
    assert names(tmp_path) == ["product"]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), StorageError("full")])
def test_a_folder_that_was_not_completed_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "product"
    with new_folder(path) as fresh:
        (fresh / "a").touch()

    def stop_half_way() -> None:
        with new_folder(path) as fresh:
            (fresh / "half").touch()
            raise error

    with pytest.raises(type(error)):
        stop_half_way()
    assert names(path) == ["a"]
    assert names(tmp_path) == ["product"]


def test_a_move_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "product"
    with new_folder(path) as fresh:
        (fresh / "a").touch()
    replace = Path.replace

    def once(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError(errno.ENOSPC, "full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(StorageError), new_folder(path) as fresh:
        (fresh / "b").touch()
    assert names(path) == ["a"]
    assert names(tmp_path) == ["product"]


def test_places_are_under_the_root(tmp_path: Path) -> None:
    home = Home(tmp_path)
    places = {home.products, home.knowledge, home.artifacts, home.threads}
    assert len(places) == 4
    assert {place.parent for place in places} == {tmp_path}
    assert not any(place.exists() for place in places)  # made when first written
