"""The page on which a person works through the queue: for this machine's browser, and nobody else.

It listens on the loopback address only, under a path that begins with a random token. A page of another site cannot
reach it: the Host must be the loopback's (DNS rebinding), a POST must say that it comes from this page (Origin), in
JSON, which a form cannot send. Nothing is fetched from elsewhere, and the page's policy forbids it to try. Texts are
sent as JSON and become text nodes; none ever becomes markup.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, Final

from ..errors import FlawscopeError, ReviewConflictError
from .decisions import make_decision
from .desk import UNREAD_HINT, Outcome, ReviewDesk, Waiting
from .items import ReviewItem
from .pictures import has_map

MAX_BODY = 16_384
SLOWEST_S = 20.0
"""A browser that says nothing for so long is let go of."""
KEPT_PICTURES = 12
MISSING: Final = b""
"""Told from ``None``, which is kept for an item without a picture; no picture is without bytes."""
HOSTS = ("127.0.0.1", "localhost")
Draw = Callable[[ReviewItem], bytes | None]


class ReviewServer(ThreadingHTTPServer):
    """Serves one desk.

    Args:
        desk: the queue.
        by: who sits in front of the browser.
        draw: pictures by kind: ``picture`` and ``overlay``, each of an item.
        types: names of the defect types of a product, for the reviewer to choose from.
        port: of the loopback address; 0 for a free one.

    Attributes:
        url: where the page is.
    """

    daemon_threads = True
    allow_reuse_address = False

    def __init__(
        self,
        desk: ReviewDesk,
        *,
        by: str,
        draw: dict[str, Draw],
        types: Callable[[str | None], list[str]],
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.desk, self.by, self.draw, self.types = desk, by, draw, types
        self.token = secrets.token_urlsafe(24)
        self.page, self.policy = _page()
        self._items: dict[str, ReviewItem] = {}
        self._drawn: OrderedDict[tuple[str, str], bytes | None] = OrderedDict()
        self._one_writer, self._one_picture = threading.Lock(), threading.Lock()

    @property
    def origin(self) -> tuple[str, ...]:
        """Where the page's own requests come from."""
        return tuple(f"http://{host}:{self.server_port}" for host in HOSTS)

    @property
    def url(self) -> str:
        """The address for the browser."""
        return f"{self.origin[0]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no event."""

    def queue(self) -> list[Waiting]:
        """All items; they are remembered for their pictures."""
        found = self.desk.queue()
        self._items = {waiting.item.id: waiting.item for waiting in found}
        return found

    def picture(self, kind: str, name: str) -> bytes | None:
        """A picture of an item, drawn once.

        Raises:
            FlawscopeError: there is no such item, or its picture cannot be shown.
        """
        item = self._items.get(name) or self.desk.find(name).item
        key = (kind, f"{item.id} {item.sha256}")
        with self._one_picture:  # other requests put pictures in and out meanwhile
            kept = self._drawn.get(key, MISSING)
        if kept is not MISSING:
            return kept
        drawn = self.draw[kind](item)
        with self._one_picture:
            self._drawn[key] = drawn
            while len(self._drawn) > KEPT_PICTURES:
                self._drawn.popitem(last=False)
        return drawn

    def act(self, what: str, told: dict[str, Any]) -> Outcome:
        """Carry out a step that the page asks for.

        Raises:
            FlawscopeError: it cannot be done.
            ValueError: the page asked for nothing that there is.
        """
        name, version = told.get("id"), told.get("version")
        if not isinstance(name, str) or type(version) is not int:
            raise ValueError("an id and a version are needed")
        with self._one_writer:
            if what == "undo":
                return self.desk.undo(name, self.by, version=version)
            if what == "confirm":
                return self.desk.confirm(name, self.by, version=version)
            if what == "decide":
                verdict, kind, note = (told.get(key) or "" for key in ("verdict", "defect_type", "note"))
                if not all(isinstance(text, str) for text in (verdict, kind, note)):
                    raise ValueError("a decision is made of texts")
                return self.desk.decide(name, make_decision(verdict, kind, note), self.by, version=version)
        raise ValueError("there is no such step")


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "flawscope", ""
    timeout = SLOWEST_S

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the path holds the token."""

    def do_GET(self) -> None:
        """The page, the queue, an item, a picture."""
        parts = self._path()
        if parts is None:
            return
        if parts == [""]:
            self._send(200, self.server.page, "text/html; charset=utf-8")
        elif parts == ["queue"]:
            self._answer(lambda: self._queue())
        elif len(parts) == 2 and parts[0] == "item":
            self._answer(lambda: self._item(parts[1]))
        elif len(parts) == 2 and parts[0] in self.server.draw:
            self._picture(parts[0], parts[1])
        else:
            self._refuse(404, "there is nothing here.")

    def do_POST(self) -> None:
        """A decision, a confirmation, or an undo."""
        parts = self._path()
        if parts is None:
            return None
        if self.headers.get("Origin") not in self.server.origin:
            return self._refuse(403, "only the page itself may do this.")
        if self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            return self._refuse(415, "JSON is needed.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= MAX_BODY):
            return self._refuse(413, f"at most {MAX_BODY} bytes.")
        try:
            told = json.loads(self.rfile.read(int(length)))
            if not isinstance(told, dict):
                raise ValueError("an object is needed")
        except (ValueError, RecursionError):
            return self._refuse(400, "that is no JSON object.")
        return self._answer(lambda: self._act(parts, told))

    def _act(self, parts: list[str], told: dict[str, Any]) -> dict[str, Any]:
        outcome = self.server.act("/".join(parts), told)
        standing = outcome.standing
        return {
            "id": outcome.asked_again or standing.id,
            "version": 0 if outcome.asked_again else standing.version,
            "state": standing.state,
            "problem": None if outcome.problem is None else str(outcome.problem),
        }

    # --- what is said -----------------------------------------------------------------------------------------------

    def _queue(self) -> dict[str, Any]:
        rows = [_row(waiting) for waiting in self.server.queue()]
        return {"by": self.server.by, "items": rows}

    def _item(self, name: str) -> dict[str, Any]:
        waiting = self.server.desk.find(name)
        item = waiting.item
        kind = item.defect_type
        candidates = [] if kind is None else [{"name": c.name, "share": c.posterior} for c in kind.candidates]
        return {
            **_row(waiting),
            "image": _near(item.image),
            "lot": item.lot,
            "station": item.station,
            "score": item.image_score,
            "threshold": item.threshold,
            "size_px": item.size_px,
            "map": has_map(item),
            "regions": [region.model_dump(mode="json") for region in item.regions],
            "candidates": candidates,
            "types": self.server.types(item.product),
            "reason": item.reason,
            "error": item.error,
            "unread": UNREAD_HINT if item.unread else None,
        }

    def _picture(self, kind: str, name: str) -> None:
        try:
            drawn = self.server.picture(kind, name)
        except FlawscopeError as error:
            return self._refuse(409, str(error))
        if drawn is None:
            return self._refuse(404, "none was kept.")
        return self._send(200, drawn, "image/png")

    # --- how it is said ---------------------------------------------------------------------------------------------

    def _path(self) -> list[str] | None:
        """The path's parts below the token; None when the request was refused."""
        host = self.headers.get("Host", "")
        if host not in {origin.removeprefix("http://") for origin in self.server.origin}:
            self._refuse(403, "this is not the page's address.")
            return None
        token, _, rest = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self.server.token.encode()):
            self._refuse(404, "there is nothing here.")
            return None
        return rest.split("/")

    def _answer(self, make: Callable[[], dict[str, Any]]) -> None:
        try:
            status, said = 200, make()
        except ReviewConflictError as error:
            status, said = 409, {"error": str(error), "code": error.code}
        except FlawscopeError as error:
            status, said = 422, {"error": str(error), "code": error.code}
        except ValueError as error:
            status, said = 400, {"error": str(error), "code": "request"}
        self._send(status, json.dumps(said).encode(), "application/json")

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True  # what else it sent is not read
        self._send(status, json.dumps({"error": why, "code": "request"}).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", self.server.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),  # the address is the key
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _row(waiting: Waiting) -> dict[str, Any]:
    item, standing = waiting.item, waiting.standing
    decision = standing.decision
    return {
        "id": item.id,
        "version": standing.version,
        "state": standing.state,
        "source": item.source,
        "name": item.image.replace("\\", "/").rsplit("/", 1)[-1],
        "product": item.product,
        "serial": item.serial,
        "verdict": item.verdict.value,
        "probability": item.probability,
        "defect_type": None if item.defect_type is None else item.defect_type.name,
        "decision": None if decision is None else decision.model_dump(mode="json"),
        "decided_by": standing.decided_by,
        "confirmed_by": standing.confirmed_by,
    }


def _near(image: str) -> str:
    """The path as one would type it here: from the working directory where it lies below."""
    path, here = Path(image), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else image


def _page() -> tuple[bytes, str]:
    """The page with its style and script in it, and the policy that lets only these two run."""
    folder = resources.files(__package__ or __name__)
    html, css, script = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    nonce = secrets.token_urlsafe(16)
    page = html.replace("{nonce}", nonce).replace("/*style*/", css).replace("/*script*/", script)
    policy = (
        "default-src 'none'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
        f" frame-ancestors 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
    )
    return page.encode(), policy
