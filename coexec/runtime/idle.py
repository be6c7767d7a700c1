"""Instructions with which a run has nothing to do: others say the same, or nobody listens.

Of the tensors that one processor leaves to another at the same time, in memory that both see, one
tells for all. What the rest do to the host's thread is to be looked at, each in every run, while
that thread takes the time of a core that computes. Programs and memory are the same in each run: an
instruction that led to nothing in the first is left out of the next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from coexec.core.program import Instruction, Read, Write


class Idle:
    """What the first run of a program found out about its instructions, each an object of its own.

    ``unread``: writes that neither wait nor copy.
    ``wanted`` are the tensors of all other writes: to read others tells nobody anything.
    """

    def __init__(self) -> None:
        self.unread: set[int] = set()
        self.wanted: set[str] = set()

    def written(self, step: Write, *, idle: bool) -> None:
        """A write was followed; whether it did nothing."""
        if idle:
            self.unread.add(id(step))
        else:
            self.wanted.add(step.tensor)

    def left(
        self, steps: Iterable[Instruction], outputs: Collection[str]
    ) -> tuple[Instruction, ...]:
        """Instructions without those that are idle; ``outputs`` are read for the caller."""
        heard = self.wanted.union(outputs)
        return tuple(step for step in steps if not self._is_idle(step, heard))

    def _is_idle(self, step: Instruction, heard: Collection[str]) -> bool:
        match step:
            case Read():
                return step.tensor not in heard
            case Write():
                return id(step) in self.unread
            case _:
                return False
