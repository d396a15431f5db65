"""The page's server: for its own browser only, whatever is sent, and nothing of what it is told becomes markup."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audit_records import made, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flawscope.agent.errors import InputError
from flawscope.agent.review.desk import ReviewDesk
from flawscope.agent.review.items import ReviewItem
from flawscope.agent.review.server import ReviewServer

HOSTILE = '"><img src=x onerror=alert(1)>\u202e\x1b[31m.png'


def drawn(item: ReviewItem) -> bytes | None:
    if item.serial == "gone":
        raise InputError("the picture is gone.")
    return b"\x89PNG" if item.serial else None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    records = [
        made(1, "REVIEW", image="a.png", serial="S1", product="plate"),
        made(2, "REVIEW", image=HOSTILE, serial="gone", said={"verdict": "</script><script>alert(1)</script>"}),
        made(3, "REVIEW", image="c.png"),
        made(4, "OK", image="d.png"),
    ]
    desk = ReviewDesk(tmp_path / "reviews", audits=[written(tmp_path / "audit", records)])
    kinds = {"picture": drawn, "overlay": drawn}
    with ReviewServer(desk, by="Kim <b>", draw=kinds, types=lambda product: ["hole"] if product else []) as made_server:
        thread = threading.Thread(target=made_server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made_server
        made_server.shutdown()
        thread.join()


def ask(
    server: ReviewServer, method: str, path: str, body: Any = None, *, below: bool = True, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request; ``below`` puts the token before the path."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if method == "POST":
        given = {"Origin": server.origin[0], "Content-Type": "application/json", **given}
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, f"/{server.token}/{path}" if below else path, data, given)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def told(server: ReviewServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    status, _, data = ask(server, method, path, body, **headers)
    return status, json.loads(data)


def test_it_listens_on_the_loopback_alone(server: ReviewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"
    assert len(server.token) == 32


def test_the_page_may_run_its_own_script_and_nothing_else(server: ReviewServer) -> None:
    status, headers, page = ask(server, "GET", "")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = headers["content-security-policy"]
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert len(nonce) == 22
    assert page.count(f'nonce="{nonce}"'.encode()) == 2
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert b"http:" not in page.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https:" not in page
    assert b"innerHTML" not in page


def test_the_queue_is_plain_data(server: ReviewServer) -> None:
    status, queue = told(server, "GET", "queue")
    assert status == 200
    assert queue["by"] == "Kim <b>"
    assert [item["name"] for item in queue["items"]] == ["a.png", HOSTILE, "c.png"]
    _, headers, raw = ask(server, "GET", "queue")
    assert headers["content-type"] == "application/json"
    assert all(byte < 128 for byte in raw)
    status, item = told(server, "GET", f"item/{queue['items'][1]['id']}")
    assert item["reason"] == "</script><script>alert(1)</script>"
    status, item = told(server, "GET", f"item/{queue['items'][0]['id']}")
    assert item["types"] == ["hole"]


def test_a_decision_and_its_undo(server: ReviewServer) -> None:
    item = told(server, "GET", "queue")[1]["items"][0]
    status, outcome = told(
        server, "POST", "decide", {"id": item["id"], "version": 0, "verdict": "NG", "defect_type": "hole", "note": "x"}
    )
    assert (status, outcome) == (200, {"id": item["id"], "version": 1, "state": "decided", "problem": None})
    again = told(server, "GET", "queue")[1]["items"][0]
    assert (again["decision"]["defect_type"], again["decided_by"]) == ("hole", "Kim <b>")
    assert told(server, "POST", "undo", {"id": item["id"], "version": 1})[1]["state"] == "open"


def test_a_confirmation_and_its_undo(server: ReviewServer) -> None:
    item = told(server, "GET", "queue")[1]["items"][0]
    assert told(server, "POST", "confirm", {"id": item["id"], "version": 0})[0] == 422  # nothing is decided
    told(server, "POST", "decide", {"id": item["id"], "version": 0, "verdict": "OK"})
    assert told(server, "POST", "confirm", {"id": item["id"], "version": 0})[0] == 409
    status, outcome = told(server, "POST", "confirm", {"id": item["id"], "version": 1})
    assert (status, outcome["version"], outcome["state"]) == (200, 2, "confirmed")
    assert told(server, "GET", f"item/{item['id']}")[1]["confirmed_by"] == "Kim <b>"
    assert told(server, "POST", "undo", {"id": item["id"], "version": 2})[1]["state"] == "decided"


def test_a_second_tab_cannot_decide_twice(server: ReviewServer) -> None:
    item = told(server, "GET", "queue")[1]["items"][0]
    given = {"id": item["id"], "version": 0, "verdict": "OK"}
    assert told(server, "POST", "decide", given)[0] == 200
    status, said = told(server, "POST", "decide", {**given, "verdict": "NG"})
    assert (status, said["code"]) == (409, "review_conflict")
    assert told(server, "POST", "undo", {"id": item["id"], "version": 1})[0] == 200
    status, said = told(server, "POST", "decide", given)  # open again, but not as that tab saw it
    assert (status, said["code"]) == (409, "review_conflict")
    kinds = [entry.kind for entry in server.desk.journal.entries()]
    assert kinds == ["decided", "undone"]


@pytest.mark.parametrize(
    ("path", "below"), [("/", False), ("/queue", False), ("/{token}x/queue", False), ("/%s/queue", False), ("x", True)]
)
def test_without_the_token_there_is_nothing(server: ReviewServer, path: str, below: bool) -> None:
    assert ask(server, "GET", path.replace("{token}", server.token), below=below)[0] == 404
    assert ask(server, "POST", "/decide", {}, below=False)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:{port}", ""])
def test_another_host_is_refused(server: ReviewServer, host: str) -> None:
    given = host.replace("{port}", str(server.server_port))
    assert ask(server, "GET", "queue", Host=given)[0] == 403
    assert ask(server, "POST", "decide", {}, Host=given)[0] == 403
    assert ask(server, "GET", "queue", Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1", "https://127.0.0.1:{port}"])
def test_a_form_of_another_site_cannot_decide(server: ReviewServer, origin: str) -> None:
    item = told(server, "GET", "queue")[1]["items"][0]
    given = {"id": item["id"], "version": 0, "verdict": "OK"}
    said = ask(server, "POST", "decide", given, Origin=origin.replace("{port}", str(server.server_port)))
    assert said[0] == 403
    assert ask(server, "POST", "decide", given, Content_Type="text/plain")[0] == 415
    assert ask(server, "POST", "decide", given, Content_Type="application/x-www-form-urlencoded")[0] == 415
    assert ask(server, "GET", "decide")[0] == 404
    assert server.desk.journal.entries() == []


def test_a_post_without_an_origin_is_refused(server: ReviewServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("POST", f"/{server.token}/decide", b"{}", {"Content-Type": "application/json"})
    assert connection.getresponse().status == 403
    connection.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'"x"',
        b"[" * 9000,
        b"{}",
        b'{"id": 1, "version": 0}',
        b'{"id": "abcd", "version": "0"}',
    ],
)
def test_nonsense_is_refused(server: ReviewServer, body: bytes) -> None:
    assert ask(server, "POST", "decide", body)[0] == 400
    assert ask(server, "POST", "nothing", {"id": "abcd", "version": 0})[0] == 400
    assert server.desk.journal.entries() == []


def test_too_much_is_not_read(server: ReviewServer) -> None:
    assert ask(server, "POST", "decide", b" " * 20_000)[0] == 413
    assert ask(server, "POST", "decide", b"{}", Content_Length="-1")[0] == 413


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_raw_bytes_never_hurt(server: ReviewServer, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as raw:
        raw.sendall(data + b"\r\n\r\n")
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(65_536):
            pass
    assert told(server, "GET", "queue")[0] == 200


def test_pictures(server: ReviewServer) -> None:
    first, gone, none = (item["id"] for item in told(server, "GET", "queue")[1]["items"])
    status, headers, data = ask(server, "GET", f"picture/{first}")
    assert (status, headers["content-type"], data) == (200, "image/png", b"\x89PNG")
    assert told(server, "GET", f"overlay/{gone}") == (409, {"error": "the picture is gone.", "code": "request"})
    assert ask(server, "GET", f"picture/{none}")[0] == 404
    for path in ("picture/../../etc/passwd", "picture/ffff", "picture/", "item/%2e%2e"):
        assert ask(server, "GET", path)[0] in (404, 409, 422)


def test_refusals_of_a_decision_are_said(server: ReviewServer) -> None:
    item = told(server, "GET", "queue")[1]["items"][0]
    given = {"id": item["id"], "version": 0, "verdict": "OK", "defect_type": "hole"}
    status, said = told(server, "POST", "decide", given)
    assert (status, said["code"]) == (422, "config")
    assert "no defect type" in said["error"]
    assert told(server, "POST", "decide", {**given, "note": 3})[0] == 400


def test_a_picture_that_could_not_be_read_is_never_ok(server: ReviewServer, tmp_path: Path) -> None:
    written(tmp_path / "audit", [made(1, error="input"), made(2, "REVIEW")])
    torn, fine = told(server, "GET", "queue")[1]["items"]
    assert "Take the picture again" in told(server, "GET", f"item/{torn['id']}")[1]["unread"]
    assert told(server, "GET", f"item/{fine['id']}")[1]["unread"] is None
    status, said = told(server, "POST", "decide", {"id": torn["id"], "version": 0, "verdict": "OK"})
    assert (status, said["code"]) == (422, "input")
    assert "could not be read, so it cannot be OK" in said["error"]
    assert server.desk.journal.entries() == []
    assert told(server, "POST", "decide", {"id": torn["id"], "version": 0, "verdict": "NG"})[0] == 200


def test_a_picture_below_the_working_directory_is_named_from_there(
    server: ReviewServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    waiting = server.queue()[0].item
    for image, shown in (
        (str(tmp_path / "parts" / "a.png"), "parts/a.png"),
        ("/elsewhere/a.png", "/elsewhere/a.png"),
        ("as/given.png", "as/given.png"),
    ):
        found = server.desk.find(waiting.id)
        moved = replace(found, item=waiting.model_copy(update={"image": image}))
        monkeypatch.setattr(server.desk, "find", lambda name, moved=moved: moved)
        assert told(server, "GET", f"item/{waiting.id}")[1]["image"] == shown


def test_a_picture_is_drawn_once_and_looked_up_once_while_nobody_puts_it_out(server: ReviewServer) -> None:
    class Crowded(OrderedDict[tuple[str, str], bytes | None]):
        """Another request puts out whatever was found a moment ago, unless it has to wait."""

        def get(self, key: tuple[str, str], default: Any = None) -> Any:
            assert server._one_picture.locked()
            return super().get(key, default)

        def __contains__(self, key: object) -> bool:
            self.clear()
            return True

    server._drawn, calls = Crowded(), []
    server.draw = {"picture": lambda item: (calls.append(item.id), drawn(item))[1]}
    with_one, without = server.queue()[0].item.id, server.queue()[2].item.id
    for _ in range(2):
        assert server.picture("picture", with_one) == b"\x89PNG"
        assert server.picture("picture", without) is None  # that there is none is kept too
    assert calls == [with_one, without]
