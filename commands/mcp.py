"""``mcp``: the tools for programs that speak the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared import HomeOption, ProfileOption, expand, settings


def mcp(
    root: Annotated[
        list[Path], typer.Option("--root", help="Folder whose pictures and audits may be read; may be repeated.")
    ],
    http: Annotated[
        bool, typer.Option("--http", help="Streamable HTTP, for this machine only, in place of standard input/output.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of --http; 0 for any free one.")] = 8765,
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", "-r", help="Good pictures to compare with, not products.")
    ] = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Serve inspection to agents and editors over the Model Context Protocol (extra: mcp)."""
    loaded = settings(profile=profile, home=home)
    from ..agent.inspector import Inspector
    from ..agent.mcp_server import build_mcp_server, serve_http, serve_stdio

    with Inspector(loaded, references=expand(reference or [])) as inspector:
        server = build_mcp_server(inspector, root)
        if http:
            token = loaded.settings.mcp_token
            serve_http(server, port, None if token is None else token.get_secret_value())
        else:
            serve_stdio(server)
