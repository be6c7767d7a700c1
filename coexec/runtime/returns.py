"""Tensors that processors have read in memory of others, and when they tell that they are done.

Who made a tensor must not write there again before all have read it. Processors work in order: what
one tells stands for all that it was given until then. Where they meet within kernels, it may have
been given too much by then: nodes whose partners stand behind who waits. So rooms that others will
have are told of at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from coexec.core.program import Instruction, Read, Wait, Write
from coexec.core.types import TensorType


class Returns:
    """What processors were given, and have read in common memory.

    ``instructions`` and ``types`` are those of the program, which grow; ``held`` are buffers by
    tensor and processor. ``met`` counts nodes of each processor that meet those of others: all of
    them have these in one order.
    """

    def __init__(
        self,
        instructions: list[Instruction],
        types: dict[str, TensorType],
        held: Mapping[tuple[str, str], str],
    ) -> None:
        self.instructions = instructions
        self.types = types
        self.held = held
        self.launches: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        # Launches that were over when a processor told another one; the last to read a state.
        self._told: dict[tuple[str, str], int] = {}
        # By tensor who made it, in which launch; launches of others whose results have come since.
        self._sent: dict[str, tuple[str, int]] = {}
        self._came: dict[tuple[str, str], int] = {}
        self._read_by: dict[tuple[str, str], int] = {}

    def launched(self, processor: str, states: Iterable[str]) -> None:
        """A processor was given one more region, which reads these states."""
        self.launches[processor] += 1
        number = self.launches[processor]
        self._read_by.update({(name, processor): number for name in states})

    def sent(self, tensor: str, maker: str) -> None:
        """A tensor was made by the last region that a processor was given, and is told of."""
        self._sent[tensor] = (maker, self.launches[maker])

    def came(self, tensor: str, reader: str) -> None:
        """A processor goes on once a tensor of another one is there, with all before that."""
        maker, launch = self._sent[tensor]
        self._came[maker, reader] = max(self._came.get((maker, reader), 0), launch)

    def knows(self, processor: str, other: str, launch: int) -> bool:
        """Whether what a processor is given next comes after a launch of another one."""
        found = (known.get((other, processor), 0) for known in (self._told, self._came))
        return max(found) >= launch

    def tell(self, tensor: str, reader: str) -> None:
        """A processor tells of what it was given so far; in common memory nothing moves."""
        back = self._back(tensor, reader, self.launches[reader])
        if back not in self.types:
            self.types[back] = self.types[tensor]
            self.instructions += [Read(back, self.held[tensor, reader]), Wait()]

    def come_after(self, tensor: str, reader: str, home: str, at: int | None = None) -> None:
        """``home`` goes on once a tensor was read there, by launch ``at`` of the reader.

        By default, it is a state: it was read by the last launch that has it.
        """
        at = self._read_by.get((tensor, reader), 0) if at is None else at
        if self._told.get((reader, home), 0) >= at:
            return
        if self._back(tensor, reader, at) not in self.types:
            # Else the two would wait for each other (:mod:`coexec.runtime.partition`).
            assert self.met[reader] <= self.met[home], f"{home} cannot wait for {reader}"
            at = self.launches[reader]
            self.tell(tensor, reader)
        self._told[reader, home] = at
        back = self._back(tensor, reader, at)
        self.instructions.append(Write(back, self.held[tensor, home]))

    @staticmethod
    def _back(tensor: str, reader: str, launch: int) -> str:
        return f"{tensor}#back {launch}@{reader}"
