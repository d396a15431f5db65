"""When is a file complete? When nobody has changed it for a while, or when it was renamed into place.

A file may be seen half written: its size and time of change are compared between looks, on this machine's steady clock
alone, as the clock of a share's server may be another. A writer that gives the file another name while it writes
(``part.png.tmp``, ``.part.png``) and renames it at the end need not be waited for, when the same file was seen with the
same content under that other name.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import stat_result
from pathlib import Path

EMPTY_FACTOR = 10
"""An empty file is given so many times longer, since cameras make the file first and take the picture then."""


@dataclass(frozen=True)
class Signature:
    """What tells one content of a file from the next without reading it.

    Attributes:
        size: bytes.
        mtime_ns: time of change by the file system's clock.
        inode: the file's number, 0 where there is none.
    """

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: stat_result) -> Signature:
        """From ``os.stat``."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)

    def same_content(self, other: Signature) -> bool:
        """Whether a file with the other signature has this content, wherever it was moved from."""
        return (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


@dataclass(frozen=True)
class Arrival:
    """A complete file.

    Attributes:
        path: where it is.
        signature: of the content that is complete.
        since_s: when it was first seen so, on the steady clock.
    """

    path: Path
    signature: Signature
    since_s: float


class Settling:
    """Files on their way to being complete, and those that were dealt with.

    Args:
        settle_s: how long a file must stay as it is.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._changing: dict[Path, Arrival] = {}
        self._given: dict[Path, Signature] = {}
        self._under_other_names: dict[Signature, Path] = {}

    @property
    def changing(self) -> list[Path]:
        """Files to look at again soon."""
        return list(self._changing)

    def saw(self, path: Path, signature: Signature, now_s: float) -> None:
        """A picture is there.

        Args:
            path: where.
            signature: as it is now.
            now_s: on the steady clock.
        """
        given = self._given.get(path)
        if given is not None and given.same_content(signature):
            return
        known = self._changing.get(path)
        if known is not None and known.signature == signature:
            return
        # The whole signature, not the file's number alone: a number is given to another file as soon as it is free.
        renamed = known is None and self._under_other_names.pop(signature, None) is not None
        since = float("-inf") if renamed and signature.size else now_s
        self._changing[path] = Arrival(path, signature, since)
        self._given.pop(path, None)

    def saw_other(self, path: Path, signature: Signature) -> None:
        """A file is there that is no picture by its name, and may become one."""
        if signature.inode:
            self._under_other_names[signature] = path

    def gone(self, path: Path) -> None:
        """A file is there no more."""
        self._changing.pop(path, None)
        self._given.pop(path, None)

    def keep_only(self, paths: set[Path]) -> None:
        """All files that there are, after a look through the whole folder: what else was known is gone."""
        for known in (self._changing, self._given):
            for path in [path for path in known if path not in paths]:
                del known[path]
        for old in [old for old, path in self._under_other_names.items() if path not in paths]:
            del self._under_other_names[old]

    def is_current(self, arrival: Arrival) -> bool:
        """Whether a file that was given out is still the one that is there."""
        return self._given.get(arrival.path) == arrival.signature

    def complete(self, now_s: float) -> list[Arrival]:
        """Files that have become complete, oldest content first; each is given out once."""
        ready = [arrival for arrival in self._changing.values() if now_s - arrival.since_s >= self._wait_s(arrival)]
        for arrival in ready:
            del self._changing[arrival.path]
            self._given[arrival.path] = arrival.signature
        return sorted(ready, key=lambda arrival: (arrival.signature.mtime_ns, arrival.path))

    def _wait_s(self, arrival: Arrival) -> float:
        return self._settle_s * (1 if arrival.signature.size else EMPTY_FACTOR)
