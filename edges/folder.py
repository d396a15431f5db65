"""What is in a watched folder, and when to look again.

Looking through the folder is the truth: it works on every file system and misses nothing. Where the system tells of
changes (``watchfiles``), they only say where to look sooner, so that an event that was lost costs time and no picture.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ..agent.session import PICTURE_SUFFIXES
from .settling import Settling, Signature

LOOK_S = 1.0
"""How often to look through the folder where nothing tells of changes."""
LOOK_WHEN_TOLD_S = 30.0
"""How often where something does, once it has for a while."""
WAIT_S = 0.25
"""A signal is noticed within this time."""


class WatchedFolder:
    """A folder with everything below it, without hidden folders, links to folders and the output.

    Args:
        root: the folder.
        leave_out: a folder below it that is not looked into.
        look_s: look through it this often and do not ask to be told; None asks where that is possible.

    Attributes:
        links_to_nothing: pictures by their names that are links to no file that can be reached, or not yet.
    """

    def __init__(self, root: Path, leave_out: Path, look_s: float | None = None) -> None:
        self.root = Path(os.path.realpath(root))
        self.away = False
        self.links_to_nothing: set[Path] = set()
        self._leave_out = os.path.realpath(leave_out)
        self._identity = _identity(self.root)
        self._events = Events(self.root) if look_s is None and Events.available() else None
        self._look_s = look_s or LOOK_S
        self._told_look_s = LOOK_S
        self._next_look_s = 0.0

    @property
    def manner(self) -> str:
        """How changes are noticed, in words."""
        return "told of changes" if self._told else f"looking every {self._look_s:g} s"

    @property
    def _told(self) -> bool:
        return self._events is not None and self._events.working

    def close(self) -> None:
        """End being told."""
        if self._events is not None:
            self._events.close()

    def wait(self) -> None:
        """For a change, or a quarter of a second."""
        if self._told and self._events is not None:
            self._events.wait(WAIT_S)
        else:
            time.sleep(WAIT_S)

    def look(self, settling: Settling) -> None:
        """Tell what there is: everything when its time has come, else what changed or is changing."""
        now_s = time.monotonic()
        if self._events is not None and _identity(self.root) != self._identity:
            self._events.working = False  # another folder, or none, is at this path now: nothing is told of it
        if now_s >= self._next_look_s or (self._events is not None and self._events.lost()):
            self._look_through(settling)
            pause_s = self._told_look_s if self._told else self._look_s
            self._next_look_s = time.monotonic() + pause_s
            # Being told takes a moment to begin, and nobody says when it has: the first looks come soon.
            self._told_look_s = min(2 * self._told_look_s, LOOK_WHEN_TOLD_S)
            return
        changed = self._events.taken() if self._events is not None else set()
        for path in {*changed, *settling.changing}:
            self._look_at(path, settling, now_s)

    def _look_through(self, settling: Settling) -> None:
        now_s, found = time.monotonic(), set()
        try:
            os.scandir(self.root).close()
        except OSError:  # a share that is not mounted now; its files are not gone
            self.away = True
            return
        self.away = False
        self.links_to_nothing.clear()
        for path, status in self._files(str(self.root)):
            found.add(path)
            self._tell(path, status, settling, now_s)
        settling.keep_only(found)

    def _files(self, folder: str) -> Iterator[tuple[Path, os.stat_result]]:
        try:
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError:  # deleted meanwhile, or not ours to read
            return
        for entry in inside:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith(".") and os.path.realpath(entry.path) != self._leave_out:
                        yield from self._files(entry.path)
                elif entry.is_file():
                    yield Path(entry.path), entry.stat()
                else:
                    self._note_link(Path(entry.path))
            except OSError:  # deleted between the two, or a link to itself
                self._note_link(Path(entry.path))

    def _look_at(self, path: Path, settling: Settling, now_s: float) -> None:
        if not self._is_inside(path):
            return
        try:
            status = path.stat()
        except OSError:
            settling.gone(path)
            self._note_link(path)
            return
        if path.is_dir():  # made or moved in with files in it; those have no events of their own
            for inner, inner_status in self._files(str(path)) if not path.is_symlink() else ():
                self._tell(inner, inner_status, settling, now_s)
        else:
            self._tell(path, status, settling, now_s)

    def _is_inside(self, path: Path) -> bool:
        if not path.is_relative_to(self.root):
            return False
        folders = path.relative_to(self.root).parts[:-1]
        real = os.path.realpath(path)
        hidden = any(part.startswith(".") for part in folders)
        return not hidden and real != self._leave_out and not real.startswith(self._leave_out + os.sep)

    def _note_link(self, path: Path) -> None:
        if not _is_picture(path) or not path.is_symlink():
            return
        try:
            leads_nowhere = not path.exists()
        except OSError:  # into a folder that is not ours to read
            leads_nowhere = True
        if leads_nowhere:
            self.links_to_nothing.add(path)

    def _tell(self, path: Path, status: os.stat_result, settling: Settling, now_s: float) -> None:
        if _is_picture(path):
            settling.saw(path, Signature.of(status), now_s)
        else:
            settling.saw_other(path, Signature.of(status))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Events:
    """What the system tells of changes, gathered by a thread.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.working = True
        self._root = root
        self._paths: set[Path] = set()
        self._said_lost = False
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    @staticmethod
    def available() -> bool:
        """Whether the optional part is installed."""
        from importlib.util import find_spec

        return find_spec("watchfiles") is not None

    def wait(self, timeout_s: float) -> None:
        """For the next change."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._paths), timeout_s)

    def taken(self) -> set[Path]:
        """Paths that changed since the last call."""
        with self._changed:
            taken, self._paths = self._paths, set()
        return taken

    def lost(self) -> bool:
        """Whether telling has ended since the last call, so that everything must be looked at."""
        said, self._said_lost = self._said_lost, not self.working
        return not self.working and not said

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from watchfiles import watch

        told = watch(
            self._root,
            watch_filter=None,
            debounce=200,
            step=50,
            stop_event=self._stop,
            rust_timeout=500,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        try:
            for changes in told:
                with self._changed:
                    self._paths |= {Path(path) for _, path in changes}
                    self._changed.notify_all()
        except (OSError, RuntimeError):  # too many folders for the system, or a share that cannot tell
            self.working = False
