"""Work that a processor is given in the same way again and again: as calls without arguments.

To look up what an instruction means takes the host longer than to hand it over; and the thread that
does so may take the time of a core that computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from coexec.core.flag import Flag, Raised
from coexec.core.processor import Buffer, Executable, Runner, Ticket

Call = Callable[[], object]
Submission = tuple[Call, ...]
"""Calls in order; what the :attr:`Repeats.token`-th returns tells of the end of the work."""


class Repeats(ABC):
    """How one processor is given work that was given to it before.

    ``token`` is the place in a submission of the call whose result stands for the end of it.
    """

    token: int = -1

    @abstractmethod
    def flag(self) -> Flag:
        """A flag that nobody else raises."""

    @abstractmethod
    def begin(self) -> None:
        """Submissions follow that the processor itself does not look at."""

    @abstractmethod
    def region(self, executable: Executable, buffers: Sequence[Buffer]) -> Submission | None:
        """A region on these buffers; None: it cannot be submitted so, or not yet."""

    @abstractmethod
    def raising(self, flag: Flag, number: int) -> Submission:
        """Have its own ``flag`` raised to a number behind all work so far."""

    def following(self, moment: Raised) -> Submission:
        """Go on once another processor's flag has come to a number."""
        raise NotImplementedError(f"{type(self).__name__} reads no flags")

    def meeting(self, own: Raised, other: Raised) -> Submission:
        """Have its own flag raised, then go on once another processor's has come to a number."""
        return (*self.raising(own.flag, own.number), *self.following(other))

    def parted(self, region: Submission) -> tuple[Submission, Submission]:
        """The submission of a region as two: what the processor begins with, and the rest."""
        return region, ()

    def may_follow(self, flag: Flag) -> bool:
        """Whether it can read that flag now."""
        return False

    def watching(self, token: Callable[[], object]) -> Call:
        """Wait, on the caller's thread, for work of this processor."""
        raise NotImplementedError(f"{type(self).__name__} is not waited for")

    def ticket(self, token: object) -> Ticket | None:
        """The end of a submission as a ticket; none where it is over when the call returns."""
        return None


class Repeating(ABC):
    """What a processor is, too, that may be given the same work again by calls alone."""

    @abstractmethod
    def repeats(self) -> Repeats | None:
        """How; none: not as it is set up."""


def repeats_of(runner: Runner) -> Repeats | None:
    """How a processor is given the same work again, if it can be."""
    return runner.repeats() if isinstance(runner, Repeating) else None
