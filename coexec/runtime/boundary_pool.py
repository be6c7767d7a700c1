"""Memory of tensors between processors that later ones take over once nobody reads the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """Memory of ``nbytes`` whose contents are dead: the buffer, and the tensor that it had.

    ``readers`` are other processors that have read them there, with their launches by then.
    ``met``: so often had each of those been to meet others at most.
    """

    buffer: str
    nbytes: int
    tensor: str
    readers: Mapping[str, int]
    met: int = 0


class BoundaryPool:
    """Rooms by processor. Empty for programs that do not save memory: taking over means waiting."""

    def __init__(self) -> None:
        self._rooms: dict[str, list[Room]] = {}

    def give(self, processor: str, room: Room) -> None:
        """Nobody reads what is in there any more."""
        self._rooms.setdefault(processor, []).append(room)

    def take(self, processor: str, nbytes: int, met: int = 0) -> Room | None:
        """The smallest room that is large enough, else the largest, which then has to grow.

        None whose readers first wait for more than the processor has ``met`` of them.
        """
        rooms = [room for room in self._rooms.get(processor, []) if room.met <= met]
        if not rooms:
            return None
        enough = [room for room in rooms if room.nbytes >= nbytes]
        found = min(enough, key=_size) if enough else max(rooms, key=_size)
        self._rooms[processor].remove(found)
        return found


def _size(room: Room) -> int:
    return room.nbytes
