"""What every test gets: a home of its own, no network, and (when asked) one small enrolled product a session."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can say `from fakes import ...` under importlib mode

from fakes import PatchStatistics, enlarged, texture, with_scratch, with_square

from flawscope.agent.artifacts import ArtifactStore
from flawscope.agent.inspector import InspectionDeps
from flawscope.agent.settings import LoadedSettings, load_settings
from flawscope.tools.backbones import BACKBONES, Backbone

collect_ignore = [] if importlib.util.find_spec("torch") else ["full"]
"""The plain install has no torch, and must not need it; the full one runs these by name."""
if not importlib.util.find_spec("mcp"):  # of the extra `services`, as are the other clients that these tests need
    collect_ignore.append("services")

# How long an example takes is a matter of the machine: a stall of a fifth of a second would fail a test by default.
hypothesis_settings.register_profile("flawscope", deadline=None)
hypothesis_settings.load_profile("flawscope")


def pytest_addoption(parser: pytest.Parser) -> None:
    """With which checkpoint the tests of a real server run; a random one is made where none is given."""
    parser.addoption("--served-checkpoint", type=Path, help="folder of a Qwen2.5-VL checkpoint, such as a trained mini")


FEW_DOCUMENTS = frozenset(
    {"general.scratch", "general.crack", "general.hole", "general.stain", "general.dent", "textile.good"}
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FLAWSCOPE_HOME in the test's own folder, and no other setting from the developer's shell."""
    for key in list(os.environ):
        if key.startswith(("FLAWSCOPE_", "MILVUS_")):
            monkeypatch.delenv(key)
    monkeypatch.setenv("FLAWSCOPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """A test that reaches beyond this machine fails at the attempt."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(family: int, address: Any) -> None:
        if family not in (socket.AF_INET, socket.AF_INET6):
            return
        host = str(address[0])
        try:
            local = ipaddress.ip_address(host.split("%")[0]).is_loopback
        except ValueError:
            local = host == "localhost"
        if not local:
            raise RuntimeError(f"a test tried to reach {host}")

    def guarded(self: socket.socket, address: Any) -> None:
        check(self.family, address)
        connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        check(self.family, address)
        return connect_ex(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded)
    patch.setattr(socket.socket, "connect_ex", guarded_ex)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def embedded_backbone() -> Backbone:
    """The shipped backbone on one thread."""
    from flawscope.tools.backbones.onnx_lite import EfficientNetLite2

    return EfficientNetLite2(threads=1)


@dataclass(frozen=True)
class Plant:
    """A home with the enrolled product ``plate`` and pictures to inspect; read it, do not write to it.

    Attributes:
        home: for FLAWSCOPE_HOME; its knowledge base holds FEW_DOCUMENTS.
        good: references that the product was enrolled with.
        new_good: a good picture that it has not seen.
        square: a picture with a red square at the upper left.
        scratch: a picture with a line below the middle.
        flat: a picture of one colour.
    """

    home: Path
    good: tuple[Path, ...]
    new_good: Path
    square: Path
    scratch: Path
    flat: Path

    def loaded(self, **flags: Any) -> LoadedSettings:
        """Settings on this home: the cheap backbone, the store in memory."""
        given = {"home": self.home, "backbone": "patch-statistics", "store": "memory", "false_alarm": 0.15, **flags}
        return load_settings(given, environ={})

    def deps(self, artifacts: Path | None = None, **flags: Any) -> InspectionDeps:
        """What the graph works with."""
        return InspectionDeps(self.loaded(**flags), ArtifactStore(artifacts))


def save(folder: Path, name: str, pixels: Any) -> Path:
    """Write a PNG of five times the side (480 px from 96)."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(enlarged(pixels)).save(folder / name, compress_level=1)
    return folder / name


@pytest.fixture(scope="session")
def _cheap_parts() -> Iterator[None]:
    """The cheap backbone in the registry, and a knowledge base of few documents."""
    from flawscope.tools.knowledge import builder, schema

    few = tuple(page for page in schema.load_documents() if page.doc_id in FEW_DOCUMENTS)
    assert len(few) == len(FEW_DOCUMENTS)
    patch = pytest.MonkeyPatch()
    patch.setitem(BACKBONES, "patch-statistics", PatchStatistics)
    patch.setattr(builder, "load_documents", lambda: few)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory, _cheap_parts: None) -> Plant:
    """The product ``plate``: 12 references and three examples each of two defect types."""
    from flawscope.tools.products import enroll_product

    root = tmp_path_factory.mktemp("plant")
    good = tuple(save(root / "good", f"{seed:02d}.png", texture(seed)) for seed in range(12))
    for seed in range(3):
        save(root / "defects" / "hole", f"{seed}.png", with_square(texture(50 + seed), 30 + 8 * seed, 40))
        save(root / "defects" / "scratch", f"{seed}.png", with_scratch(texture(60 + seed), 20 + 20 * seed))
    enroll_product(root / "home" / "products", "plate", good, PatchStatistics(), defects=root / "defects")
    look = root / "look"
    return Plant(
        home=root / "home",
        good=good,
        new_good=save(look, "good.png", texture(100)),
        square=save(look, "square.png", with_square(texture(101))),
        scratch=save(look, "scratch.png", with_scratch(texture(102))),
        flat=save(look, "flat.png", texture(0) * 0 + 90),
    )
