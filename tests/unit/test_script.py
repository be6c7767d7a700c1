"""What one run handed over is handed over again, call by call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest

from coexec.base.errors import ProcessorError
from coexec.core.events import LAUNCH, Event
from coexec.core.flag import Flag, Raised, flag_page, number_in
from coexec.core.here import Here
from coexec.core.processor import Buffer, Executable, ProcessorSpec, Runner, Ticket
from coexec.core.program import Instruction, Launch, Read, Write
from coexec.core.repeats import Call, Repeating, Repeats, Submission
from coexec.processors.reference.processor import Done, ReferenceBuffer, ReferenceProcessor
from coexec.runtime.moves import Region
from coexec.runtime.script import BEYOND, Script, Tape

OVER = Event("over", LAUNCH, "", 0, 0)
FEED, RESULT, FIRST, SECOND = Write("x", "x@far"), Read("y", "y@near"), Launch(0, ()), Launch(1, ())


class Noting(Repeats):
    """Says what it is called for; the caller's own has nothing to wait for."""

    token = -2

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen
        self.follows = True
        self.made: list[Flag] = []

    def flag(self) -> Flag:
        self.made.append(Flag(flag_page(), self.name, frozenset()))
        return self.made[-1]

    def begin(self) -> None:
        self.seen.append(f"begin {self.name}")

    def region(self, executable: Executable, buffers: Sequence[Buffer]) -> Submission:
        raise AssertionError("the test has the submissions")

    def raising(self, flag: Flag, number: int) -> Submission:
        return self.calls(f"{flag.driver} raises {number}")

    def following(self, moment: Raised) -> Submission:
        return self.calls(f"{self.name} follows {moment.flag.driver} to {moment.number}")

    def may_follow(self, flag: Flag) -> bool:
        return self.follows

    def watching(self, token: Callable[[], object]) -> Call:
        return lambda: self.seen.append(f"wait for {token()}")

    def ticket(self, token: object) -> Ticket | None:
        return Done(Event(str(token), LAUNCH, self.name, 0, 0))

    def calls(self, text: str) -> Submission:
        return (partial(self._do, text), lambda: None)

    def _do(self, text: str) -> str:
        self.seen.append(text)
        return text


class Far(ReferenceProcessor, Repeating):
    """A processor that is handed its work."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.how = Noting("far", seen)

    def repeats(self) -> Noting:
        return self.how


class Near(Here, Repeating):
    """One that works on the caller's thread."""

    name = "near"

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.how = Noting("near", seen)

    def repeats(self) -> Noting:
        return self.how

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(self.name, "cpu", "test")

    def alloc(self, nbytes: int) -> ReferenceBuffer:
        return ReferenceBuffer(nbytes)

    @contextmanager
    def place(self) -> Iterator[None]:
        yield

    def copy(self, dst: object, src: object, after: Sequence[Ticket]) -> Ticket:
        return self.nothing()

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Ticket:
        return self.nothing()

    def nothing(self) -> Ticket:
        return self.keep(lambda: lambda: OVER)


class Lane:
    """Says what it follows by hand."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen
        self.last: dict[Runner, Ticket] = {}

    def follow(self, steps: Sequence[Instruction]) -> None:
        self.seen += [f"by hand {type(step).__name__}" for step in steps]


class Pair:
    """A tape of two regions: far's, then near's, whose result goes back to far's next run."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.far, self.near = Far(self.seen), Near(self.seen)
        self.lanes = {"far": Lane(self.seen), "near": Lane(self.seen)}
        self.tape = Tape([self.far, self.near])

    def record(self) -> None:
        tape, near = self.tape, self.near
        tape.by_hand("far", self.far, FEED)
        done = Done(OVER)
        tape.launched(self.far, FIRST, done)
        near.come_after(lambda: None)
        tape.followed(near, done, awake=True)
        mine = near.nothing()
        tape.launched(near, SECOND, mine)
        told = near.nothing()
        tape.told(near, told)
        # Far is told what to wait for before near has done it: of that, all up to the wait.
        tape.followed(self.far, told, awake=True)
        tape.done_until(mine)
        near.nothing()
        tape.by_hand("near", near, RESULT)
        tape.done()

    def script(self, failing: Call | None = None) -> Script:
        launch = {}
        for move in self.tape.moves:
            if isinstance(move, Region):
                how = self.far.how if move.runner is self.far else self.near.how
                launch[move.number] = how.calls(f"{how.name} computes")
        if failing is not None:
            launch[1] = (failing, lambda: None)
        return Script(self.tape, launch, {self.far: "far", self.near: "near"})


