"""The MCP server tried with the official client, over standard input/output and over HTTP, each in its own process."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from conftest import Plant
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from flawscope.agent.errors import ConfigError, InputError
from flawscope.agent.mcp_tools import OVERLAY_SIDE_PX, Roots
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.audits.folder import HEADER_NAME
from flawscope.audits.record_file import RECORDS_NAME, RecordWriter
from flawscope.audits.records import AuditHeader, AuditRecord, RecordError, Timing, WorklistLine
from flawscope.tools.control_plan.store import PlanStore

CLI = Path(__file__).parents[1] / "cli" / "cheap_cli.py"
PLAN = "products:\n  - product: plate\n    severity: 9\n"
LONGEST_CALL_S = 240.0
TOKEN = "f0e1d2c3b4a5968778695a4b3c2d1e0f"


@dataclass(frozen=True)
class Line:
    """A plant as a server sees it: pictures in a root, and one outside of it."""

    root: Path
    outside: Path
    environ: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(CLI), "mcp", "--root", str(self.root), *arguments]


@pytest.fixture(scope="module")
def line(plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp("line")
    plant.deps().knowledge.close()  # built once, there
    shutil.copytree(plant.home, folder / "home")
    PlanStore(folder / "home" / "plans").set("plate", PLAN, author="Bob")
    (folder / "home" / "products" / "broken").mkdir()
    shutil.copytree(plant.square.parent, folder / "root" / "pictures")
    (folder / "root" / "text.png").write_text("no picture")
    shutil.copy(plant.square, folder / "secret.png")
    (folder / "root" / "link.png").symlink_to(folder / "secret.png")
    given = {"HOME": str(folder / "home"), "BACKBONE": "patch-statistics", "STORE": "memory", "FALSE_ALARM": "0.15"}
    environ = {f"FLAWSCOPE_{name}": value for name, value in given.items()}
    return Line(folder / "root", folder / "secret.png", {**environ, "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]})


@contextmanager
def serving(line: Line, environ: dict[str, str], more: str = "") -> Iterator[str]:
    """The address of a server that speaks HTTP; it ends by the signal that a service manager sends."""
    command = line.command("--http", "--port", "0")
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)
    assert server.stderr is not None
    said = server.stderr.readline()
    found = re.fullmatch(rf"flawscope: MCP at (http://127\.0\.0\.1:\d+/mcp){more}\n", said)
    assert found is not None, said + server.stderr.read()
    try:
        yield found[1]
    finally:
        server.send_signal(signal.SIGTERM)
        rest = server.communicate(timeout=60)[1]
    assert "Traceback" not in rest
    assert TOKEN not in said + rest


@pytest.fixture(scope="module")
def address(line: Line) -> Iterator[str]:
    """Of a server that asks for no token."""
    with serving(line, line.environ) as found:
        yield found


@pytest.fixture(params=["stdio", "http"])
def connected(request: pytest.FixtureRequest, line: Line) -> Any:
    """What the official client connects to."""
    if request.param == "http":
        return request.getfixturevalue("address")
    command, *arguments = line.command()
    return StdioServerParameters(command=command, args=arguments, env=line.environ)


def talk(connected: Any, conversation: Callable[[Client], Awaitable[Any]]) -> Any:
    """What a conversation with the server comes to."""

    async def main() -> Any:
        async with Client(connected, read_timeout_seconds=LONGEST_CALL_S) as client:
            return await conversation(client)

    return asyncio.run(main())


def call(connected: Any, tool: str, **arguments: Any) -> Any:
    return talk(connected, lambda client: client.call_tool(tool, arguments))


def failure(result: Any) -> str:
    """The one line of a tool's error."""
    assert result.is_error
    assert result.structured_content is None
    (content,) = result.content
    assert "\n" not in content.text
    return str(content.text)


