"""Worklists: folders, patterns and manifests of every hostility, in a fixed order."""

from __future__ import annotations

from pathlib import Path

import pytest

from flawscope.agent.errors import ConfigError, InputError
from flawscope.audits.worklist import Job, parse_shard, read_worklist, record_id, shard_of, worklist_sha256

HEADING = "image,product,serial,lot,station,label"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def manifest(folder: Path, text: str | bytes, name: str = "list.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def cells(job: Job) -> tuple[str | None, ...]:
    line = job.line
    return line.product, line.serial, line.lot, line.station, line.label


def test_folders_patterns_and_files_in_the_order_given(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a/2.png",
        "a/1.PNG",
        "a/deep/3.jpg",
        "a/.hidden/4.png",
        "a/note.txt",
        "b/9.png",
        "b/8.png",
        "out/5.png",
    )
    jobs = read_worklist([str(tmp_path / "b" / "*.png"), str(tmp_path / "a"), str(tmp_path / "gone.png")], "plate")
    names = [Path(job.path).relative_to(tmp_path).as_posix() for job in jobs]
    assert names == ["b/8.png", "b/9.png", "a/1.PNG", "a/2.png", "a/deep/3.jpg", "gone.png"]
    assert [job.line.number for job in jobs] == [1, 2, 3, 4, 5, 6]
    assert {job.line.product for job in jobs} == {"plate"}
    everything = read_worklist([str(tmp_path)], None, except_in=tmp_path / "out")
    assert "out/5.png" not in {Path(job.path).relative_to(tmp_path).as_posix() for job in everything}
    pattern = [str(tmp_path / "**" / "*.png")]
    assert len(read_worklist(pattern, None)) == 4
    assert len(read_worklist(pattern, None, except_in=tmp_path / "out")) == 3  # what an audit wrote is no part


def test_a_file_with_the_signs_of_a_pattern_is_itself(tmp_path: Path) -> None:
    touch(tmp_path, "part[1].png", "part1.png")
    assert [job.path for job in read_worklist([str(tmp_path / "part[1].png")], None)] == [str(tmp_path / "part[1].png")]


def test_links_to_nothing_are_lines_whose_records_say_so(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for what in (tmp_path, tmp_path / "*.png"):
        found = read_worklist([str(what)], None, except_in=tmp_path / "out")
        assert [Path(job.path).name for job in found] == ["a.png", "circle.png", "gone.png"]


def test_a_pattern_or_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        read_worklist([str(tmp_path / "*.png")], None)
    touch(tmp_path, "out/pictures/1.png", "lots/3/note.txt")
    for pattern in ("*", "*/*", "out/**/*.png"):  # folders alone, and what the audit wrote itself
        with pytest.raises(InputError, match="no file matches"):
            read_worklist([str(tmp_path / pattern)], None, except_in=tmp_path / "out")
    with pytest.raises(InputError, match="there is no file or folder"):
        read_worklist([str(tmp_path / "lot 7")], None)
    with pytest.raises(InputError, match="holds no pictures"):
        read_worklist([str(tmp_path)], None, except_in=tmp_path / "out")


def test_a_manifest_gives_what_its_columns_say(tmp_path: Path) -> None:
    text = f"{HEADING}\nlots/1.png,plate,S1,L7,ST2,OK\n\n/abs/2.png,,S2,,,\nlots/1.png,bottle,S3,L7,ST2,dent\n"
    jobs = read_worklist([manifest(tmp_path, text)], "plate")
    assert [job.path for job in jobs] == [str(tmp_path / "lots/1.png"), "/abs/2.png", str(tmp_path / "lots/1.png")]
    assert cells(jobs[0]) == ("plate", "S1", "L7", "ST2", "OK")
    assert cells(jobs[1]) == ("plate", "S2", None, None, None)
    assert cells(jobs[2]) == ("bottle", "S3", "L7", "ST2", "dent")
    assert [job.line.source_line for job in jobs] == [2, 4, 5]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_delimiters_and_encodings(tmp_path: Path, mark: str, encoding: str) -> None:
    rows = [["Serial Number", "IMAGE", "Batch", "remark"], ["Größe", "ä.png", f'"a{mark}b"', "x"]]
    text = "\r\n".join(mark.join(row) for row in rows) + "\r\n"
    jobs = read_worklist([manifest(tmp_path, text.encode(encoding))], None)
    assert (jobs[0].path, cells(jobs[0])) == (str(tmp_path / "ä.png"), (None, "Größe", f"a{mark}b", None, None))


def test_formulas_and_markup_are_text(tmp_path: Path) -> None:
    text = f'{HEADING}\n"=HYPERLINK(""http://x"")",+1,@SUM(A1),<script>,-2,"two\nlines"\n'
    job = read_worklist([manifest(tmp_path, text)], None)[0]
    assert job.path == str(tmp_path / '=HYPERLINK("http:/x")')
    assert cells(job) == ("+1", "@SUM(A1)", "<script>", "-2", "two\nlines")


def test_short_rows_are_filled_and_empty_ends_are_dropped(tmp_path: Path) -> None:
    jobs = read_worklist([manifest(tmp_path, "sep=,\nimage,serial\n1.png\n2.png,S,,,\n")], None)
    assert [cells(job)[1] for job in jobs] == [None, "S"]


def test_a_line_without_an_image_stays_a_line(tmp_path: Path) -> None:
    assert read_worklist([manifest(tmp_path, "image,serial\n,S1\n")], None)[0].path == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no lines"),
        (f"{HEADING}\n", "has no lines"),
        ("serial,lot\nS1,L1\n", "has no column image"),
        ("image,path\na.png,b.png\n", "two columns for image"),
        ('image,serial\n"a.png,S1\nb.png,S2\n', "line 2"),
        ("image\na.png,b\n", "line 2: 2 cells"),
        (f"image,serial\na.png,{'x' * 5000}\n", "line 2: the cell of serial"),
        (b"\x00\x01\x02image\n", "no text"),
        (b"\xff\xfe\x00", "no text"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_worklist([manifest(tmp_path, text)], None)


def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no manifest"):
        read_worklist([str(tmp_path / "list.csv")], None)


def test_equal_lines_have_ids_of_their_own_and_places_do_not_count(tmp_path: Path) -> None:
    once = read_worklist([manifest(tmp_path, "image,serial\na.png,S\na.png,S\nb.png,S\n")], None)
    moved = read_worklist([manifest(tmp_path, "image,serial\nb.png,S\na.png,S\na.png,S\n", "other.csv")], None)
    assert len({job.identity for job in once}) == 3
    assert {job.identity for job in once} == {job.identity for job in moved}
    assert worklist_sha256(once) != worklist_sha256(moved)
    ids = {record_id(once[0].identity, sha, settings) for sha in ("1", "2", None) for settings in ("a", "b")}
    assert len(ids) == 6


def test_shards_take_turns_and_miss_nothing(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.png" for number in range(7)))
    jobs = read_worklist([str(tmp_path)], None)
    parts = [shard_of(jobs, (i, 3)) for i in (1, 2, 3)]
    assert [[job.line.number for job in part] for part in parts] == [[1, 4, 7], [2, 5], [3, 6]]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5", ""])
def test_a_shard_is_a_part_of_a_whole(text: str) -> None:
    assert parse_shard("2/3") == (2, 3)
    with pytest.raises(ConfigError, match="--shard takes"):
        parse_shard(text)
