"""What keeps a plant's pages whole on disk: one writer at a time, and names that outlive a power cut."""

from __future__ import annotations

import os
from pathlib import Path

from ...agent.errors import KnowledgeLockedError


def lock_alone(handle: int, path: Path) -> None:
    """Lock an open file for as long as it stays open.

    Args:
        handle: of the file.
        path: where it was found.

    Raises:
        KnowledgeLockedError: another process has it locked, or has put another folder in the place of its own.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two writers are not told apart there
        return
    locked = KnowledgeLockedError(
        "another process is changing the plant's pages.", hint="Wait for it to end and try again."
    )
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise locked from error
    if not path.exists() or not os.path.samestat(os.fstat(handle), path.stat()):
        raise locked


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
