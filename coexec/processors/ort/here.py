"""ONNX Runtime's work on the thread of its caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from coexec.base.array_parts import copy_bytes
from coexec.base.cores import Core, pinned
from coexec.base.errors import ProcessorError
from coexec.core.events import COPY, MAP, Event
from coexec.core.flag import Flag, Raised, flag_page, number_in
from coexec.core.here import Here, Kept
from coexec.core.processor import Buffer, Executable, Host, Processor, ProcessorSpec, Ticket, shared
from coexec.core.repeats import Repeating, Repeats, Submission
from coexec.processors.ort.buffer import OrtBuffer, memory_of, own
from coexec.processors.ort.executable import OrtExecutable
from coexec.processors.ort.failures import failure
from coexec.processors.ort.flags import OrtFlags


class OrtHere(Here, Repeating):
    """Sessions of ``owner`` run on its caller's thread, on ``cores`` (none: wherever that runs).

    ``flags`` are its own: moments are reached in order, which work on another thread knows nothing
    of. ``settle`` returns once the processor's own thread has done what it was given.
    """

    host_memory = True

    def __init__(
        self,
        owner: Processor,
        cores: tuple[Core, ...],
        flags: OrtFlags | None,
        settle: Callable[[], None],
    ) -> None:
        super().__init__()
        self.owner = owner
        self.name = owner.describe().name
        self.cores = cores
        self.flags = flags
        self._settle = settle

    def describe(self) -> ProcessorSpec:
        return self.owner.describe()

    def alloc(self, nbytes: int) -> OrtBuffer:
        return OrtBuffer(nbytes)

    def adopt(self, memory: Host) -> OrtBuffer:
        return OrtBuffer(memory.nbytes, memory)

    def sees_host_memory(self) -> bool:
        return True

    @contextmanager
    def place(self) -> Iterator[None]:
        self._settle()
        with pinned(self.cores):
            yield

    def reach(self, moment: Raised) -> None:
        assert self.flags is not None
        self.flags.reach(moment)

    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Kept:
        return self.again(executable, buffers)()

    def again(self, executable: Executable, buffers: Sequence[Buffer]) -> Callable[[], Kept]:
        assert isinstance(executable, OrtExecutable)
        bound = [own(buffer) for buffer in buffers]
        return partial(self.keep, partial(self.run, executable, bound))

    def repeats(self) -> OrtRepeats | None:
        return None if self.flags is None else OrtRepeats(self, self.flags)

    def run(self, executable: OrtExecutable, bound: Sequence[OrtBuffer]) -> Callable[[], Event]:
        """Run a session now; what makes its event.

        Raises:
            ProcessorError: it failed.
        """
        try:
            return executable.run(bound, self.name)
        except Exception as error:  # pybind classes without a common base but Exception
            raise ProcessorError(f"{self.name}: {failure(error)}") from error

    def tell(self) -> Kept:
        told = self.flags.next_moment() if self.flags else None
        return self.keep(partial(self._shown, "read"), told)

    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Kept:
        direction = "read" if isinstance(dst, np.ndarray) else "write"
        if shared(dst, src):
            shown = partial(self._shown, direction)
            return self.tell() if direction == "read" else self.keep(shown)
        target, source = memory_of(dst), memory_of(src)

        def work() -> Callable[[], Event]:
            start = time.perf_counter_ns()
            copy_bytes(target, source)
            end = time.perf_counter_ns()
            return lambda: Event(direction, COPY, self.name, start, end, bytes=source.nbytes)

        return self.keep(work)

    def _shown(self, direction: str) -> Callable[[], Event]:
        """All that a copy within shared memory is: everything before it is done."""
        now = time.perf_counter_ns()
        return lambda: Event(f"share {direction}", MAP, self.name, now, now)


class OrtRepeats(Repeats):
    """Calls that run sessions and write flags, each at once."""

    def __init__(self, here: OrtHere, flags: OrtFlags) -> None:
        self.here = here
        self.flags = flags

    def flag(self) -> Flag:
        return Flag(flag_page(), self.flags.own.driver, self.flags.own.silicon)

    def begin(self) -> None:
        """Nothing is remembered of work that is over."""

    def region(self, executable: Executable, buffers: Sequence[Buffer]) -> Submission:
        assert isinstance(executable, OrtExecutable)
        return (partial(self.here.run, executable, [own(buffer) for buffer in buffers]),)

    def raising(self, flag: Flag, number: int) -> Submission:
        return (partial(number_in(flag.memory).__setitem__, (), number),)
