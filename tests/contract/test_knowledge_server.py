"""A base on a Milvus server: filled, shared by processes, kept apart from others, and away at any moment."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW_DOCUMENTS
from fakes import PatchStatistics, texture, with_square

from flawscope.agent.errors import KnowledgeError, KnowledgeUnreachableError
from flawscope.benchmarks.lite_server import LiteServer, free_port, lite_server
from flawscope.tools.knowledge import remote
from flawscope.tools.knowledge.base import KnowledgeBase
from flawscope.tools.knowledge.builder import content_hash, open_knowledge_base
from flawscope.tools.knowledge.features import image_part
from flawscope.tools.knowledge.in_memory import InMemoryStore
from flawscope.tools.knowledge.milvus_server import MilvusServer, MilvusServerStore
from flawscope.tools.knowledge.plant import FOLDER, PlantStore
from flawscope.tools.knowledge.plant_page import page_from_note
from flawscope.tools.knowledge.schema import load_documents
from flawscope.tools.knowledge.verification import verify_knowledge

FEW = tuple(page for page in load_documents() if page.doc_id in FEW_DOCUMENTS)
KEY = image_part(PatchStatistics().encode_image(with_square(texture(1))[None]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished base that no server holds yet; copy it before opening it."""
    folder = tmp_path_factory.mktemp("built")
    open_knowledge_base(folder, PatchStatistics(), documents=FEW, store="memory").close()
    return folder


@pytest.fixture
def knowledge(built: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(built, tmp_path / "knowledge"))


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteServer]:
    """A server for tests that leave it running."""
    with lite_server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


def opened(folder: Path, server: LiteServer, **changes: Any) -> KnowledgeBase:
    address = MilvusServer(server.uri, **{"timeout_s": 20.0, **changes})
    return open_knowledge_base(folder, PatchStatistics(), documents=FEW, server=address)


def ids(base: KnowledgeBase) -> list[str]:
    return [page.doc_id for page in base.retrieve(KEY, "a round hole", product=None, k=3).documents]


def home_of(folder: Path) -> Path:
    return folder / content_hash(FEW, PatchStatistics())[:16]


ASK = """
import sys
sys.path[:0] = {paths!r}
from test_knowledge_server import *
base = open_knowledge_base(
    Path({folder!r}), PatchStatistics(), documents=FEW, server=MilvusServer({uri!r}, timeout_s=20.0)
)
print(*ids(base))
"""


