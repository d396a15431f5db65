"""A client for OpenAI-compatible chat servers: vLLM, SGLang, llama.cpp, Ollama, hosted ones.

Nothing here reaches the network unless ``llm_base_url`` is set and something asks. What comes back is untrusted text:
whoever uses it cleans, caps and checks it.
"""

from __future__ import annotations

from ..errors import EndpointError
from .capabilities import Capabilities, probe
from .client import ChatClient
from .endpoint import Endpoint, configured_endpoint
from .messages import ChatMessage, ChatReply, TokenLogprob
from .structured import StructuredReply, ask_for

__all__ = [
    "Capabilities",
    "ChatClient",
    "ChatMessage",
    "ChatReply",
    "Endpoint",
    "EndpointError",
    "StructuredReply",
    "TokenLogprob",
    "ask_for",
    "configured_endpoint",
    "probe",
]
