"""``config`` and ``doctor``: what is set, and what works on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from .shared import HomeOption, ProfileOption, make_console, print_line, settings

config_app = typer.Typer(help="The settings and where each value comes from.", no_args_is_help=True)


@config_app.command("show")
def config_show(
    profile: ProfileOption = None,
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show every setting, its value, where the value comes from and what it means."""
    from ..agent.settings import describe_settings

    rows = describe_settings(settings(profile=profile, home=home))
    if as_json:
        import json

        print_line(json.dumps({row.name: {"value": row.value, "origin": row.origin} for row in rows}))
        return
    from rich.table import Table
    from rich.text import Text

    from ..agent.terminal import clean_line

    table = Table("setting", "value", "from", "meaning", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(clean_line(cell)) for cell in (row.name, row.value, row.origin, row.meaning)))
    make_console().print(table)


def doctor(profile: ProfileOption = None, home: HomeOption = None) -> None:
    """Say what works on this machine and what is missing. Exit code 0 when the profile can inspect."""
    from ..agent.doctor import examine
    from ..agent.terminal import print_finding

    console = make_console()
    findings = []
    for finding in examine(settings(profile=profile, home=home)):
        findings.append(finding)
        print_finding(console, finding)
    broken = [finding for finding in findings if finding.state == "broken"]
    raise typer.Exit(broken[0].exit_code if broken else 0)
