"""Processors that can work on the thread of their caller.

A thread that wakes for each piece of work takes the interpreter's lock from whoever hands work to
others, and comes late on a core that is busy. Where one thread serves all processors of a program,
it does the work of one of them itself; what others compute meanwhile was started before.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from coexec.base.errors import ProcessorError
from coexec.core.events import SYNC, Event
from coexec.core.flag import Raised
from coexec.core.processor import Runner, Ticket

Work = Callable[[], Callable[[], Event]]
"""Work that returns what makes its event, for those who ask for it."""


class Kept(Ticket):
    """Work to be done, or ``over``; ``raised`` is the moment at which a flag then tells others."""

    def __init__(self, work: Work, raised: Raised | None) -> None:
        self.work = work
        self.raised = raised
        self.over = False
        self.error: ProcessorError | None = None
        self.event: Callable[[], Event] | None = None
        self._calls: list[Callable[[], object]] = []

    def then(self, call: Callable[[], object]) -> None:
        if self.over:
            call()
        else:
            self._calls.append(call)

    def end(self) -> None:
        """Tell those who wait."""
        self.over = True
        for call in self._calls:
            call()


class Here(Runner):
    """A processor's work on its caller's thread, within :meth:`occupied`.

    It is kept, and done in the order in which it was handed over by whoever waits for it.
    """

    name: str
    chained = True
    prompt = True

    def __init__(self) -> None:
        self._kept: deque[Kept] = deque()
        self._lock = threading.RLock()

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """The calling thread is the processor's, with its cores and behind all of its work so far.

        What is kept in the end is not done any more; who follows it goes on all the same.
        """
        with self._lock, self.place():
            try:
                yield
            finally:
                self._leave(self._unfinished())

    @abstractmethod
    def place(self) -> AbstractContextManager[None]:
        """The cores of the processor, behind the work that it does on other threads."""

    def reach(self, moment: Raised) -> None:
        """Tell others that all before a moment is done."""
        raise NotImplementedError(f"{type(self).__name__} has no flag")

    @property
    def newest(self) -> Ticket | None:
        """The work that was kept last, if that is not done."""
        return self._kept[-1] if self._kept else None

    def keeps(self, ticket: Ticket) -> bool:
        """Whether work is not done yet."""
        assert isinstance(ticket, Kept)
        return not ticket.over

    def keep(self, work: Work, raised: Raised | None = None) -> Kept:
        """Have work done when somebody waits for it, or for what is kept later."""
        kept = Kept(work, raised)
        self._kept.append(kept)
        return kept

    def come_after(self, wait: Callable[[], None]) -> None:
        """Before work that is kept from now on, wait: for another processor."""

        def work() -> Callable[[], Event]:
            start = time.perf_counter_ns()
            wait()
            end = time.perf_counter_ns()
            return lambda: Event("wait", SYNC, self.name, start, end)

        self.keep(work)

    def finish(self, ticket: Ticket) -> None:
        assert isinstance(ticket, Kept)
        while not ticket.over:
            self._do(self._kept.popleft())
        if ticket.error is not None:
            raise ProcessorError(str(ticket.error)) from ticket.error

    def finish_all(self) -> None:
        """Do all that is kept.

        Raises:
            ProcessorError: something failed; what was kept behind it is not done.
        """
        while self._kept:
            self._do(self._kept.popleft())

    def wait(self, ticket: Ticket) -> Event:
        assert isinstance(ticket, Kept)
        self.finish(ticket)
        assert ticket.event is not None
        return ticket.event()

    def _do(self, kept: Kept) -> None:
        try:
            kept.event = kept.work()
        except BaseException as error:
            self._kept.appendleft(kept)
            self._leave(error if isinstance(error, ProcessorError) else self._unfinished())
            raise
        self._end(kept)

    def _end(self, kept: Kept) -> None:
        if kept.raised is not None:
            self.reach(kept.raised)
        kept.end()

    def _leave(self, error: ProcessorError) -> None:
        """Nothing that is kept is done any more; who waits for it is told and goes on."""
        while self._kept:
            kept = self._kept.popleft()
            kept.error = error
            self._end(kept)

    def _unfinished(self) -> ProcessorError:
        return ProcessorError(f"{self.name}: what was to be done before did not come to its end")


class WorksHere(ABC):
    """What a processor is, too, that may be able to work on the thread of its caller."""

    here: Here | None = None


def here_of(runner: Runner) -> Here | None:
    """The half of a processor that works on the thread of its caller, if it has one."""
    return runner.here if isinstance(runner, WorksHere) else None
