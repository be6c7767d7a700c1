"""Orders of what a run does in which the same comes sooner."""

from __future__ import annotations

from coexec.core.program import Launch, Write
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.runtime.moves import (
    Begin,
    ByHand,
    Follow,
    GoOn,
    Meet,
    Move,
    Region,
    Tell,
    Watch,
    begun,
    heard,
    met,
)

ONE, TWO, CALLER = ReferenceProcessor(), ReferenceProcessor(), ReferenceProcessor()
A, B, C, D = (Region(ONE if n % 2 == 0 else TWO, Launch(n, ()), n) for n in range(4))
ONE_TOLD, TWO_TOLD = Tell(ONE, 1), Tell(TWO, 1)


def test_flags_that_nobody_waits_for_are_left_out() -> None:
    assert heard([A, ONE_TOLD, B, TWO_TOLD, Follow(TWO, ONE_TOLD)]) == [
        A,
        ONE_TOLD,
        B,
        Follow(TWO, ONE_TOLD),
    ]


def test_who_tells_and_waits_next_does_both_at_once() -> None:
    moves: list[Move] = [
        A,
        ONE_TOLD,
        B,
        TWO_TOLD,
        Follow(ONE, TWO_TOLD),
        C,
        Follow(TWO, ONE_TOLD),
        D,
    ]
    together = [A, Meet(ONE_TOLD, TWO_TOLD), B, Meet(TWO_TOLD, ONE_TOLD), C, D]
    assert met(moves, None) == together


def test_the_caller_does_not_wait_before_others_have_their_work() -> None:
    told = Tell(CALLER, 1)
    moves: list[Move] = [told, B, TWO_TOLD, Follow(CALLER, TWO_TOLD)]
    assert met(moves, CALLER) == moves


def test_work_between_telling_and_waiting_keeps_them_apart() -> None:
    moves: list[Move] = [ONE_TOLD, A, TWO_TOLD, Follow(ONE, TWO_TOLD)]
    assert met(moves, None) == moves


def test_all_processors_begin_before_the_first_is_given_the_rest() -> None:
    cut, other = (ByHand(each, "", Write("x", "x")) for each in (ONE, TWO))
    moves: list[Move] = [cut, A, ONE_TOLD, other, B, Follow(TWO, ONE_TOLD), D]
    assert begun(moves, None) == [
        cut,
        Begin(A),
        other,
        Begin(B),
        GoOn(A),
        ONE_TOLD,
        GoOn(B),
        Follow(TWO, ONE_TOLD),
        D,
    ]


def test_who_is_late_begins_after_all_others() -> None:
    cut = ByHand(ONE, "", Write("x", "x"))
    moves: list[Move] = [cut, A, B]
    assert begun(moves, None, ONE) == [Begin(B), cut, Begin(A), GoOn(A), GoOn(B)]


def test_who_waits_for_others_begins_behind_them() -> None:
    moves: list[Move] = [A, ONE_TOLD, Follow(TWO, ONE_TOLD), B]
    assert begun(moves, None) == moves


def test_one_processor_beside_the_caller_is_given_all_at_once() -> None:
    own = Region(CALLER, Launch(4, ()), 4)
    moves: list[Move] = [A, own, Watch(CALLER, A), C]
    assert begun(moves, CALLER) == moves
