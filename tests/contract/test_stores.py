"""What every store must do, over gRPC too, and what only Milvus Lite can get wrong: locks, kills, damage."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flawscope.agent.errors import KnowledgeError, KnowledgeLockedError
from flawscope.benchmarks.lite_server import LiteServer, lite_server
from flawscope.tools.knowledge import milvus_collection
from flawscope.tools.knowledge.in_memory import InMemoryStore
from flawscope.tools.knowledge.milvus import MilvusLiteStore
from flawscope.tools.knowledge.milvus_server import MilvusServer, MilvusServerStore
from flawscope.tools.knowledge.store import LockRecord, Store

DIM = 4


def vector(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def record(doc_id: str, *values: float, product: str = "general", kind: str = "hole") -> LockRecord:
    return LockRecord(doc_id, vector(*values), product, kind)


X, Y = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)
BETWEEN = (3.0, 4.0, 0.0, 0.0)  # cosines 0.6 and 0.8


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteServer]:
    """A Milvus server in a process of its own."""
    with lite_server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


@pytest.fixture(params=["memory", "milvus", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store
    if request.param == "server":
        address = MilvusServer(request.getfixturevalue("milvus").uri, timeout_s=30.0)
        made = MilvusServerStore(address, f"of_{abs(hash(str(tmp_path)))}", DIM)
    else:
        made = InMemoryStore(DIM) if request.param == "memory" else MilvusLiteStore(tmp_path, DIM)
    yield made
    if isinstance(made, MilvusServerStore):
        made.drop()
    made.close()
    made.close()  # twice is harmless


def test_all_that_a_store_promises_in_one_life(store: Store) -> None:
    """One test for what needs no fresh store, since opening Milvus Lite costs a second."""
    assert isinstance(store, Store)
    assert store.search(vector(*X), 5) == []
    assert store.doc_ids() == set()
    store.upsert([])
    store.upsert([record("x", *X), record("y", *Y, product="gear"), record("between", *BETWEEN)])

    found = store.search(vector(2.0, 0.0, 0.0, 0.0), 5)  # the length of a key does not matter
    assert [hit.doc_id for hit in found] == ["x", "between", "y"]
    assert [hit.similarity for hit in found] == pytest.approx([1.0, 0.6, 0.0], abs=1e-6)
    assert [hit.doc_id for hit in store.search(vector(*X), 1)] == ["x"]
    assert [hit.doc_id for hit in store.search(-vector(*X), 5)][-1] == "x"

    assert [hit.doc_id for hit in store.search(vector(*X), 5, ["gear"])] == ["y"]
    assert [hit.doc_id for hit in store.search(vector(*X), 5, ["general", "gear"])] == ["x", "between", "y"]
    assert store.search(vector(*X), 5, ["nothing"]) == []
    assert store.search(vector(*X), 5, []) == []

    store.upsert([record("x", *Y, product="gear")])
    assert store.doc_ids() == {"x", "y", "between"}
    assert {hit.doc_id for hit in store.search(vector(*Y), 5, ["gear"])} == {"x", "y"}
    assert store.search(vector(*Y), 1)[0].similarity == pytest.approx(1.0)

    store.delete(["x", "never there"])
    store.delete([])
    assert store.doc_ids() == {"y", "between"}
    assert "x" not in {hit.doc_id for hit in store.search(vector(*Y), 5)}


TEXTS = {
    "a": "Burr along the edge of the punched hole",
    "b": "A scratch; the edge is sound",
    "c": "Scratches, scratching, scratched",
    "d": "",
    "e": "Scratch on the housing",
}


def test_words_find_the_same_texts_with_the_same_scores_in_every_store(store: Store) -> None:
    assert store.search_words("burr", 5) == []
    products = {"a": "gear", "e": "plug"}
    store.upsert(
        [LockRecord(name, vector(*X), products.get(name, "general"), f"t{name}", text) for name, text in TEXTS.items()]
    )
    found = store.search_words("burrs at the edges", 5)
    assert [hit.doc_id for hit in found] == ["a", "b"]
    assert [hit.doc_id for hit in store.search_words("scratched", 5)] == ["c", "e", "b"]
    # five texts of 5, 3, 3, 0 and 2 terms, mean 2.6; "burr" in one of them, "edge" in two
    length = {"a": 0.25 + 0.75 * 5 / 2.6, "b": 0.25 + 0.75 * 3 / 2.6}
    weight = {name: 2.5 / (1.0 + 1.5 * norm) for name, norm in length.items()}
    burr, edge = np.log1p(4.5 / 1.5), np.log1p(3.5 / 2.5)
    assert [hit.score for hit in found] == pytest.approx([(burr + edge) * weight["a"], edge * weight["b"]], rel=1e-5)
    assert [hit.score for hit in store.search_words("burr burr edge", 5)] == pytest.approx(
        [hit.score for hit in found], rel=1e-5
    )

    assert [hit.doc_id for hit in store.search_words("scratch edge", 5, ["gear", "plug"])] == ["a", "e"]
    assert [hit.doc_id for hit in store.search_words("scratch edge", 5, None, ["tb", "tc"])] == ["b", "c"]
    assert [hit.doc_id for hit in store.search(vector(*X), 5, None, ["tb", "te"])] == ["b", "e"]
    assert store.search_words("scratch", 5, ["plug"], ["ta"]) == []
    assert store.search_words("scratch", 5, None, []) == []
    assert store.search_words("the of and", 5) == store.search_words("", 5) == []
    assert len(store.search_words("scratch", 1)) == 1

    store.upsert([LockRecord("c", vector(*X), "general", "tc", "a dent")])
    store.delete(["e"])
    assert {hit.doc_id for hit in store.search_words("scratch", 5)} == {"b"}
    assert {hit.doc_id for hit in store.search_words("dented", 5)} == {"c"}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (record("b", np.nan, 0, 0, 1), "NaN"),
        (record("b", np.inf, 0, 0, 1), "NaN or infinity"),
        (record("b", 0, 0, 0, 0), "zero"),
        (record("b", 1e-9, 0, 0, 0), "zero"),
        (record("b", 1, 0, 0), r"shape \(3,\), expected \(4,\)"),
        (LockRecord("b", np.ones((1, 4), np.float32), "general", "hole"), "shape"),
        (record("", *X), "1 to 128 bytes"),
        (record("ä" * 65, *X), "1 to 128 bytes"),
        (record("b\udc80", *X), "no store can write"),
        (record("b", *X, product="bell\x07"), "product 'bell.x07' holds characters"),
        (record("b", *X, product="p" * 129), "product"),
        (record("b", *X, kind="k" * 129), "defect type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unusable_record_is_refused_and_nothing_of_its_batch_is_written(bad: LockRecord, reason: str) -> None:
    from flawscope.tools.knowledge.store import check_records

    memory = InMemoryStore(DIM)
    with pytest.raises(KnowledgeError, match=reason):
        memory.upsert([record("a", *X), bad])
    assert memory.doc_ids() == set()
    with pytest.raises(KnowledgeError, match=reason):
        check_records([record("a", *X), bad], DIM)  # which every store calls before it writes


def test_an_unusable_record_or_key_changes_nothing(store: Store) -> None:
    store.upsert([record("a", *X)])
    with pytest.raises(KnowledgeError, match="NaN"):
        store.upsert([record("b", *Y), record("c", np.nan, 0, 0, 1)])
    assert store.doc_ids() == {"a"}
    for key in (vector(0, 0, 0, 0), vector(np.nan, 0, 0, 0), vector(1, 0)):
        with pytest.raises(KnowledgeError):
            store.search(key, 3)


def test_the_last_of_two_records_of_one_id_counts(store: Store) -> None:
    store.upsert([record("a", *X), record("a", *Y)])
    assert store.doc_ids() == {"a"}
    assert store.search(vector(*Y), 5)[0].similarity == pytest.approx(1.0)
    assert len(store.search(vector(*Y), 5)) == 1


def test_equal_records_come_in_the_order_of_their_ids_whatever_the_limit(store: Store) -> None:
    rng = np.random.default_rng(0)
    same = rng.normal(size=DIM)
    names = [f"d{number:02d}" for number in rng.permutation(30)]
    store.upsert([record(name, *same) for name in names])
    for limit in (1, 7, 30, 99):
        assert [hit.doc_id for hit in store.search(vector(*rng.normal(size=DIM)), limit)] == sorted(names)[:limit]


ODD = ['quote"', "apo'strophe", "back\\slash", "ümläut", "日本語", "new\nline", "tab\t", "%like_", "a and b", "😀", " "]


def test_names_may_hold_any_characters(store: Store) -> None:
    rng = np.random.default_rng(0)
    store.upsert([record(f"id {name}", *rng.normal(size=DIM), product=name, kind=name) for name in ODD])
    assert store.doc_ids() == {f"id {name}" for name in ODD}
    for name in ODD:
        assert [hit.doc_id for hit in store.search(vector(*X), 5, [name])] == [f"id {name}"]
    found = store.search(vector(*X), 50, ['x"] or doc_id != "', "' or 1 == 1"])
    assert found == []  # a name is never part of the condition
    for unwritable in ("bell\x07", "half \udcff"):
        assert store.search(vector(*X), 5, [unwritable]) == []
        assert len(store.search(vector(*X), 5, [unwritable, "ümläut"])) == 1
    store.delete([f"id {name}" for name in ODD])
    assert store.doc_ids() == set()


def test_a_thousand_records_agree_with_brute_force(store: Store) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(1100, DIM)).astype(np.float32)
    store.upsert([LockRecord(f"d{n:04d}", v, "general", "hole") for n, v in enumerate(vectors)])
    assert len(store.doc_ids()) == 1100
    key = rng.normal(size=DIM).astype(np.float32)
    cosines = vectors @ key / np.linalg.norm(vectors, axis=1) / np.linalg.norm(key)
    best = np.argsort(-cosines)[:20]
    found = store.search(key, 20)
    assert [hit.doc_id for hit in found] == [f"d{n:04d}" for n in best]
    np.testing.assert_allclose([hit.similarity for hit in found], cosines[best], atol=1e-5)


def test_a_record_is_what_it_was_when_it_was_given(store: Store) -> None:
    mine = vector(*X)
    store.upsert([LockRecord("a", mine, "general", "hole")])
    mine[:] = Y
    assert store.search(vector(*X), 1)[0].similarity == pytest.approx(1.0)


# Milvus Lite


def test_more_than_milvus_gives_at_most_is_cut_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_collection, "MAX_LIMIT", 5)
    store = MilvusLiteStore(tmp_path, DIM)
    store.upsert([record(f"d{n}", 1, n, 0, 0) for n in range(8)])
    assert [hit.doc_id for hit in store.search(vector(*X), 7)] == [f"d{n}" for n in range(5)]
    store.close()


def test_reopening_sees_the_data(tmp_path: Path) -> None:
    first = MilvusLiteStore(tmp_path, DIM)
    first.upsert([record("a", *X)])
    first.close()
    second = MilvusLiteStore(tmp_path, DIM)
    assert [hit.doc_id for hit in second.search(vector(*X), 3)] == ["a"]
    second.close()


def test_vectors_of_another_length_are_refused_and_the_lock_is_let_go(tmp_path: Path) -> None:
    MilvusLiteStore(tmp_path, DIM).close()
    with pytest.raises(KnowledgeError, match="length 4, not 7"):
        MilvusLiteStore(tmp_path, 7)
    assert open_elsewhere(tmp_path) == "opened"


OPEN = """
import sys
from pathlib import Path
from flawscope.agent.errors import FlawscopeError
from flawscope.tools.knowledge.milvus import MilvusLiteStore
try:
    store = MilvusLiteStore(Path(sys.argv[1]), 4)
