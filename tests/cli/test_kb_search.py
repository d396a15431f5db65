"""``kb search``: pages by words, by a picture, by both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import save
from fakes import ColourWords, texture, with_square

from flawscope.tools.backbones import BACKBONES

BLUE = (40, 60, 235)


def rows(cli: Any, *arguments: object) -> list[dict[str, Any]]:
    done = cli("kb", "search", *arguments, "--json", FLAWSCOPE_STORE="memory")
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.fixture
def photo(cli: Any) -> Path:
    return save(cli.folder, "photo.png", with_square(texture(301), 40, 40, colour=BLUE))


def test_words_find_the_page_that_speaks_of_them(cli: Any) -> None:
    found = rows(cli, "scratches along the rubbed direction")
    assert found[0]["document"] == "general.scratch"
    assert 1 < len(found) <= 4
    assert [row["words"] for row in found] == sorted((row["words"] for row in found), reverse=True)
    assert all(row["picture"] is None and row["score"] == row["words"] for row in found)
    everywhere = {row["document"] for row in rows(cli, "a light thread", "-k", 9)}
    assert "textile.good" in everywhere
    assert {row["document"] for row in rows(cli, "a light thread", "--product", "textile")} == {"textile.good"}
    assert [row["type"] for row in rows(cli, "edge", "--product", "general", "--type", "crack")] == ["crack"]


def test_a_table_shows_ids_scores_and_titles(cli: Any) -> None:
    done = cli("kb", "search", "scratches and edges", "-k", 2, FLAWSCOPE_STORE="memory")
    head, first, second = done.out.splitlines()
    assert head.split() == ["document", "score", "words", "picture", "product", "type", "title"]
    assert first.startswith("general.scratch")
    assert " - " in first  # no picture was given
    assert second


def test_a_picture_finds_its_like_and_words_with_it_what_both_find(cli: Any, photo: Path) -> None:
    assert cli("kb", "add", photo, "--note", "blue paint", "--product", "plate", "--author", "Ada").code == 0
    like = save(cli.folder, "like.png", with_square(texture(302), 42, 38, colour=BLUE))
    by_picture = rows(cli, "--picture", like)
    assert by_picture[0]["product"] == "plate"
    assert by_picture[0]["picture"] > 0.8
    assert by_picture[0]["words"] is None
    both = rows(cli, "blue paint", "--picture", like)
    assert both[0]["document"] == by_picture[0]["document"]
    assert both[0]["words"] is not None
    assert both[0]["picture"] == pytest.approx(by_picture[0]["picture"])


def test_what_is_not_there_is_said(cli: Any) -> None:
    done = cli("kb", "search", "xylophone", FLAWSCOPE_STORE="memory")
    assert (done.code, done.out) == (0, "")
    assert "No page holds" in done.err
    done = cli("kb", "search", FLAWSCOPE_STORE="memory")
    assert done.code != 0
    assert "words, a picture, or both" in done.err
    done = cli("kb", "search", "crack", "--product", "textiles", FLAWSCOPE_STORE="memory")
    assert done.code != 0
    assert "Did you mean textile" in done.err
    done = cli("kb", "search", "--picture", cli.folder / "no.png", FLAWSCOPE_STORE="memory")
    assert done.code != 0
    assert "Traceback" not in done.err


@pytest.fixture
def reading(cli: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line with a backbone that has a text tower: sentences of damage lie near red pictures."""
    monkeypatch.setitem(BACKBONES, "colour-words", lambda loaded: ColourWords())

    def run(*arguments: object) -> Any:
        return cli("kb", *arguments, FLAWSCOPE_STORE="memory", FLAWSCOPE_BACKBONE="colour-words")

    return run


def test_a_text_tower_finds_what_no_page_says(cli: Any, reading: Any) -> None:
    red = save(cli.folder, "red.png", with_square(texture(303), 20, 20, 48))
    for name, picture in (("red", red), ("plain", save(cli.folder, "plain.png", texture(304)))):
        done = reading("add", picture, "--note", f"{name} seen on line two", "--product", "plate", "--author", "Ada")
        assert done.code == 0, done.err
    done = reading("search", "damage", "--product", "plate", "--json")
    first, second = (json.loads(line) for line in done.out.splitlines())
    said = [json.loads(line) for line in reading("search", "red", "--json").out.splitlines()]
    assert first["document"] in {row["document"] for row in said if row["words"] is not None}
    assert second["document"] not in {row["document"] for row in said if row["words"] is not None}
    assert first["words"] is None
    assert first["score"] == first["words_to_picture"] > second["words_to_picture"]
    assert (first["ranks"], second["ranks"]) == ({"words_to_picture": 1}, {"words_to_picture": 2})
    assert "their pictures alone" in done.err
    both = json.loads(reading("search", "red defect", "--product", "plate", "--json").out.splitlines()[0])
    assert both["ranks"] == {"words": 1, "words_to_picture": 1}
    assert both["score"] == pytest.approx(2 / 61)
    table = reading("search", "red defect", "--product", "plate").out.splitlines()
    assert table[0].split()[:5] == ["document", "score", "words", "words_to_picture", "picture"]
    assert table[1].count("#1") == 2


def test_vectors_for_words_are_verified_and_made_again(cli: Any, reading: Any) -> None:
    photo = save(cli.folder, "red.png", with_square(texture(305), 20, 20, 48))
    assert reading("add", photo, "--note", "red paint", "--product", "plate", "--author", "Ada").code == 0
    before = reading("search", "defect", "--json").out
    assert reading("verify").code == 0
    (kept,) = (cli.home / "knowledge").rglob("*.joint.npz")
    blob = kept.read_bytes()
    kept.write_bytes(b"garbage" + blob[7:])
    assert reading("verify").code != 0
    assert reading("search", "defect").code != 0
    kept.unlink()
    done = reading("verify")
    assert done.code == 0
    assert "embeds its picture for words" in done.out + done.err
    assert reading("search", "defect", "--json").out == before
    assert kept.read_bytes()
