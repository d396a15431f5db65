"""The table of parts, in SQLite or PostgreSQL: one row for each serial number."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Engine, Float, MetaData, String, Table, create_engine, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError
from sqlalchemy.schema import CreateTable

from flawscope.agent import ConfigError

PARTS = Table(
    "parts",
    MetaData(),
    Column("serial", String, primary_key=True),
    Column("product", String),
    Column("lot", String),
    Column("image", String, nullable=False),
    Column("picture_sha256", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("probability", Float),
    Column("defect_type", String),
    Column("severity", String),
    Column("disposition", String, nullable=False),
    Column("decided_by", String, nullable=False),
    Column("note", String, nullable=False),
    Column("received", String, nullable=False),
    Column("report", JSON, nullable=False),
)
INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
SETUP_LOCK = 1835365236
"""Any number that no other program uses in this database."""
ADDRESSES = "sqlite:///mes.db, or postgresql+psycopg://USER@HOST/DATABASE with flawscope[postgres]."


def open_database(url: str) -> Engine:
    """The database with its table; ``sqlite:///mes.db`` or ``postgresql+psycopg://USER@HOST/DATABASE``.

    Raises:
        ConfigError: the address is neither, or its driver is not installed; it may hold a password and is not repeated.
    """
    try:
        engine = create_engine(url)
    except ArgumentError as error:
        raise ConfigError("the address of the database cannot be read.", hint=ADDRESSES) from error
    except ModuleNotFoundError as error:
        raise ConfigError(f"the database's driver {error.name} is not installed.", hint=ADDRESSES) from error
    if engine.dialect.name not in INSERT:
        raise ConfigError(f"parts cannot be kept in {engine.dialect.name}.", hint=ADDRESSES)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # it looks and makes in two steps: first workers would collide
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SETUP_LOCK})
        connection.execute(CreateTable(PARTS, if_not_exists=True))
    return engine


def upsert(engine: Engine, row: dict[str, Any]) -> None:
    """Write a part's row in the place of the one it may have already: the serial number is the key."""
    with engine.begin() as connection:
        insert = INSERT[engine.dialect.name](PARTS).values(row)
        changed = {name: insert.excluded[name] for name in row if name != "serial"}
        connection.execute(insert.on_conflict_do_update(index_elements=["serial"], set_=changed))
