"""Tensors in which kernels of several processors wait for each other, while both work.

They lie in memory that all of these processors have in common (:mod:`coexec.passes.meet_norms`).
Nobody else knows whose turn it is: when a run fails, who waits there has to be let go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

from coexec.base.errors import ProcessorError
from coexec.core.processor import Runner
from coexec.core.program import MEETING, Program
from coexec.core.types import Array

ABANDONED = 0x7F
"""Each byte of a place that nobody waits in any more: its words are above all counts."""
PAUSE_S = 0.005


def places_of(program: Program, memory: Mapping[str, Array]) -> Iterator[Array]:
    """The memory of each place; ``memory`` is what buffers have in common.

    Raises:
        ProcessorError: the processors of a place have none.
    """
    for spec in program.buffers:
        if spec.role != MEETING:
            continue
        if spec.name not in memory:
            raise ProcessorError(
                f"{', '.join(program.processors)} have no memory in common to meet in"
            )
        yield memory[spec.name]


@contextmanager
def abandoned(program: Program, memory: Mapping[str, Array]) -> Iterator[None]:
    """Let go of all who wait in a place meanwhile: nobody will use the results of this run.

    Again and again, since what makes a place ready may still be ahead.
    """
    places, over = [*places_of(program, memory)], Event()

    def let_go() -> None:
        while not over.wait(PAUSE_S):
            for place in places:
                place[:] = ABANDONED

    thread = Thread(target=let_go, name="coexec abandoned")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def able_to_meet(processors: Mapping[str, Runner]) -> frozenset[str]:
    """Names of processors of which each can wait within a kernel for each of the others."""
    found: list[str] = []
    for name, runner in processors.items():
        known = [processors[other] for other in found]
        first = any(runner.meets(each) for each in processors.values()) if not known else True
        if first and all(runner.meets(each) and each.meets(runner) for each in known):
            found.append(name)
    return frozenset(found)
