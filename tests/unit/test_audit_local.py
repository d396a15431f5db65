"""Which worker gets which line: none waits behind one that is recorded after it."""

from __future__ import annotations

from collections import deque
from typing import Any

from flawscope.audits.local import Limits, LocalEngine, _give_back, _Slot, _Task


class Channel:
    """Takes what is sent."""

    def send(self, told: Any) -> None:
        assert told[0] == "inspect"


def task(index: int, tries: int = 0) -> _Task:
    return _Task(index, job=None, basis=None, tries=tries)  # type: ignore[arg-type]  # neither is looked at here


def slot(*tasks: _Task, ready: bool = True) -> _Slot:
    return _Slot(process=None, channel=Channel(), tasks=deque(tasks), ready=ready)  # type: ignore[arg-type]


def filled(waiting: list[int], *slots: _Slot) -> tuple[list[list[int]], list[int]]:
    """The lines that each worker has afterwards, and those that still wait."""
    engine = LocalEngine(worker=None, workers=len(slots), limits=Limits())  # type: ignore[arg-type]
    engine._slots = list(slots)
    left = deque(task(index) for index in waiting)
    engine._fill(left, iter(()), lambda index: True)
    return [[each.index for each in slot.tasks] for slot in slots], [each.index for each in left]


def test_each_worker_has_two_lines_at_hand() -> None:
    assert filled([0, 1, 2, 3, 4], slot(), slot()) == ([[0, 2], [1, 3]], [4])


def test_a_line_that_came_back_is_not_put_behind_a_later_one() -> None:
    assert filled([5], slot(task(7)), slot(ready=False)) == ([[7], []], [5])
    assert filled([5, 8], slot(task(7)), slot()) == ([[7, 8], [5]], [])
    assert filled([5, 8], slot(task(7)), slot(task(4, tries=1))) == ([[7], [4]], [5, 8])


def test_lines_come_back_in_their_order() -> None:
    waiting = deque([task(5), task(7)])
    _give_back(waiting, deque([task(6)]))
    _give_back(waiting, [task(4, tries=1)])
    assert [each.index for each in waiting] == [4, 5, 6, 7]
