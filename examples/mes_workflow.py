"""Flawscope inside a manufacturing execution system: a part comes in, is inspected, sent on its way and booked.

    receive -> inspect -> dispose -+-> ask a person -+-> write
                                   +-----------------+

    pip install sqlalchemy                                  # and 'flawscope[postgres]' for PostgreSQL
    python examples/mes_workflow.py part SN-1 PICTURE --product textile
    python examples/mes_workflow.py answer SN-1 --disposition rework --by Kim
    python examples/mes_workflow.py parts
    python examples/mes_workflow.py redo SN-1 --from dispose

Every step is kept under the part's serial number. A command that was killed goes on where it stood when it is given
again, in any process on any machine that reaches both databases, and the part has one row however often that is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from flawscope.agent import FlawscopeError, MissingExtraError, StorageError

try:
    from mes.database import PARTS, open_database
    from mes.rules import CHOICES
    from mes.workflow import Part, answer_for, open_workflow, redo, take_in, thread_of, waiting
    from sqlalchemy import select
    from sqlalchemy.exc import DBAPIError
except ModuleNotFoundError as missing:
    if missing.name != "sqlalchemy":
        raise
    print("mes: the table of parts needs SQLAlchemy. Install it: pip install sqlalchemy", file=sys.stderr)  # noqa: T201
    sys.exit(MissingExtraError.exit_code)


def print_part(workflow: Any, part: Part) -> None:
    """The row that was written, or the question that is open."""
    if row := part["row"]:
        line = f"{row['serial']}: {row['verdict']}, {row['disposition']}, by {row['decided_by']}: {row['note']}"
    else:
        line = f"{part['serial']}: another process is at it"
        for found in workflow.get_state(thread_of(part["serial"])).interrupts:
            line = question_line(found.value)
    print(line)  # noqa: T201


def question_line(asked: dict[str, Any]) -> str:
    """What a person is asked about a part."""
    return f"{asked['serial']}: {asked['verdict']}, {asked['proposed']}? {asked['problem'] or asked['why']}"


def print_parts(workflow: Any, database: str) -> None:
    """The parts that wait for an answer, then what is booked; a part that came again may be both."""
    for asked in waiting(workflow):
        print(f"waits: {question_line(asked)}")  # noqa: T201
    with open_database(database).connect() as connection:
        for row in connection.execute(select(PARTS).order_by(PARTS.c.serial)).mappings():
            print(f"{row['serial']}: {row['verdict']}, {row['disposition']}, by {row['decided_by']}")  # noqa: T201


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database", default="sqlite:///mes.db", help="SQLAlchemy address of the MES")
    parser.add_argument("--checkpoints", default="sqlite:///mes.checkpoints.db", help="sqlite:/// or postgresql://")
    commands = parser.add_subparsers(dest="command", required=True)
    part = commands.add_parser("part", help="inspect a part, or go on with it")
    part.add_argument("serial")
    part.add_argument("image", type=Path)
    part.add_argument("--product")
    part.add_argument("--lot")
    answer = commands.add_parser("answer", help="decide about a part that waits")
    answer.add_argument("serial")
    answer.add_argument("--disposition", required=True, choices=CHOICES)
    answer.add_argument("--by", required=True)
    answer.add_argument("--note", default="")
    again = commands.add_parser("redo", help="go back to a step and on from there")
    again.add_argument("serial")
    again.add_argument("--from", dest="node", default="dispose")
    commands.add_parser("parts", help="what waits for an answer, and what is booked")
    given = parser.parse_args(arguments)
    try:
        with open_workflow(given.database, given.checkpoints) as workflow:
            if given.command == "part":
                print_part(workflow, take_in(workflow, given.serial, given.image, given.product, given.lot))
            elif given.command == "answer":
                said = {"disposition": given.disposition, "by": given.by, "note": given.note}
                print_part(workflow, answer_for(workflow, given.serial, said))
            elif given.command == "parts":
                print_parts(workflow, given.database)
            else:
                print_part(workflow, redo(workflow, given.serial, given.node))
    except FlawscopeError as error:
        print(f"mes: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except DBAPIError as error:
        print(f"mes: the database cannot be used: {str(error.orig).partition(chr(10))[0]}", file=sys.stderr)  # noqa: T201
        return StorageError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
