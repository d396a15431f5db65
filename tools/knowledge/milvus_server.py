"""The Store on a Milvus server, for several processes or more pages than an embedded base serves quickly.

Traps handled here: the client's own keep-alive ends a call that waits for a halted server after 15 s whatever its time
limit, and starts to connect anew, so it is off; connections are shared by address and token and stay broken together,
so each store has its own; a server that was started again has released its collections, so they are loaded on
connecting; gRPC asks even this machine through a proxy of the environment, so it may only over https, where a proxy
sees no token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...agent.errors import KnowledgeError, KnowledgeUnreachableError
from .milvus_collection import MilvusCollection, load_client

if TYPE_CHECKING:
    from ...agent.settings import Settings

LONG = frozenset({"create_collection", "load_collection", "upsert", "flush", "delete", "query"})
PATIENCE = 20.0
"""Times longer that these may take than an answer: a batch is a few megabytes to be indexed, and a query lists all ids,
of which 30,000 took half a second."""
REMEDY = "The server's own log says more."
CHANNEL = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.enable_retries": 0, "grpc.use_local_subchannel_pool": 1}


@dataclass(frozen=True)
class MilvusServer:
    """Where the server is and how long it is waited for.

    Attributes:
        uri: ``http://HOST:PORT``.
        token: what it asks for, None for nothing.
        timeout_s: an answer is awaited so long.
        required: whether a base cannot be opened while it is away.
    """

    uri: str
    token: str | None = field(default=None, repr=False)
    timeout_s: float = 3.0
    required: bool = False

    @classmethod
    def configured(cls, settings: Settings) -> MilvusServer | None:
        """The one that is set; None when none is, or when the base is read into memory."""
        if settings.milvus_uri is None or settings.store != "milvus":
            return None
        token = settings.milvus_token.get_secret_value() if settings.milvus_token else None
        return cls(settings.milvus_uri, token, settings.milvus_timeout_s, settings.knowledge_required)


class MilvusServerStore(MilvusCollection):
    """Lock records in a collection of a Milvus server.

    Args:
        server: where it is.
        collection: letters, digits and underscores.
        dim: length of the vectors.
        create: make it when it is missing, instead of failing.

    Raises:
        KnowledgeUnreachableError: the server is away or does not answer in time; so do all methods.
        KnowledgeError: it refuses, or holds vectors of another length.
    """

    def __init__(self, server: MilvusServer, collection: str, dim: int, *, create: bool = True) -> None:
        self._server, self._place = server, f"the knowledge server {server.uri}"
        self._client = None
        try:
            super().__init__(self._connect(), collection, dim, self._place, REMEDY, create=create)
        except KnowledgeError:
            self.close()
            raise

    def _connect(self) -> Any:
        client_class = load_client()
        from pymilvus.exceptions import MilvusException

        server = self._server
        try:
            return client_class(
                uri=server.uri,
                token=server.token or "",
                timeout=server.timeout_s,
                dedicated=True,
                grpc_options=CHANNEL | {"grpc.enable_http_proxy": int(server.uri.startswith("https:"))},
            )
        except (MilvusException, OSError, ValueError) as error:
            raise self._failure("connecting", error) from error

    def _create(self, schema: Any, index: Any) -> None:
        try:
            # Strong: what one process has written is what the next search of another one sees.
            self._call(
                "create_collection",
                self._collection,
                schema=schema,
                index_params=index,
                consistency_level="Strong",
            )
        except KnowledgeUnreachableError:
            raise
        except KnowledgeError:  # another process may have made the same one meanwhile
            if not self._call("has_collection", self._collection):
                raise

    def drop(self) -> None:
        """Delete the collection with all that it holds."""
        self._call("drop_collection", self._collection)

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _wait(self, method: str) -> dict[str, float]:
        return {"timeout": self._server.timeout_s * (PATIENCE if method in LONG else 1.0)}

    def _failure(self, method: str, error: Exception) -> KnowledgeError:
        """What went wrong, by gRPC's status, which the client hides in the cause of its own error."""
        import grpc  # type: ignore[import-untyped]
        from pymilvus.client.types import Status

        chain = [error, error.__cause__, getattr(error.__cause__, "__cause__", None)]  # it may name itself as its cause
        status = next(
            (link.code() for link in chain if isinstance(link, grpc.RpcError) and hasattr(link, "code")), None
        )
        if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return KnowledgeError(f"{self._place} refuses the token.", hint="Set FLAWSCOPE_MILVUS_TOKEN.")
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return KnowledgeUnreachableError(
                f"{self._place} does not answer within {self._wait(method)['timeout']:g} s.",
                hint="Wait for it, or set FLAWSCOPE_MILVUS_TIMEOUT_S higher.",
            )
        if status is grpc.StatusCode.UNAVAILABLE or getattr(error, "code", None) == Status.CONNECT_FAILED:
            return KnowledgeUnreachableError(
                f"{self._place} cannot be reached.",
                hint="Start it, or take the setting milvus_uri away to use this machine's own base.",
            )
        reason = str(getattr(error, "message", error))
        if self._server.token:  # before it is cut: half a token is a secret too
            reason = reason.replace(self._server.token, "…")
        return KnowledgeError(f"{self._place} failed in {method}: {' '.join(reason.split())[:200]}.", hint=REMEDY)