def ask_elsewhere(folder: Path, server: LiteServer) -> subprocess.Popen[str]:
    """Open the base in another process and search it."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = ASK.format(paths=paths, folder=str(folder), uri=server.uri)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_finds_what_the_copy_in_memory_finds_and_is_filled_once(
    knowledge: Path, milvus: LiteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = open_knowledge_base(knowledge, PatchStatistics(), documents=FEW, store="memory")
    base = opened(knowledge, milvus)
    assert ids(base) == ids(memory)
    assert [f.page.doc_id for f in base.search("a round hole")] == [
        f.page.doc_id for f in memory.search("a round hole")
    ]
    assert base.away is None
    base.close()
    written: list[int] = []
    monkeypatch.setattr(MilvusServerStore, "upsert", lambda self, records: written.append(len(records)))
    opened(knowledge, milvus).close()
    assert sum(written) == 0


def test_two_that_fill_it_at_once_end_with_one_whole_base(knowledge: Path, milvus: LiteServer) -> None:
    asked = [ask_elsewhere(knowledge, milvus) for _ in range(2)]
    told = [process.communicate(timeout=120) for process in asked]
    assert [err for _, err in told] == ["", ""]
    assert told[0][0] == told[1][0]
    assert told[0][0].split() == ids(opened(knowledge, milvus))
    assert found_by_verification(knowledge, milvus) == ([], [])


def found_by_verification(folder: Path, server: LiteServer) -> tuple[list[str], list[str]]:
    seen = verify_knowledge(folder, PatchStatistics(), milvus=True, server=MilvusServer(server.uri), documents=FEW)
    return seen.problems, seen.notes


def test_verification_reads_the_server_and_changes_nothing(knowledge: Path, milvus: LiteServer) -> None:
    problems, notes = found_by_verification(knowledge, milvus)
    assert not problems
    assert "not complete" in notes[0]
    base = opened(knowledge, milvus)
    store = MilvusServerStore(
        MilvusServer(milvus.uri), remote.collection_of(home_of(knowledge)), base._space.dim, create=False
    )
    base.close()
    store.delete(["general.hole"])
    assert found_by_verification(knowledge, milvus)[0] == ["general.hole: missing in the Milvus store"]
    opened(knowledge, milvus).close()  # what is missing is put back
    assert found_by_verification(knowledge, milvus) == ([], [])
    store.drop()
    store.close()
    assert "has no collection" in found_by_verification(knowledge, milvus)[0][0]


def test_collections_differ_by_base_and_by_plant(knowledge: Path, tmp_path: Path) -> None:
    first = remote.collection_of(home_of(knowledge))
    assert first == remote.collection_of(home_of(knowledge))
    assert first.startswith("flawscope_")
    assert first.replace("_", "").isalnum()
    assert first != remote.collection_of(knowledge / "another")
    copy = Path(shutil.copytree(knowledge, tmp_path / "copy"))
    assert remote.collection_of(home_of(copy)) != first
    assert remote.collection_of(home_of(knowledge)) == first
    (knowledge / remote.IDENTITY).write_text("{}")
    with pytest.raises(KnowledgeError, match="damaged"):
        remote.collection_of(home_of(knowledge))


def test_of_two_that_draw_a_name_at_once_both_take_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"plant": "00000001", "folder": str(tmp_path.resolve())}

    def meanwhile(count: int) -> str:
        (tmp_path / remote.IDENTITY).write_text(json.dumps(first))
        return "ffffffff"

    exists = Path.exists
    monkeypatch.setattr(remote.secrets, "token_hex", meanwhile)
    monkeypatch.setattr(Path, "exists", lambda path: path.name != remote.IDENTITY and exists(path))
    assert remote.identity(tmp_path) == "00000001"
    assert [path.name for path in tmp_path.iterdir()] == [remote.IDENTITY]


def test_a_base_opens_without_its_server_and_finds_it_later(
    knowledge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    address = MilvusServer(f"http://127.0.0.1:{port}", timeout_s=20.0)
    with pytest.raises(KnowledgeUnreachableError, match="cannot be reached"):
        open_knowledge_base(knowledge, PatchStatistics(), documents=FEW, server=replace(address, required=True))
    base = open_knowledge_base(knowledge, PatchStatistics(), documents=FEW, server=address)
    assert base.away is not None
    with pytest.raises(KnowledgeUnreachableError, match="cannot be reached"):
        ids(base)
    assert base.documents_about("hole", None)  # what needs no search is there
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")  # a plant's own server is not asked through one
    with lite_server(tmp_path / "data", port):
        base._store._again = 0.0  # type: ignore[attr-defined]  # as if the rest after the last attempt were over
        assert ids(base) == ids(open_knowledge_base(knowledge, PatchStatistics(), documents=FEW, store="memory"))
        assert base.away is None
    base.close()
    assert capfd.readouterr().err == ""


def test_who_reaches_the_server_late_takes_nothing_from_those_who_know_more(knowledge: Path, tmp_path: Path) -> None:
    port = free_port()
    address = MilvusServer(f"http://127.0.0.1:{port}", timeout_s=20.0)
    late = open_knowledge_base(knowledge, PatchStatistics(), documents=FEW, server=address)
    assert late.away is not None
    plant = PlantStore(knowledge / FOLDER)
    page = page_from_note(
        "xylophone marks",
        "plate",
        type_name="hole",
        doc_id=None,
        taken=(),
        author="Kim",
        created="2026-01-01",
        box=None,
        picture_name=None,
    )
    with plant.locked():
        plant.add(page, None, "")
    with lite_server(tmp_path / "data", port) as server:
        knowing = opened(knowledge, server)
        late._store._again = 0.0  # type: ignore[attr-defined]  # as if the rest after the last attempt were over
        assert late.search("xylophone") == ()
        assert [found.page.doc_id for found in knowing.search("xylophone")] == [page.doc_id]
        assert found_by_verification(knowledge, server) == ([], [])
        knowing.close()
        late.close()


def test_a_server_that_is_killed_started_again_or_halted(
    knowledge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote, "REST", 0.0)
    with lite_server(tmp_path / "data") as first:
        base = opened(knowledge, first)
        found = ids(base)
        first.process.kill()
        first.process.wait(timeout=10)
        with pytest.raises(KnowledgeUnreachableError, match="cannot be reached"):
            ids(base)
        with lite_server(tmp_path / "data", first.port):
            assert ids(base) == found
        with lite_server(tmp_path / "data", first.port) as third:  # between two searches, which notice nothing
            assert ids(base) == found
            third.halt()
            hasty = opened(knowledge, third, timeout_s=2.0)  # enough for the answers of a busy machine
            assert "does not answer within 2 s" in str(hasty.away)
            third.process.send_signal(signal.SIGCONT)
            assert ids(hasty) == found
            third.halt()
            with pytest.raises(KnowledgeUnreachableError, match="does not answer within 2 s"):
                ids(hasty)
            hasty.close()
    base.close()
    assert capfd.readouterr().err == ""


def test_after_waiting_in_vain_calls_fail_at_once_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now, tried = [100.0], []

    def connect() -> Any:
        tried.append(now[0])
        now[0] += 3.0
        raise KnowledgeUnreachableError("the server sleeps.")

    monkeypatch.setattr(remote.time, "monotonic", lambda: now[0])
    store = remote.RemoteStore(connect, 4)
    for _ in range(5):
        with pytest.raises(KnowledgeUnreachableError, match="sleeps"):
            store.doc_ids()
    assert tried == [100.0]
    now[0] = 103.0 + 30.0
    with pytest.raises(KnowledgeUnreachableError):
        store.doc_ids()
    assert tried == [100.0, 133.0]


def test_a_thread_that_finds_the_server_away_takes_no_connection_from_under_another() -> None:
    both = threading.Barrier(2, timeout=0.5)
    ended: list[str] = []

    class Dropped(InMemoryStore):
        """Fails for whoever lists ids; whoever searches meanwhile must still have a connection."""

        open = True

        def doc_ids(self) -> set[str]:
            with suppress(threading.BrokenBarrierError):
                both.wait()
            raise KnowledgeUnreachableError("the server went away.")

        def search(self, key: Any, limit: int, products: Any = None, types: Any = None) -> list[Any]:
            with suppress(threading.BrokenBarrierError):
                both.wait()
            listing.join(0.2)
            ended.append("open" if self.open else "closed")
            return []

        def close(self) -> None:
            self.open = False

    store = remote.RemoteStore(lambda: Dropped(4), 4)
    store.reach()

    def ask(question: Callable[[], Any]) -> None:
        with suppress(KnowledgeUnreachableError):
            question()

    listing = threading.Thread(target=ask, args=(store.doc_ids,))
    searching = threading.Thread(target=ask, args=(lambda: store.search(np.ones(4, np.float32), 1),))
    for thread in (listing, searching):
        thread.start()
    for thread in (listing, searching):
        thread.join()
    assert "closed" not in ended


def test_a_refused_token_is_no_server_that_is_away() -> None:
    import grpc

    class Refusal(grpc.RpcError):
        def code(self) -> Any:
            return grpc.StatusCode.UNAUTHENTICATED

    store = MilvusServerStore.__new__(MilvusServerStore)
    store._server, store._place = MilvusServer("http://here:1", "hush"), "the knowledge server http://here:1"
    refused = store._failure("connecting", Refusal())
    assert type(refused) is KnowledgeError
    assert "refuses the token" in str(refused)
    assert "hush" not in str(store._failure("search", OSError("no such user: hush")))
    assert "hus" not in str(store._failure("search", OSError(f"{'x' * 197}hush")))  # where the reason is cut
    assert "hush" not in repr(store._server)
    assert store._wait("search") == {"timeout": 3.0}
    assert store._wait("query") == store._wait("upsert") == {"timeout": 60.0}  # these grow with the base
