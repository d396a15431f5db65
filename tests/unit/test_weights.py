"""The catalogue of weights, and the one function that downloads, against a server on this machine."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flawscope.agent.errors import ConfigError, MissingExtraError, StorageError, WeightsError
from flawscope.agent.settings import load_settings
from flawscope.tools.backbones import load_backbone
from flawscope.tools.weights import CATALOGUE, Weights, WeightsFile, check_files, find_weights, pull
from flawscope.tools.weights.pull import BLOCK_BYTES

BODY = bytes(range(256)) * 12_000  # 3 MB: several blocks
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Origin:
    """A web server with one file.

    Attributes:
        url: of the file.
        body: what it sends.
        cut_at: how many bytes it sends before it hangs up; None for all.
        ranges: whether it can begin in the middle.
        status: None, or the error it answers with.
        asked: the Range header of each request.
    """

    url: str = ""
    body: bytes = BODY
    cut_at: int | None = None
    ranges: bool = True
    status: int | None = None
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def origin() -> Iterator[Origin]:
    state = Origin()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if state.status is not None:
                self.send_error(state.status)
                return
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if begin and begin >= len(state.body):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(state.body) - begin))
            self.end_headers()
            with suppress(ConnectionError):  # the client may have left
                self.wfile.write(state.body[begin : state.cut_at])

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/weights.bin"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def one_file(origin: Origin, sha256: str | None = SHA256) -> Weights:
    return Weights("some-weights", "a test", "MIT", 3, (WeightsFile("weights.bin", origin.url, sha256),))


# --- the catalogue ----------------------------------------------------------------------------------------------------


def test_every_entry_says_where_from_how_large_and_under_which_licence() -> None:
    assert {"efficientnet-lite2", "clip-vit-l-14-336-openai", "qwen2.5-vl-7b", "qwen2.5-vl-3b"} <= set(CATALOGUE)
    for name, weights in CATALOGUE.items():
        assert weights.name == name
        assert weights.licence
        assert weights.size_mb > 0
        assert len({file.name for file in weights.files}) == len(weights.files)
        for file in weights.files:
            assert file.url.startswith("https://")
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{8,64}", file.sha256)


def test_openai_addresses_hold_the_hash_of_their_file() -> None:
    for name in ("clip-vit-l-14-336-openai", "clip-vit-l-14-openai", "clip-vit-b-16-openai"):
        (file,) = CATALOGUE[name].files
        assert file.url.split("/")[-2:] == [file.sha256, file.name]
        assert CATALOGUE[name].quick_gelu


def test_the_shipped_weights_are_whole(tmp_path: Path) -> None:
    assert [state.state for state in check_files(CATALOGUE["efficientnet-lite2"], tmp_path)] == ["ok"]
    assert [state.state for state in pull(CATALOGUE["efficientnet-lite2"], tmp_path)] == ["ok"]


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean clip-vit-b-16-openai\?"):
        find_weights("clip-vit-b16-openai")


# --- missing CLIP weights ---------------------------------------------------------------------------------------------


def test_missing_clip_weights_name_the_file_its_origin_and_its_place(home: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_backbone("clip", load_settings({"profile": "paper"}))
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        "flawscope models pull clip-vit-l-14-336-openai",
        CATALOGUE["clip-vit-l-14-336-openai"].files[0].url,
        str(home / "models" / "clip-vit-l-14-336-openai" / "ViT-L-14-336px.pt"),
    ):
        assert part in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip_weights": "/nowhere/clip.pt"}, r"no CLIP weights at /nowhere/clip\.pt.*clip_weights"),
        ({"clip_model": "ViT-L-14-336"}, "weights for ViT-L-14-336-quickgelu, which was trained with another"),
        ({"clip_model": "ViT-B-16-quickgelu"}, "clip-vit-b-16-openai"),
        ({"clip_model": "ViT-B-16"}, "clip-vit-b-16-laion400m"),
        ({"clip_model": "ViT-H-14"}, "no CLIP weights for ViT-H-14.*clip_weights"),
    ],
)
def test_what_is_missing_is_told_with_the_remedy(settings: dict[str, str], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        load_backbone("clip", load_settings(settings))


def test_weights_without_the_extra_name_the_extra(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = home / "models" / "clip-vit-l-14-336-openai" / "ViT-L-14-336px.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"flawscope\[clip\]"):
        load_backbone("clip", load_settings({"profile": "paper"}))


# --- pull -------------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_verified_and_not_fetched_again(origin: Origin, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    (state,) = pull(one_file(origin), tmp_path, lambda *step: told.append(step))
    assert (state.state, state.sha256) == ("ok", SHA256)
    assert (tmp_path / "some-weights" / "weights.bin").read_bytes() == BODY
    assert [path.name for path in state.path.parent.iterdir()] == ["weights.bin"]
    assert told[0] == ("weights.bin", 0, len(BODY))
    assert told[-1] == ("weights.bin", len(BODY), len(BODY))
    pull(one_file(origin), tmp_path)
    assert origin.asked == [None]


def test_a_damaged_file_is_replaced(origin: Origin, tmp_path: Path) -> None:
    weights = one_file(origin)
    place = tmp_path / "some-weights" / "weights.bin"
    place.parent.mkdir()
    place.write_bytes(b"cut off")
    assert check_files(weights, tmp_path)[0].state == "damaged"
    assert pull(weights, tmp_path)[0].state == "ok"
    assert place.read_bytes() == BODY


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on(origin: Origin, tmp_path: Path, ranges: bool) -> None:
    origin.ranges, origin.cut_at = ranges, BLOCK_BYTES + 5
    with pytest.raises(WeightsError, match=r"broke off at 1\.0 of 3\.1 MB.*go on\. Fetch http.*put it at") as caught:
        pull(one_file(origin), tmp_path)
    assert str(tmp_path / "some-weights" / "weights.bin") in str(caught.value)
    assert not (tmp_path / "some-weights" / "weights.bin").exists()
    origin.cut_at = None
    assert pull(one_file(origin), tmp_path)[0].state == "ok"
    assert origin.asked == [None, f"bytes={BLOCK_BYTES + 5}-"]
    assert (tmp_path / "some-weights" / "weights.bin").read_bytes() == BODY


def test_without_a_published_hash_a_part_is_not_continued(origin: Origin, tmp_path: Path) -> None:
    origin.cut_at = BLOCK_BYTES
    with pytest.raises(WeightsError, match="broke off"):
        pull(one_file(origin, None), tmp_path)
    origin.cut_at = None
    (state,) = pull(one_file(origin, None), tmp_path)
    assert (state.state, state.sha256, origin.asked) == ("unverified", SHA256, [None, None])


def test_a_part_that_is_longer_than_the_file_begins_anew(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "some-weights").mkdir()
    (tmp_path / "some-weights" / ".weights.bin.part").write_bytes(BODY + b"more")
    assert pull(one_file(origin), tmp_path)[0].state == "ok"
    assert origin.asked == [f"bytes={len(BODY) + 4}-", None]


def test_another_file_than_the_published_one_is_thrown_away(origin: Origin, tmp_path: Path) -> None:
    origin.body = BODY[::-1]
    with pytest.raises(WeightsError, match="is not the published file"):
        pull(one_file(origin), tmp_path)
    assert list((tmp_path / "some-weights").iterdir()) == []


def test_published_first_digits_are_compared(origin: Origin, tmp_path: Path) -> None:
    assert pull(one_file(origin, SHA256[:8]), tmp_path)[0].state == "ok"
    with pytest.raises(WeightsError, match="is not the published file"):
        pull(replace(one_file(origin, "0" * 8), name="others"), tmp_path)


def test_an_origin_that_refuses_is_quoted(origin: Origin, tmp_path: Path) -> None:
    origin.status = 404
    with pytest.raises(WeightsError, match=r"answers 404 .*Fetch http.*put it at"):
        pull(one_file(origin), tmp_path)
    assert list((tmp_path / "some-weights").iterdir()) == []


def test_no_network_is_told_with_the_way_by_hand(tmp_path: Path) -> None:
    with socket.socket() as unused:  # bound and not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/weights.bin"
        weights = one_file(Origin(url))
        with pytest.raises(WeightsError, match=r"cannot be downloaded: .*refused") as caught:
            pull(weights, tmp_path)
    for part in (url, str(tmp_path / "some-weights" / "weights.bin"), SHA256):
        assert part in str(caught.value)
    assert list((tmp_path / "some-weights").iterdir()) == []


def test_a_silent_origin_is_left_after_the_timeout(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/weights.bin"
        with pytest.raises(WeightsError, match=r"cannot be downloaded: .*timed out"):
            pull(one_file(Origin(url)), tmp_path, timeout_s=0.2)


def test_two_processes_do_not_write_the_same_part(origin: Origin, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "some-weights").mkdir()
    with (tmp_path / "some-weights" / ".weights.bin.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"another process is downloading weights\.bin"):
            pull(one_file(origin), tmp_path)
    assert origin.asked == []


def test_a_full_disk_is_told_before_the_download(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"weights\.bin needs 3 MB"):
        pull(one_file(origin), tmp_path)


def test_an_empty_answer_is_not_a_file(origin: Origin, tmp_path: Path) -> None:
    origin.body = b""
    with pytest.raises(WeightsError, match="is empty"):
        pull(one_file(origin), tmp_path)
    assert list((tmp_path / "some-weights").iterdir()) == []
