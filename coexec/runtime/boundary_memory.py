"""Where tensors between processors lie: in the arena of who makes them, or in rooms of their own.

Both are written again once all others have read them there. Only programs that save memory do that:
it means waiting.
"""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.processor import Runner
from coexec.core.program import BufferSpec
from coexec.runtime.boundary_pool import BoundaryPool, Room
from coexec.runtime.lent_memory import LentMemory
from coexec.runtime.lowering import Lowering
from coexec.runtime.returns import Returns


class BoundaryMemory:
    """Buffers of tensors between processors, by their makers.

    ``several`` processors have a part in the program; they may ``meet`` within kernels.
    """

    def __init__(self, how: Lowering, returns: Returns, *, several: bool, meet: bool) -> None:
        self.returns = returns
        self.meet = meet
        self.pool = BoundaryPool()
        able = [name for name, each in how.processors.items() if _is_memory_of_host(each)]
        lends = several and how.reuses and how.mode.residency != "host"
        self.lent = LentMemory(returns, frozenset(able if lends else ()), meet=meet)

    def take(self, maker: str, tensor: str, nbytes: int, region: int) -> str:
        """The buffer for a tensor that a region of ``maker`` makes, which may have to wait."""
        room = self.pool.take(maker, nbytes, self.returns.met[maker])
        if room is None:
            buffer = f"{tensor}@{maker}"
            self.lent.lend(maker, tensor, buffer, nbytes, region)
            return buffer
        for reader, launches in room.readers.items():
            self.returns.come_after(room.tensor, reader, maker, launches)
        return room.buffer

    def give(self, tensor: str, spec: BufferSpec, readers: Mapping[str, int]) -> None:
        """A tensor is dead: others have read it in the memory of its buffer, in their launches."""
        for place in readers if self.meet else ():
            self.returns.tell(tensor, place)
        met = max((self.returns.met[place] for place in readers), default=0)
        if not self.lent.was_read(spec.processor, spec.name, readers, met):
            self.pool.give(spec.processor, Room(spec.name, spec.nbytes, tensor, readers, met))


def _is_memory_of_host(runner: Runner) -> bool:
    """Whether what others have made in memory of the host is there for it with nothing done."""
    return runner.host_memory and runner.sees_host_memory()