except FlawscopeError as error:
    print(type(error).__name__, error)
else:
    print("opened")
"""


def open_elsewhere(folder: Path) -> str:
    """Open the store in another process; what it printed. Standard error must stay silent."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_another_process_is_told_that_the_base_is_in_use(tmp_path: Path) -> None:
    first = MilvusLiteStore(tmp_path, DIM)
    second = MilvusLiteStore(tmp_path, DIM)  # the same process may open it twice
    second.close()
    first.upsert([record("a", *X)])  # and closing one leaves the other working
    told = open_elsewhere(tmp_path)
    assert told.startswith("KnowledgeLockedError the knowledge base is open in another process")
    assert "FLAWSCOPE_STORE=memory" in told
    first.close()
    assert open_elsewhere(tmp_path) == "opened"


def test_this_process_is_told_that_another_one_holds_the_lock(tmp_path: Path) -> None:
    hold = OPEN + "\nsys.stdout.flush()\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().strip() == "opened"
        with pytest.raises(KnowledgeLockedError):
            MilvusLiteStore(tmp_path, DIM)
        owner.kill()  # even a killed owner leaves no lock behind
        owner.wait()
        MilvusLiteStore(tmp_path, DIM).close()


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    write = OPEN + (
        "\nimport numpy as np, itertools\n"
        "from flawscope.tools.knowledge.store import LockRecord\n"
        "for n in itertools.count():\n"
        "    store.upsert([LockRecord(f'd{n}', np.ones(4, np.float32), 'general', 'hole')])\n"
        "    print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", write, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = -1
        for line in writer.stdout:
            if line.strip().isdigit():
                acknowledged = int(line)
            if acknowledged >= 3:
                break
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    store = MilvusLiteStore(tmp_path, DIM)
    assert {f"d{n}" for n in range(acknowledged + 1)} <= store.doc_ids()
    store.close()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 3, len(data), max(1, len(data) // 40)):
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": flip,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_store_is_a_named_error_or_still_sound(tmp_path: Path, how: str) -> None:
    """Every file of the store in turn: opening and searching either works or says in one line what to delete."""
    import shutil

    sound = tmp_path / "sound"
    sound.mkdir()
    store = MilvusLiteStore(sound, DIM)
    store.upsert([record("a", *X), record("b", *Y)])
    store.close()
    files = [path.relative_to(sound) for path in sorted(sound.rglob("*")) if path.is_file() and path.name != "LOCK"]
    assert files
    for number, relative in enumerate(files):
        folder = tmp_path / f"{number}"
        shutil.copytree(sound, folder)
        DAMAGES[how](folder / relative)
        told = ask_damaged(folder)
        assert told is None or "Delete that folder" in told, relative


def ask_damaged(folder: Path) -> str | None:
    """Open, search and list; the message of the named error, None when all of it worked."""
    try:
        damaged = MilvusLiteStore(folder, DIM)
    except KnowledgeError as error:
        return str(error)
    try:
        assert {hit.doc_id for hit in damaged.search(vector(*X), 5)} <= {"a", "b"}
        assert damaged.doc_ids() <= {"a", "b"}
    except KnowledgeError as error:
        return str(error)
    finally:
        damaged.close()
    return None