def test_the_whole_conversation(connected: Any, line: Line) -> None:
    async def conversation(client: Client) -> None:
        assert client.server_info.name == "flawscope"
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"inspect", "products", "knowledge_search", "audit_status"}
        assert all(tool.output_schema and tool.description for tool in tools.values())
        wanted = InspectionReport.model_json_schema()["properties"]
        assert set(tools["inspect"].output_schema["properties"]) == set(wanted)
        assert tools["inspect"].input_schema["required"] == ["image"]

        found = await client.call_tool("products", {})
        by_name = {product["name"]: product for product in found.structured_content["products"]}
        assert by_name["plate"] == {
            "name": "plate",
            "references": 12,
            "defect_types": ["hole", "scratch"],
            "control_plan_version": 1,
            "problem": "",
        }
        assert "damaged" in by_name["broken"]["problem"]

        asked = {"image": "pictures/square.png", "product": "plate", "overlay": True}
        found = await client.call_tool("inspect", asked)
        report = InspectionReport.model_validate(found.structured_content)
        assert (report.verdict, report.image, report.provenance) == ("NG", "pictures/square.png", {})
        text, drawn = found.content
        assert InspectionReport.model_validate_json(text.text) == report
        with Image.open(io.BytesIO(base64.b64decode(drawn.data))) as picture:
            assert (drawn.mime_type, picture.format) == ("image/png", "PNG")
            assert max(picture.size) <= OVERLAY_SIDE_PX

        found = await client.call_tool("inspect", {"image": str(line.root / "pictures/good.png"), "product": "plate"})
        assert found.structured_content["verdict"] == "OK"
        assert [content.type for content in found.content] == ["text"]

        found = await client.call_tool("knowledge_search", {"query": "round hole", "k": 2})
        pages = found.structured_content["documents"]
        assert len(pages) == 2
        assert all(page["doc_id"].startswith("general.") and page["text"] for page in pages)

    talk(connected, conversation)


def test_only_the_roots_are_read(connected: Any, line: Line) -> None:
    async def conversation(client: Client) -> list[str]:
        said = []
        for path in (str(line.outside), "../secret.png", "link.png", "/etc/passwd", "nowhere.png", "a\0b", "x" * 5000):
            result = await client.call_tool("inspect", {"image": path, "product": "plate"})
            said.append(failure(result).replace(repr(path), "PATH"))
            result = await client.call_tool("knowledge_search", {"image": path})
            said.append(failure(result).replace(repr(path), "PATH"))
        result = await client.call_tool("audit_status", {"folder": str(line.outside.parent)})
        said.append(failure(result).replace(repr(str(line.outside.parent)), "PATH"))
        return said

    assert set(talk(connected, conversation)) == {"PATH is not in the folders that this server may read."}


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"image": "text.png", "product": "plate"}, "text.png"),
        ({"image": "pictures/good.png", "product": "plat"}, "no product 'plat'."),
        ({"image": "pictures/good.png", "product": "../plate"}, "cannot name a product"),
        ({"image": "pictures/good.png", "produkt": "plate"}, "unknown argument 'produkt'"),
        ({}, "image: Field required"),
        ({"image": ["a.png"]}, "image: Input should be a valid string"),
    ],
)
def test_failures_are_one_line(address: str, line: Line, arguments: dict[str, Any], wanted: str) -> None:
    said = failure(call(address, "inspect", **arguments))
    assert wanted in said
    assert str(line.root) not in said


def test_other_failures(address: str) -> None:
    assert failure(call(address, "melt")) == "Unknown tool: melt"
    assert failure(call(address, "knowledge_search", query="a", k=99)).startswith("k: Input should be less than")
    assert "neither a picture nor a word" in failure(call(address, "knowledge_search"))
    assert "records" in failure(call(address, "audit_status", folder="pictures"))


def test_how_far_an_audit_is(address: str, line: Line) -> None:
    folder = line.root / "audit"
    folder.mkdir()
    header = AuditHeader(flawscope="1", started="2026-01-01T00:00:00Z", settings={}, lines=3, worklist_sha256="0")
    (folder / HEADER_NAME).write_text(header.model_dump_json())
    failed = RecordError(kind="input", message="broken", exit_code=4)
    for number, (verdict, error) in enumerate([("NG", None), ("REVIEW", failed), ("NG", None)], start=1):
        found = AuditRecord(
            id=f"{number:032x}",
            line=WorklistLine(number=number, image="a.png"),
            sha256=None,
            verdict=Verdict(verdict),
            error=error,
            settings_sha256="0" * 64,
            timing=Timing(finished="2026-01-01T00:00:01Z"),
        )
        with RecordWriter(folder / RECORDS_NAME) as writer:
            writer.append([found])
        status = call(address, "audit_status", folder="audit").structured_content
        assert (status["done"], status["lines"], status["finished"]) == (number, 3, number == 3)
    assert (status["verdicts"], status["errors"]) == ({"NG": 2}, {"input": 1})
    limited = header.model_copy(update={"lines": 9, "limit": 3})
    (folder / HEADER_NAME).write_text(limited.model_dump_json())
    status = call(address, "audit_status", folder="audit").structured_content
    assert (status["lines"], status["asked"], status["done"], status["finished"]) == (9, 3, 3, True)
    (folder / HEADER_NAME).write_text(header.model_copy(update={"lines": 0}).model_dump_json())  # as watch writes it
    status = call(address, "audit_status", folder="audit").structured_content
    assert (status["done"], status["lines"], status["finished"]) == (3, None, None)
    empty = header.model_copy(update={"lines": 0, "shard": (5, 5)})  # of a worklist with fewer lines than shards
    (folder / HEADER_NAME).write_text(empty.model_dump_json())
    status = call(address, "audit_status", folder="audit").structured_content
    assert (status["lines"], status["finished"]) == (0, True)
    (folder / HEADER_NAME).unlink()
    status = call(address, "audit_status", folder="audit").structured_content
    assert (status["done"], status["lines"], status["asked"], status["finished"]) == (3, None, None, None)


