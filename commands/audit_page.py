"""``audit page``: one HTML file to look at an audit with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .audit_outputs import AuditArgument, check_targets, enrolments_of
from .shared import HomeOption, make_console, print_plain, settings

PAGE_NAME = "page.html"


def audit_page(
    audit: AuditArgument,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file (default: page.html beside it).")] = None,
    max_mb: Annotated[int, typer.Option("--max-mb", min=1, help="About the largest size; fewer large views fit.")] = 64,
    home: HomeOption = None,
) -> None:
    """Write one HTML file with pictures, filters, figures and evidence; it needs no network and no server."""
    from ..agent.terminal import ProgressBar
    from ..audits.drift import find_drift
    from ..audits.page import build_page
    from ..audits.record_file import read_records, records_path

    path = out or records_path(audit).parent / PAGE_NAME
    check_targets(audit, [path])
    drift = find_drift(read_records(audit), enrolments_of(settings(home=home).home.products, audit))
    with ProgressBar(make_console(stderr=True)) as progress:
        facts = build_page(audit, path, drift=drift, max_bytes=max_mb * 1_000_000, progress=progress)
    size = f"{facts.size_bytes / 1e6:.1f} MB"
    views = f"{facts.thumbnails:,} with a thumbnail, {facts.large:,} with a large view"
    print_plain([f"{facts.path}: {size}, {facts.records:,} records, {views}"])


def register(app: typer.Typer) -> None:
    """Put the command under ``audit``."""
    app.command("page")(audit_page)
