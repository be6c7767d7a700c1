"""Processors with a queue and a thread of their own: the reference, one thing after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir

from coexec.base.errors import ProcessorError
from coexec.core.events import MAP, Event
from coexec.core.here import Here, WorksHere
from coexec.core.plan import Plan
from coexec.core.processor import Buffer, Executable, Host, ProcessorSpec, Ticket
from coexec.processors.reference.processor import Done, ReferenceBuffer, ReferenceProcessor
from coexec.runtime.executor import Executor
from coexec.runtime.lower import lower
from coexec.runtime.lowering import Lowering

POISON = 0xA5
TOLD = Event("share read", MAP, "", 0, 0)


@dataclass(frozen=True)
class Later(Ticket):
    """Work of a queue."""

    done: Future[Done]

    def then(self, call: Callable[[], object]) -> None:
        self.done.add_done_callback(lambda _done: call())


class Queued(ReferenceProcessor, WorksHere):
    """The reference behind an in-order queue of its own thread, with memory that is never clean."""

    prompt = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.chained = True
        self.sees = False
        self.queue = ThreadPoolExecutor(1, name)
        self.submitted_by: set[str] = set()
        self.followed = 0
        self.handed_over: list[Future[Done]] = []

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(self.name, "cpu", "test")

    def sees_host_memory(self) -> bool:
        return self.sees and self.host_memory

    def alloc(self, nbytes: int) -> ReferenceBuffer:
        buffer = super().alloc(nbytes)
        buffer.memory[:] = POISON
        return buffer

    def follow(self, ticket: Ticket) -> None:
        self.followed += 1
        done = threading.Event()
        self.queue.submit(done.wait)
        ticket.then(done.set)

    def adopt(self, memory: Host) -> ReferenceBuffer:
        memory[:] = POISON
        return super().adopt(memory)

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Later:  # type: ignore[override]
        return self._later(self.queue.submit(super().copy, dst, src, after))

    def tell(self) -> Later:
        return self._later(self.queue.submit(lambda: Done(TOLD)))

    def submit(  # type: ignore[override]
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Later:
        self.submitted_by.add(threading.current_thread().name)
        return self._later(self.queue.submit(super().submit, executable, buffers, after))

    def _later(self, done: Future[Done]) -> Later:
        self.handed_over.append(done)
        return Later(done)

    def wait(self, ticket: Ticket) -> Event:
        assert isinstance(ticket, Later)
        return ticket.done.result().event


class OnCaller(Here):
    """The work of such a processor on the thread of its caller."""

    def __init__(self, owner: Queued) -> None:
        super().__init__()
        self.owner = owner
        self.name = owner.name
        self.placed = 0
        self.done_by: set[str] = set()

    def describe(self) -> ProcessorSpec:
        return self.owner.describe()

    def alloc(self, nbytes: int) -> ReferenceBuffer:
        return self.owner.alloc(nbytes)

    def sees_host_memory(self) -> bool:
        return True

    @contextmanager
    def place(self) -> Iterator[None]:
        self.placed += 1
        yield

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Ticket:
        return self.keep(lambda: self._now(ReferenceProcessor.copy(self.owner, dst, src, after)))

    def tell(self) -> Ticket:
        return self.keep(lambda: self._now(Done(TOLD)))

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Ticket:
        run = partial(ReferenceProcessor.submit, self.owner, executable, buffers, after)
        return self.keep(lambda: self._now(run()))

    def _now(self, done: Done) -> Callable[[], Event]:
        self.done_by.add(threading.current_thread().name)
        return lambda: done.event


class Broken(Queued):
    """Its first launch fails while it runs."""

    def submit(  # type: ignore[override]
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Later:
        def fail() -> Done:
            raise ProcessorError(f"{self.name} is broken")

        return Later(self.queue.submit(fail))


def queues(*names: str) -> dict[str, Queued]:
    return {name: Queued(name) for name in names}


def working_here(name: str) -> tuple[Queued, OnCaller]:
    """A processor that can work on the thread of its caller."""
    found = Queued(name)
    found.here = here = OnCaller(found)
    return found, here


def executor(
    model: ir.Model, plan: Mapping[str, str], on: Mapping[str, Queued], **how: object
) -> Executor:
    program = lower(model.graph, Lowering(Plan(plan), on, **how))  # type: ignore[arg-type]
    return Executor(program, on)
