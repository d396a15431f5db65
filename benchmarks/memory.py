"""Peak memory of a piece of work in this process, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"


@dataclass
class Peak:
    """What was measured.

    Attributes:
        value: highest resident memory during the work, MB; None where the kernel does not tell.
    """

    value: float | None = None


@contextmanager
def peak_mb() -> Iterator[Peak]:
    """Measure while the block runs; what was resident before counts too."""
    peak = Peak()
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:  # no such file, or not allowed: nothing to tell
        yield peak
        return
    yield peak
    peak.value = resident_peak_mb()


def resident_peak_mb() -> float | None:
    """Highest resident memory since the start or the last reset, MB; None where the kernel does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")), None)
