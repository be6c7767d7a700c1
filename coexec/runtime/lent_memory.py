"""Tensors between processors that lie in the arena of who made them.

Others read them there, in common memory. Once all have, and who made them knows that, later regions
write there what they want. Often it is known anyway, because something came from the others since.
Where processors meet within kernels, who made them waits once they have met again: by then, others
are done. Else it waits before its next region.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coexec.base.pages import PAGE
from coexec.core.arena import padded
from coexec.runtime.returns import Returns


class Lent(NamedTuple):
    """Bytes of an arena that a buffer has from region ``first`` to region ``last`` of its maker.

    Without a last one it has them until the end.
    """

    buffer: str
    nbytes: int
    first: int
    last: int | None


@dataclass
class _Loan:
    """A tensor in its buffer; ``readers`` are others that have read it, by their launches then.

    None: it is still to be read. ``met``: so often had each of those been to meet others at most.
    """

    tensor: str
    buffer: str
    nbytes: int
    first: int
    last: int | None = None
    readers: Mapping[str, int] | None = None
    met: int = 0


@dataclass
class LentMemory:
    """What each of the ``makers`` has lent of its arena, by its regions.

    ``meet``: processors wait for each other within kernels.
    """

    returns: Returns
    makers: Collection[str]
    meet: bool
    _loans: dict[str, list[_Loan]] = field(default_factory=dict)

    def lend(self, maker: str, tensor: str, buffer: str, nbytes: int, region: int) -> None:
        """A region of ``maker`` makes a tensor; nothing is lent by those that do not."""
        if maker not in self.makers:
            return
        loan = _Loan(tensor, buffer, padded(nbytes, PAGE), region)
        self._loans.setdefault(maker, []).append(loan)

    def was_read(self, maker: str, buffer: str, readers: Mapping[str, int], met: int) -> bool:
        """All regions that read a tensor have been handed over; whether it lies in an arena."""
        found = [loan for loan in self._loans.get(maker, []) if loan.buffer == buffer]
        for loan in found:
            loan.readers, loan.met = readers, met
        return bool(found)

    def take_back(self, maker: str, region: int) -> None:
        """Before a region: it may write where others are known to be done."""
        for loan in self._loans.get(maker, []):
            if loan.last is None and self._is_done(maker, loan):
                loan.last = region - 1

    def blocks(self) -> dict[str, Sequence[Lent]]:
        """What was lent, by maker."""
        return {
            maker: [Lent(each.buffer, each.nbytes, each.first, each.last) for each in loans]
            for maker, loans in self._loans.items()
        }

    def _is_done(self, maker: str, loan: _Loan) -> bool:
        """Whether ``maker`` knows from now on that a tensor was read."""
        readers = loan.readers
        if readers is None:
            return False
        late = [name for name, at in readers.items() if not self.returns.knows(maker, name, at)]
        if late and self.meet and self.returns.met[maker] <= loan.met:
            return False
        for name in late:
            self.returns.come_after(loan.tensor, name, maker, readers[name])
        return True
