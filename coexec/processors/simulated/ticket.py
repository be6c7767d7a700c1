"""What a simulated processor hands out: buffers and tickets."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coexec.core.processor import Buffer, Ticket
from coexec.core.types import Array
from coexec.processors.simulated.executable import SimulatedExecutable
from coexec.simulation.work import Job


class SimulatedBuffer(Buffer):
    """Memory of a simulated phone; it has contents only where results are computed."""

    def __init__(self, nbytes: int, contents: bool, release: Callable[[int], None]) -> None:
        self.nbytes = nbytes
        self.memory: Array | None = np.zeros(nbytes, np.uint8) if contents else None
        weakref.finalize(self, release, nbytes)


@dataclass
class Knowledge:
    """Up to when the host knows what a processor has done; ``draw_us`` is what learning more takes.

    It takes so long from the end of the work, whenever the host begins to wait. One wait tells of
    all that was done before it.
    """

    draw_us: Callable[[], float]
    until_us: float = -1.0

    def learn(self, job: Job, now_us: float) -> float:
        """Microseconds until the host knows of the end of a job that is done."""
        if job.end_us <= self.until_us:
            return 0.0
        self.until_us = job.end_us
        return max(job.end_us + self.draw_us() - now_us, 0.0)


@dataclass(eq=False)
class SimulatedTicket(Ticket):
    """Work in the simulation: a launch of an executable, or (``copy``: its direction) a copy."""

    job: Job
    knowledge: Knowledge
    executable: SimulatedExecutable | None = None
    copy: str = ""
    nbytes: int = 0

    def learn(self, now_us: float) -> float:
        """As :meth:`Knowledge.learn`."""
        return self.knowledge.learn(self.job, now_us)
