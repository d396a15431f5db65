"""Which server is asked, and how its failures are named."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr

from ..errors import ConfigError
from ..settings import Settings


@dataclass(frozen=True)
class Endpoint:
    """A server and how patiently it is asked.

    Attributes:
        base_url: up to and including ``/v1``, without a slash at the end.
        model: as the server calls it.
        api_key: sent as a bearer token to this server only.
        timeout_s: wall time of one question with all its retries, and of all those about what the server can do.
        retries: further tries after a failure that may pass.
        concurrency: questions under way at the same time.
    """

    base_url: str
    model: str
    api_key: SecretStr | None = None
    timeout_s: float = 120.0
    retries: int = 3
    concurrency: int = 4


def configured_endpoint(settings: Settings) -> Endpoint:
    """The server that the settings name.

    Raises:
        ConfigError: no server or no model is set.
    """
    if settings.llm_base_url is None or settings.llm_model is None:
        missing = "llm_base_url" if settings.llm_base_url is None else "llm_model"
        raise ConfigError(
            f"no language model is set: {missing} is missing.",
            hint="Set FLAWSCOPE_LLM_BASE_URL (such as http://localhost:8000/v1) and FLAWSCOPE_LLM_MODEL.",
        )
    return Endpoint(
        settings.llm_base_url,
        settings.llm_model,
        settings.llm_api_key,
        settings.llm_timeout_s,
        settings.llm_retries,
        settings.llm_concurrency,
    )
