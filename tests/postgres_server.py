"""A PostgreSQL server of the tests' own, on a free port of this machine, gone when they end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

LONGEST_START_S = 60.0


def binaries() -> Path:
    """Where initdb and postgres are.

    Raises:
        FileNotFoundError: PostgreSQL is not installed; on Debian, ``apt-get install postgresql``.
    """
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        raise FileNotFoundError("no PostgreSQL: initdb is neither on the path nor under /usr/lib/postgresql")
    return folders[-1]


def other_user() -> dict[str, Any]:
    """For subprocess: PostgreSQL refuses to run as root, so root runs it as somebody else."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("there is neither a user postgres nor nobody to run PostgreSQL as")


@contextmanager
def postgres_server() -> Iterator[str]:
    """Make a cluster, start it, stop it and remove it.

    Yields:
        ``postgresql://tests@127.0.0.1:PORT/postgres``.
    """
    folder = Path(tempfile.mkdtemp(prefix="flawscope-postgres-"))
    given: dict[str, Any] = {"cwd": folder, "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}, **other_user()}
    if "user" in given:
        os.chown(folder, given["user"], given["group"])
    try:
        made = [binaries() / "initdb", "-D", folder / "data", "-U", "tests", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, **given)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off"}
        started = [binaries() / "postgres", "-D", folder / "data"]
        for name, value in options.items():
            started += ["-c", f"{name}={value}"]
        with (folder.parent / f"{folder.name}.log").open("wb") as log:
            server = subprocess.Popen(started, stdout=log, stderr=log, **given)
        try:
            url = f"postgresql://tests@127.0.0.1:{port}/postgres"
            wait_for(url, server, Path(log.name))
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            server.wait(timeout=60)
            Path(log.name).unlink()
    finally:
        shutil.rmtree(folder)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server takes connections."""
    deadline = time.monotonic() + LONGEST_START_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.05)
        else:
            return
