"""When a file is complete: stable, renamed in, empty, changed again, gone."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flawscope.edges.settling import EMPTY_FACTOR, Settling, Signature

A, B = Path("in/a.png"), Path("in/b.png")


def _signature(size: int, mtime_ns: int = 1, inode: int = 7) -> Signature:
    return Signature(size, mtime_ns, inode)


def _complete(settling: Settling, now_s: float) -> list[Path]:
    return [arrival.path for arrival in settling.complete(now_s)]


def test_a_file_is_complete_when_nobody_changed_it_for_a_while() -> None:
    settling = Settling(1.0)
    settling.saw(A, _signature(10), 0.0)
    assert _complete(settling, 0.75) == []
    settling.saw(A, _signature(20), 0.75)  # still being written
    assert settling.changing == [A]
    assert _complete(settling, 1.5) == []
    assert _complete(settling, 1.75) == [A]
    assert _complete(settling, 9.0) == []  # given out once
    settling.saw(A, _signature(20), 9.0)
    assert _complete(settling, 19.0) == []


def test_a_clock_that_lags_behind_makes_nothing_complete() -> None:
    settling = Settling(1.0)
    settling.saw(A, _signature(10, mtime_ns=0), 100.0)  # "changed" in 1970
    assert _complete(settling, 100.5) == []


def test_renamed_into_place_it_need_not_be_waited_for() -> None:
    settling = Settling(1.0)
    settling.saw_other(Path("in/.a.png.tmp"), _signature(10))
    settling.saw(A, _signature(10), 0.0)
    assert _complete(settling, 0.0) == [A]


def test_a_number_used_again_is_no_rename() -> None:
    settling = Settling(1.0)
    settling.saw_other(Path("in/a.tmp"), _signature(10, mtime_ns=1))
    settling.saw(A, _signature(4, mtime_ns=2), 0.0)
    assert _complete(settling, 0.5) == []
    settling = Settling(1.0)
    settling.saw_other(Path("in/a.tmp"), _signature(10))
    settling.keep_only(set())  # deleted
    settling.saw(A, _signature(10), 0.0)
    assert _complete(settling, 0.5) == []


def test_an_empty_file_is_given_longer() -> None:
    settling = Settling(1.0)
    settling.saw(A, _signature(0), 0.0)
    assert _complete(settling, EMPTY_FACTOR - 0.1) == []
    assert _complete(settling, EMPTY_FACTOR) == [A]


def test_a_name_that_repeats_with_new_content_is_given_out_again() -> None:
    settling = Settling(1.0)
    settling.saw(A, _signature(10, 1), 0.0)
    (first,) = settling.complete(1.0)
    assert settling.is_current(first)
    settling.saw(A, _signature(10, 2), 2.0)
    assert not settling.is_current(first)
    (second,) = settling.complete(3.0)
    assert settling.is_current(second)


def test_gone_before_or_after_it_was_complete() -> None:
    settling = Settling(1.0)
    settling.saw(A, _signature(10), 0.0)
    settling.saw(B, _signature(10), 0.0)
    settling.gone(A)
    (arrival,) = settling.complete(1.0)
    assert arrival.path == B
    settling.keep_only(set())
    assert not settling.is_current(arrival)
    settling.saw(B, _signature(10), 5.0)  # back again: whoever keeps the records knows whether it is the same
    assert _complete(settling, 6.0) == [B]


def test_thousands_at_once_come_oldest_first() -> None:
    settling = Settling(1.0)
    for number in range(5000):
        settling.saw(Path(f"in/{number:04d}.png"), _signature(10, mtime_ns=5000 - number, inode=number), 0.0)
    found = settling.complete(1.0)
    assert [arrival.signature.mtime_ns for arrival in found] == list(range(1, 5001))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 8)), max_size=30))
def test_nothing_is_given_out_that_changed_within_the_time(looks: list[tuple[int, int, int]]) -> None:
    settling, now, since = Settling(1.0), 0.0, {}
    paths = [Path(f"{number}.png") for number in range(4)]
    for which, size, later in looks:
        now += later / 4
        path, signature = paths[which], _signature(size)
        if since.get(path, (None, 0.0))[0] != signature:
            since[path] = (signature, now)
        settling.saw(path, signature, now)
        for arrival in settling.complete(now):
            changed, at = since[arrival.path]
            assert arrival.signature == changed
            assert now - at >= 1.0