def test_several_clients_at_once(address: str) -> None:
    async def ask(name: str) -> str:
        async with Client(address, read_timeout_seconds=LONGEST_CALL_S) as client:
            found = await client.call_tool("inspect", {"image": f"pictures/{name}.png", "product": "plate"})
            return str(found.structured_content["verdict"])

    async def main() -> list[str]:
        return list(await asyncio.gather(*(ask(name) for name in ("good", "square", "good", "square"))))

    assert asyncio.run(main()) == ["OK", "NG", "OK", "NG"]


def test_pages_of_other_hosts_are_refused(address: str) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accepts = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    for header in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        answer = httpx.post(address, json=asked, headers={**accepts, **header}, timeout=LONGEST_CALL_S)
        assert answer.status_code in (403, 421)


def test_who_has_not_the_token_is_refused(line: Line) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accepts = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    wrong = [None, "", "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe4"]

    async def with_token(address: str) -> set[str]:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as own,
            Client(streamable_http_client(address, http_client=own)) as client,
        ):
            return {tool.name for tool in (await client.list_tools()).tools}

    environ = {**line.environ, "FLAWSCOPE_MCP_TOKEN": TOKEN}
    with serving(line, environ, ", for clients with the token") as address:
        for given in wrong:
            headers = {name.encode(): value.encode("latin-1") for name, value in accepts.items()}
            if given is not None:
                headers[b"authorization"] = given.encode("latin-1")
            answer = httpx.post(address, json=asked, headers=headers, timeout=LONGEST_CALL_S)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert TOKEN not in answer.text
        kept = http.client.HTTPConnection(address.split("/")[2], timeout=LONGEST_CALL_S)
        for _ in range(2):  # a request that comes in pieces is refused too, and its connection goes on
            kept.putrequest("POST", "/mcp")
            kept.putheader("Content-Length", "10")
            kept.endheaders()
            assert not select.select([kept.sock], [], [], 0.5)[0]
            kept.send(b"0123456789")
            refused = kept.getresponse()
            assert (refused.status, refused.read()) == (401, b"this server asks for a bearer token.\n")
        kept.close()
        assert "inspect" in asyncio.run(with_token(address))
        for header in ({"host": "evil.example"}, {"origin": "http://evil.example"}):  # it does not open these
            bearer = {"authorization": f"Bearer {TOKEN}"}
            given = {**accepts, **header, **bearer}
            answer = httpx.post(address, json=asked, headers=given, timeout=LONGEST_CALL_S)
            assert answer.status_code in (403, 421)


def test_what_the_command_refuses(line: Line, address: str) -> None:
    def refused(*arguments: str) -> str:
        command = [sys.executable, str(CLI), "mcp", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=line.environ, input="")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        return done.stderr

    port = address.rpartition(":")[2].removesuffix("/mcp")
    assert "--root" in refused()
    assert "is no folder" in refused("--root", str(line.root / "nowhere"))
    assert "--host" in refused("--root", str(line.root), "--http", "--host", "0.0.0.0")  # there is none but loopback
    assert f"port {port} cannot be used" in refused("--root", str(line.root), "--http", "--port", port)


def test_roots(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "x.png").touch()
    (tmp_path / "a" / "b" / "x.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    roots = Roots([tmp_path / "link", tmp_path / "a" / "b"])
    assert roots.find("x.png") == tmp_path / "a" / "b" / "x.png"
    assert roots.find(str(tmp_path / "link" / "b" / "x.png")) == tmp_path / "a" / "b" / "x.png"
    assert roots.find(".") == tmp_path / "a"
    for outside in ("../..", "../../ab/x.png", str(tmp_path / "ab" / "x.png"), "../b/../../ab/x.png"):
        with pytest.raises(InputError, match="is not in the folders"):
            roots.find(outside)
    with pytest.raises(ConfigError, match="no folder may be read"):
        Roots([])