def test_calls_come_in_the_order_of_what_was_done() -> None:
    pair = Pair()
    pair.record()
    assert pair.tape.whole
    script = pair.script()
    for _ in range(2):
        pair.seen.clear()
        script.run(pair.lanes)
        assert pair.seen == [
            "begin far",
            "begin near",
            "by hand Write",
            "far computes",
            "far follows near to 1",
            "wait for far computes",
            "near computes",
            "near raises 1",
            "by hand Read",
        ]
        ticket = pair.lanes["far"].last[pair.far]
        assert pair.far.wait(ticket).name == "far computes"


def test_where_a_call_fails_nobody_waits_for_the_rest() -> None:
    def fail() -> None:
        raise OSError("no room")

    pair = Pair()
    pair.record()
    script = pair.script(failing=fail)
    with pytest.raises(ProcessorError, match="no room"):
        script.run(pair.lanes)
    (flag,) = pair.near.how.made
    assert number_in(flag.memory) == BEYOND
    assert pair.far.wait(pair.lanes["far"].last[pair.far]).name == "far computes"
    assert pair.near not in pair.lanes["near"].last
    assert not script.holds()


def test_who_tells_others_last_has_ended_once_it_has_told_them() -> None:
    """The caller, who waits awake on its cores then, would keep it from raising the flag."""
    seen: list[str] = []
    one, two = Far(seen), Far(seen)
    tape, done, told = Tape([one, two]), Done(OVER), Done(OVER)
    tape.launched(one, FIRST, done)
    tape.told(one, told)
    tape.followed(two, told, awake=True)
    tape.launched(two, SECOND, Done(OVER))
    launch = {0: one.how.calls("one computes"), 1: two.how.calls("two computes")}
    lanes = {"one": Lane(seen), "two": Lane(seen)}
    Script(tape, launch, {one: "one", two: "two"}).run(lanes)
    assert one.wait(lanes["one"].last[one]).name == "far raises 1"
    assert two.wait(lanes["two"].last[two]).name == "two computes"


def test_a_flag_that_nobody_waits_for_stays_down() -> None:
    """It might come up in the next run, before what it tells of then."""
    pair = Pair()
    pair.record()
    pair.tape.told(pair.near, pair.near.nothing())
    pair.tape.done()
    pair.script().run(pair.lanes)
    assert "near raises 1" in pair.seen
    assert "near raises 2" not in pair.seen


def test_flags_are_down_when_a_run_begins() -> None:
    pair = Pair()
    pair.record()
    script = pair.script()
    (flag,) = pair.near.how.made
    number_in(flag.memory)[...] = BEYOND
    script.run(pair.lanes)
    assert number_in(flag.memory) == 0  # raised by calls, which only note it here


def test_who_may_not_wait_any_more_is_asked_in_each_run() -> None:
    pair = Pair()
    pair.record()
    script = pair.script()
    assert script.holds()
    pair.far.how.follows = False
    assert not script.holds()


def test_what_cannot_be_told_by_a_flag_makes_no_script() -> None:
    pair = Pair()
    pair.record()
    pair.tape.followed(pair.far, Done(OVER), awake=True)
    assert not pair.tape.whole
    assert not Tape([pair.far, ReferenceProcessor()]).whole


def test_both_of_two_processors_begin_before_the_first_has_all_of_its_work() -> None:
    """And what tells of the end of a region is what its last part returns."""
    seen: list[str] = []
    one, two = Far(seen), Far(seen)
    tape = Tape([one, two])
    launch, tickets = {}, {}
    for number, far in enumerate((one, two)):
        tickets[far] = Done(OVER)
        tape.launched(far, Launch(number, ()), tickets[far])
        begin, rest = far.how.calls(f"{number} begins"), far.how.calls(f"{number} ends")
        launch[number] = (begin[0], *rest)
    told = Done(OVER)
    tape.told(one, told)
    tape.followed(two, told, awake=True)
    for far in (one, two):
        far.how.parted = lambda region: (region[:1], region[1:])  # type: ignore[method-assign]
        far.how.token = -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Noting, "ticket", lambda self, token: Done(Event(str(token), "", "", 0, 0)))
        lanes = {"one": Lane(seen), "two": Lane(seen)}
        Script(tape, launch, {one: "one", two: "two"}).run(lanes)
    assert seen[2:] == [
        "0 begins",
        "1 begins",
        "0 ends",
        "1 ends",
        "far raises 1",
        "far follows far to 1",
    ]
