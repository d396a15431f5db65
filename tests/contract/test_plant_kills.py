"""kill -9 while pages are added: what was acknowledged is there, nothing is half there, and nothing is at fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import FEW_DOCUMENTS
from fakes import PatchStatistics

from flawscope.tools.knowledge import builder, schema
from flawscope.tools.knowledge.plant import FOLDER, PlantStore
from flawscope.tools.knowledge.verification import verify_knowledge

KILLS = 20
SCRIPT = """
import io, os, random, signal, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import pymilvus, milvus_lite.server_manager
from PIL import Image
from fakes import PatchStatistics, texture, with_square
from flawscope.tools import views
from flawscope.tools.knowledge import builder, milvus, schema
from flawscope.tools.knowledge.plant import FOLDER, PlantStore
from flawscope.tools.knowledge.plant_page import page_from_note
few = tuple(page for page in schema.load_documents() if page.doc_id in {few!r})
folder = Path({folder!r})

def add_many(channel, run):
    store = PlantStore(folder / FOLDER)
    for number in range(50):
        name = f"plate.burr.{{run}}-{{number}}"
        file = io.BytesIO()
        Image.fromarray(with_square(texture(100 * run + number))).save(file, "PNG")
        with store.locked():
            page = page_from_note("burr", "plate", type_name=None, doc_id=name, taken=(), author="a", created="c",
                                  box=(12, 14, 32, 34), picture_name="picture.png")
            store.add(page, file.getvalue(), "0" * 16)
            builder.open_knowledge_base(folder, PatchStatistics(), documents=few).close()
        os.write(channel, (name + "\\n").encode())

random.seed(0)
for run in range({kills}):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        add_many(writer, run)
        os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as told:
        if run % 2:  # half of them die at their first page, the others after one is acknowledged
            sys.stdout.write(told.readline())
        time.sleep(random.uniform(0.0, 0.7))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        sys.stdout.write(told.read())
"""


def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    few = tuple(page for page in schema.load_documents() if page.doc_id in FEW_DOCUMENTS)
    builder.open_knowledge_base(tmp_path, PatchStatistics(), documents=few).close()
    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1]), few=sorted(FEW_DOCUMENTS), folder=str(tmp_path), kills=KILLS
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    acknowledged = done.stdout.split()
    assert len(acknowledged) >= KILLS // 2
    store = PlantStore(tmp_path / FOLDER)
    there = {document.page.doc_id: document for document in store.current()}
    assert set(acknowledged) <= set(there)
    for document in there.values():
        assert store.picture(document)
    assert verify_knowledge(tmp_path, PatchStatistics(), milvus=True, documents=few).problems == []
    base = builder.open_knowledge_base(tmp_path, PatchStatistics(), documents=few)  # finishes what was cut off
    try:
        assert base._store.doc_ids() == {*FEW_DOCUMENTS, *there}
    finally:
        base.close()
    after = verify_knowledge(tmp_path, PatchStatistics(), milvus=True, documents=few)
    assert (after.problems, after.notes) == ([], [])
    assert after.counts["records in Milvus"] == len(few) + len(there)
