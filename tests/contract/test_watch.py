"""A watched folder with a worker that has no model: what is inspected, when, and that it is inspected once."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edges_plant import KEY, CheapWorker, Receiver, ToyWorker

from flawscope.agent.errors import ConfigError, ProductError, StorageError
from flawscope.agent.settings import load_settings
from flawscope.audits.folder import read_header
from flawscope.audits.local import Limits
from flawscope.audits.record_file import read_records
from flawscope.audits.records import AuditRecord, RecordError
from flawscope.audits.worker import Basis, Done, failed
from flawscope.audits.worklist import Job, record_id
from flawscope.edges import watch
from flawscope.edges.folder import WatchedFolder
from flawscope.edges.outbox import Outbox
from flawscope.edges.settling import Settling
from flawscope.edges.watch import Watch, WatchPlan, name_pattern

SETTLE_S = 0.4


class _Running:
    """A watch in a thread, looking for itself, with everything that it recorded."""

    def __init__(self, folder: Path, out: Path, worker: Any = None, stop_at: int | None = None, **options: Any) -> None:
        self.records: list[AuditRecord] = []
        self.notices: list[str] = []
        self.changed = threading.Condition()
        self._stop_at = stop_at
        self.failure: Exception | None = None
        self._end, ready = threading.Event(), threading.Event()
        plan = WatchPlan(folder, out, "plate", **{"settle_s": SETTLE_S, "look_s": 0.05, **options})
        self.watch = Watch(load_settings(), plan, self._took, worker=worker or ToyWorker())
        self.thread = threading.Thread(target=self._run, args=(ready,))
        self.thread.start()
        assert ready.wait(120.0)

    def _run(self, ready: threading.Event) -> None:
        try:
            self.watch.run(self._end.is_set, lambda text: (self.notices.append(text), ready.set()))  # type: ignore[arg-type, func-returns-value]
        except Exception as error:  # noqa: BLE001 - shown by the test
            self.failure = error
            ready.set()

    def _took(self, record: AuditRecord) -> None:
        with self.changed:
            self.records.append(record)
            if len(self.records) == self._stop_at:
                self._end.set()
            self.changed.notify_all()

    def until(self, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.records) >= number, 120.0), self.records

    def stop(self) -> None:
        self._end.set()
        self.thread.join(120.0)
        assert not self.thread.is_alive()
        assert self.failure is None, self.failure


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


@pytest.fixture
def watching(here: Path) -> Iterator[Callable[..., _Running]]:
    made: list[_Running] = []

    def start(**options: Any) -> _Running:
        made.append(_Running(here / "in", here / "out", **options))
        return made[-1]

    yield start
    for one in made:
        if one.thread.is_alive():
            one.stop()


def _on_disk(out: Path) -> list[AuditRecord]:
    return list(read_records(out))


def _names(out: Path) -> list[str]:
    return sorted(Path(record.line.image).name for record in _on_disk(out))


def test_what_is_there_and_what_comes_is_inspected_once(here: Path, watching: Callable[..., _Running]) -> None:
    (here / "in" / "lot1").mkdir()
    (here / "in" / "lot1" / "S7_a.png").write_bytes(b"bad")
    (here / "in" / ".hidden.png").write_bytes(b"x")
    (here / "in" / "notes.txt").write_bytes(b"x")
    (here / "in" / ".trash").mkdir()
    (here / "in" / ".trash" / "b.png").write_bytes(b"x")
    run = watching(name_pattern=name_pattern(r"(?P<lot>[^/]+)/(?P<serial>S\d+)_"))
    run.until(1)
    (here / "in" / "new").mkdir()
    (here / "in" / "new" / "c.JPG").write_bytes(b"good")
    run.until(2)
    run.stop()
    first, second = _on_disk(here / "out")
    assert (first.line.number, first.line.lot, first.line.serial, first.verdict.value) == (1, "lot1", "S7", "NG")
    assert (second.line.number, second.line.lot, second.verdict.value) == (2, None, "OK")
    assert Path(first.line.image) == (here / "in" / "lot1" / "S7_a.png").resolve()
    assert first.line.product == "plate"
    header = read_header(here / "out")
    assert header is not None
    assert header.product == "plate"


def test_a_file_written_in_pieces_is_inspected_whole(here: Path, watching: Callable[..., _Running]) -> None:
    run = watching(settle_s=2.0)  # a machine in a hurry may write the next piece a second late
    path = here / "in" / "slowly.png"
    with path.open("wb") as file:
        for _ in range(10):
            file.write(b"piece ")
            file.flush()
            time.sleep(0.25)
    run.until(1)
    run.stop()
    (record,) = _on_disk(here / "out")
    assert record.sha256 == hashlib.sha256(b"piece " * 10).hexdigest()


def test_renamed_in_deleted_and_repeated_names(here: Path, watching: Callable[..., _Running]) -> None:
    run = watching()
    staged, gone, same = here / "in" / "a.png.part", here / "in" / "gone.png", here / "in" / "current.png"
    staged.write_bytes(b"staged")
    gone.write_bytes(b"never seen")
    gone.unlink()
    staged.replace(here / "in" / "a.png")
    same.write_bytes(b"first part")
    run.until(2)
    same.write_bytes(b"second part")
    run.until(3)
    other = here / "elsewhere.png"
    other.write_bytes(b"third part")
    other.replace(same)
    run.until(4)
    os.utime(same)  # touched: the same picture
    (here / "in" / "last.png").write_bytes(b"last")
    run.until(5)
    run.stop()
    found = _on_disk(here / "out")
    assert Counter(Path(r.line.image).name for r in found) == {"a.png": 1, "current.png": 3, "last.png": 1}
    hashes = [record.sha256 for record in found if record.line.image.endswith("current.png")]
    wanted = [hashlib.sha256(f"{which} part".encode()).hexdigest() for which in ("first", "second", "third")]
    assert hashes == wanted
    assert [record.line.number for record in found] == [1, 2, 3, 4, 5]


def test_hundreds_at_once_and_again_after_a_restart(here: Path, watching: Callable[..., _Running]) -> None:
    for number in range(400):
        (here / "in" / f"{number:03d}.png").write_bytes(str(number).encode())
    run = watching(stop_at=150)  # however fast it is
    run.until(150)
    run.stop()
    done = len(_on_disk(here / "out"))
    assert done == 150
    (here / "out" / "seen.sqlite").unlink()  # a cache: made again from the records
    again = watching()
    again.until(400 - done)
    again.stop()
    third = watching()
    (here / "in" / "000.png").write_bytes(b"another part under an old name")
    third.until(1)
    third.stop()
    found = _on_disk(here / "out")
    assert len(found) == 401
    assert len({(record.line.image, record.sha256) for record in found}) == 401
    assert [record.line.number for record in found] == list(range(1, 402))


def test_a_picture_that_ends_its_worker_costs_that_picture_only(here: Path, watching: Callable[..., _Running]) -> None:
    (here / "in" / "a.png").write_bytes(b"crash")
    run = watching()
    run.until(1)
    (here / "in" / "b.png").write_bytes(b"good")
    run.until(2)
    run.stop()
    first, second = _on_disk(here / "out")
    assert first.error is not None
    assert (first.error.kind, first.verdict.value) == ("crashed", "REVIEW")
    assert second.verdict.value == "OK"


def test_the_output_may_lie_in_the_folder_and_is_not_inspected(here: Path) -> None:
    out = here / "in" / "out"
    out.mkdir()
    (out / "x.png").write_bytes(b"x")
    (here / "in" / "a.png").write_bytes(b"a")
    run = _Running(here / "in", out)
    run.until(1)
    run.stop()
    assert _names(out) == ["a.png"]


def test_a_share_that_goes_away_and_comes_back(here: Path, watching: Callable[..., _Running]) -> None:
    (here / "in" / "a.png").write_bytes(b"a")
    run = watching()
    run.until(1)
    (here / "in").rename(here / "unmounted")
    time.sleep(0.3)
    (here / "unmounted" / "b.png").write_bytes(b"b")
    (here / "unmounted").rename(here / "in")
    run.until(2)
    run.stop()
    assert _names(here / "out") == ["a.png", "b.png"]


def test_a_dead_destination_never_stops_the_inspection_and_gets_all_later(
    here: Path, watching: Callable[..., _Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAWSCOPE_WEBHOOK_KEY", KEY)
    dead = Receiver()
    address = dead.address
    dead.close()
    live = Receiver()
    run = watching(publish=(address, live.address))
    for number in range(20):
        (here / "in" / f"{number}.png").write_bytes(b"good")
    run.until(20)
    while len(run.notices) < 2:
        time.sleep(0.02)
    run.stop()
    live.close()
    assert (
        run.notices[1]
        == f"{address} takes no verdicts now (ConnectError: no answer); they wait, and inspection goes on."
    )
    assert (run.watch.waiting, run.watch.refused) == (20, 0)
    ids = [record.id for record in _on_disk(here / "out")]
    assert sorted(live.keys) == sorted(ids)
    with Outbox(here / "out") as outbox:
        assert sorted(message.key for message in outbox.messages()) == sorted(ids)
        assert {message.destination for message in outbox.messages()} == {address}


def test_two_watches_cannot_have_one_output(here: Path, watching: Callable[..., _Running]) -> None:
    run = watching()
    second = _Running(here / "in", here / "out")
    second.thread.join(60.0)
    assert isinstance(second.failure, StorageError)
    run.stop()
    shutil.rmtree(here / "in")
    (here / "other").mkdir()
    third = _Running(here / "other", here / "out")
    third.thread.join(60.0)
    assert isinstance(third.failure, ConfigError)
    assert "another watched folder" in str(third.failure)


def test_what_cannot_work_is_said_before_anything_is_done(here: Path) -> None:
    loaded = load_settings()

    def refused(match: str, folder: Path = here / "in", out: Path = here / "out", **options: Any) -> None:
        with pytest.raises(ConfigError, match=match):
            Watch(loaded, WatchPlan(folder, out, "plate", **options), print, worker=ToyWorker())  # type: ignore[arg-type]

    refused("is not a folder", folder=here / "nowhere")
    refused("must not be the watched folder", out=here / "in")
    refused("must not be the watched folder", out=here)
    refused("needs a key", publish=("https://h/x",))
    refused("twice", publish=("https://h/x", "https://h/x"))
    for pattern in ("(", "no group", "(?P<colour>.)"):
        with pytest.raises(ConfigError, match="--name-pattern"):
            name_pattern(pattern)
    assert not (here / "out").exists()


def test_a_product_that_is_not_there_is_the_products_error(here: Path) -> None:
    plan = WatchPlan(here / "in", here / "out", "plat")
    watch = Watch(load_settings(), plan, print, worker=ToyWorker())  # type: ignore[arg-type]
    with pytest.raises(Exception, match="no product 'plat'") as refused:
        watch.run(lambda: True)
    assert refused.value.exit_code == ProductError.exit_code  # type: ignore[attr-defined]


def test_with_the_real_worker_the_records_are_an_audits(
    here: Path, plant: Any, watching: Callable[..., _Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAWSCOPE_HOME", str(here / "home"))
    monkeypatch.setenv("FLAWSCOPE_BACKBONE", "patch-statistics")
    monkeypatch.setenv("FLAWSCOPE_FALSE_ALARM", "0.15")
    shutil.copytree(plant.home / "products", here / "home" / "products")
    shutil.copy(plant.square, here / "in" / "square.png")
    (here / "in" / "broken.png").write_bytes(b"no picture")
    run = watching(worker=CheapWorker(load_settings(), str(here / "out")), limits=Limits(timeout_s=300.0))
    run.until(2)
    run.stop()
    found = {Path(record.line.image).name: record for record in _on_disk(here / "out")}
    assert found["square.png"].verdict.value == "NG"
    assert (here / "out" / found["square.png"].pictures["overlay"]).is_file()
    broken = found["broken.png"]
    assert broken.error is not None
    assert (broken.error.kind, broken.verdict.value) == ("input", "REVIEW")


class LockedWorker(ToyWorker):
    """Cannot read a picture as long as there is a file NAME.locked beside it."""

    def __call__(self, job: Job, basis: Basis) -> Done:
        if not Path(f"{job.path}.locked").exists():
            return super().__call__(job, basis)
        error = RecordError(kind="input", message="it cannot be read.", exit_code=4)
        return Done.of(failed(job, basis, error).model_copy(update={"sha256": None, "id": record_id("x", None, "y")}))


def test_a_picture_that_cannot_be_read_at_two_starts_is_inspected_at_a_third(
    here: Path, watching: Callable[..., _Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = watch.content_sha256
    monkeypatch.setattr(watch, "content_sha256", lambda path: None if Path(f"{path}.locked").exists() else read(path))
    (here / "in" / "a.png").write_bytes(b"bad")
    (here / "in" / "a.png.locked").touch()
    for new in (b"", b"good"):
        if new:
            (here / "in" / "b.png").write_bytes(new)  # younger, so the locked one is looked at before it
        run = watching(worker=LockedWorker())
        run.until(1)
        run.stop()
    assert [record.sha256 is None for record in _on_disk(here / "out")] == [True, False]
    (here / "in" / "a.png.locked").unlink()
    run = watching(worker=LockedWorker())
    run.until(1)
    run.stop()
    last = _on_disk(here / "out")[-1]
    assert (Path(last.line.image).name, last.verdict.value) == ("a.png", "NG")


def test_a_disk_that_refuses_a_records_pictures_ends_the_watch_and_costs_no_verdict(
    here: Path, plant: Any, watching: Callable[..., _Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAWSCOPE_HOME", str(here / "home"))
    monkeypatch.setenv("FLAWSCOPE_BACKBONE", "patch-statistics")
    monkeypatch.setenv("FLAWSCOPE_FALSE_ALARM", "0.15")
    shutil.copytree(plant.home / "products", here / "home" / "products")
    shutil.copy(plant.square, here / "in" / "square.png")
    (here / "out").mkdir()
    (here / "out" / "pictures").write_text("no folder")
    plan = WatchPlan(here / "in", here / "out", "plate", settle_s=0.1, look_s=0.05, limits=Limits(timeout_s=300.0))
    worker = CheapWorker(load_settings(), str(here / "out"))
    told: list[AuditRecord] = []
    with pytest.raises(StorageError, match="pictures"):
        Watch(load_settings(), plan, told.append, worker=worker).run(lambda: bool(told))
    assert _on_disk(here / "out") == []
    (here / "out" / "pictures").unlink()
    run = watching(worker=worker, limits=Limits(timeout_s=300.0))
    run.until(1)
    run.stop()
    assert [record.verdict.value for record in _on_disk(here / "out")] == ["NG"]


def test_a_link_to_nothing_is_said_once_and_inspected_when_its_file_is_there(
    here: Path, watching: Callable[..., _Running]
) -> None:
    def said(run: _Running) -> list[str]:
        return [text for text in run.notices if "link to nothing" in text]

    link, circle = here / "in" / "early.png", here / "in" / "circle.png"
    link.symlink_to(here / "late.png")
    circle.symlink_to(circle)
    (here / "in" / "early.txt").symlink_to(here / "late.txt")  # no picture by its name
    (here / "in" / "plain.png").write_bytes(b"good")
    run = watching()
    run.until(1)
    (here / "in" / "second.png").write_bytes(b"good")  # several looks later
    run.until(2)
    assert said(run) == [
        f"{path.parent.resolve() / path.name} is a link to nothing; it is inspected when its file is there."
        for path in (circle, link)
    ]
    assert _names(here / "out") == ["plain.png", "second.png"]
    (here / "late.png").write_bytes(b"bad")
    run.until(3)
    run.stop()
    assert run.records[-1].line.image == str(link.parent.resolve() / "early.png")
    assert run.records[-1].verdict.value == "NG"
    assert len(said(run)) == 2


@pytest.mark.parametrize("told", [False, True])
def test_a_link_that_breaks_later_is_found(here: Path, told: bool) -> None:
    root, settling = here / "in", Settling(1.0)
    (here / "target.png").write_bytes(b"a")
    (root / "a.png").symlink_to(here / "target.png")
    folder = WatchedFolder(root, here / "out", look_s=0.05)
    folder.look(settling)
    assert folder.links_to_nothing == set()
    assert [path.name for path in settling.changing] == ["a.png"]
    (here / "target.png").unlink()
    if not told:
        folder._next_look_s = 0.0  # everything is looked at, else what is changing alone
    folder.look(settling)
    assert folder.links_to_nothing == {folder.root / "a.png"}
    assert settling.changing == []
    folder.close()


def test_links_to_folders_are_not_followed_and_a_look_forgets_what_is_gone(here: Path) -> None:
    root = here / "in"
    (root / "a.png").write_bytes(b"a")
    (root / "loop").symlink_to(root)
    (root / "b.png").symlink_to(root / "a.png")
    settling = Settling(1.0)
    folder = WatchedFolder(root, here / "out", look_s=0.05)
    folder.look(settling)
    assert sorted(path.name for path in settling.changing) == ["a.png", "b.png"]
    assert folder.manner == "looking every 0.05 s"
    (root / "b.png").unlink()
    folder._next_look_s = 0.0
    folder.look(settling)
    assert [path.name for path in settling.changing] == ["a.png"]
    folder.close()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--publish", "mqtt://u:hunter2@b/t"), 2, "--publish cannot use that address"),
        (("--publish", "https://mes.example/x"), 2, "FLAWSCOPE_WEBHOOK_KEY"),
        (("--publish", "mqtt://127.0.0.1/t"), 8, "flawscope[mqtt]"),
        (("--metrics-port", "0"), 8, "flawscope[telemetry]"),
        (("--traces",), 8, "flawscope[telemetry]"),
        (("--name-pattern", "["), 2, "--name-pattern"),
        (("--settle", "0"), 2, "--settle"),
        (("--out", "in"), 2, "--out must not be the watched folder"),
    ],
)
def test_refusals_are_one_line_and_their_code(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from flawscope import cli
    from flawscope.edges import watch

    monkeypatch.setattr(watch, "InspectWorker", lambda loaded, out: ToyWorker())
    for module in ("paho.mqtt.client", "prometheus_client", "opentelemetry.sdk.trace"):
        monkeypatch.setitem(sys.modules, module, None)  # as in the plain install
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", ["flawscope", "watch", "in", "-p", "plate", "-o", "out", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == code
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert words in told.err
    assert "hunter2" not in told.err
