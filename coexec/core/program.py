"""A program: the straight list of instructions that the executor runs over a static memory plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coexec.base.array_parts import Part
from coexec.core.processor import Executable
from coexec.core.types import TensorType

INPUT, OUTPUT, STATE, BOUNDARY, SCRATCH = "input", "output", "state", "boundary", "scratch"
PAGES = "pages"
"""The one role of memory that is not the device's."""
MEETING = "meeting"
"""Memory in which kernels of several processors wait for each other."""


@dataclass(frozen=True)
class BufferSpec:
    """Memory that a program needs: ``role`` says for what.

    ``shares`` names the buffer in whose memory it lies, ``offset`` bytes from where that begins:
    one of another processor, or an arena, if all of them compute on memory of the host. Reads of
    that one and writes of this one then move nothing.
    """

    name: str
    processor: str
    nbytes: int
    role: str
    shares: str = ""
    offset: int = 0


@dataclass(frozen=True)
class Write:
    """Copy: host tensor ``tensor`` (a feed or a staged value) into ``buffer``.

    ``part``: only what lies between two elements of an axis (axis, first, the one behind the last).
    """

    tensor: str
    buffer: str
    part: Part = ()


@dataclass(frozen=True)
class Read:
    """Copy: ``buffer`` into host tensor ``tensor``; complete after the next :class:`Wait`.

    ``part``: what the buffer has of the tensor, as in :class:`Write`.
    """

    tensor: str
    buffer: str
    part: Part = ()


@dataclass(frozen=True)
class Launch:
    """Submit an executable on buffers, in the order of its arguments."""

    executable: int
    buffers: tuple[str, ...]


@dataclass(frozen=True)
class Wait:
    """Wait for all reads so far, with ``launches`` for all work.

    ``gate``: the caller looks at what was read and may stop the program.
    """

    gate: bool = False
    launches: bool = False


@dataclass(frozen=True)
class Free:
    """The buffer's contents are dead from here on (its memory stays in the static plan)."""

    buffer: str


Instruction = Write | Read | Launch | Wait | Free


@dataclass(frozen=True)
class Program:
    """Instructions, executables and buffers; ``types`` covers inputs, outputs, states, staging.

    ``inputs`` and ``outputs`` are tensors that pass through the host; ``state`` names tensors that
    live in a buffer of the same name from one run to the next.
    """

    instructions: tuple[Instruction, ...]
    executables: tuple[Executable, ...]
    buffers: tuple[BufferSpec, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    state: tuple[str, ...]
    types: Mapping[str, TensorType] = field(default_factory=dict)

    def check(self) -> None:
        """Every name and number refers to something that is there.

        Raises:
            ValueError: the first reference that does not.
        """
        buffers = {buffer.name for buffer in self.buffers}
        for buffer in self.buffers:
            known = not buffer.shares or buffer.shares in buffers
            _require(known, f"{buffer.name!r} shares the memory of no buffer {buffer.shares!r}")
        for name in (*self.inputs, *self.outputs, *self.state):
            _require(name in self.types, f"tensor {name!r} has no type")
        for step in self.instructions:
            match step:
                case Launch():
                    _require(
                        0 <= step.executable < len(self.executables),
                        f"there is no executable {step.executable}",
                    )
                    wanted = len(self.executables[step.executable].arguments)
                    _require(
                        len(step.buffers) == wanted,
                        f"executable {step.executable} takes {wanted} buffers, "
                        f"not {len(step.buffers)}",
                    )
                    _require(buffers.issuperset(step.buffers), "a launch has an unknown buffer")
                case Write() | Read():
                    _require(step.tensor in self.types, f"tensor {step.tensor!r} has no type")
                    _require(step.buffer in buffers, f"there is no buffer {step.buffer!r}")
                case Free():
                    _require(step.buffer in buffers, f"there is no buffer {step.buffer!r}")

    @property
    def processors(self) -> tuple[str, ...]:
        """Processors that compute or hold something, in order of first use."""
        homes = (buffer.processor for buffer in self.buffers)
        return tuple(dict.fromkeys([*(e.processor for e in self.executables), *homes]))

    @property
    def planned_bytes(self) -> int:
        """Bytes of all buffers as planned; not constants of executables, nor what is paged out."""
        own = (buffer for buffer in self.buffers if not buffer.shares and buffer.role != PAGES)
        return sum(buffer.nbytes for buffer in own)

    @property
    def page_bytes(self) -> int:
        """Bytes outside of devices, for tensors that leave them for a while."""
        return sum(buffer.nbytes for buffer in self.buffers if buffer.role == PAGES)

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights and tables that travel with the executables."""
        return sum(executable.constant_bytes for executable in self.executables)

    @property
    def peak_bytes(self) -> int:
        """All device memory that the program takes: buffers and constants."""
        return self.planned_bytes + self.constant_bytes

    @property
    def naive_bytes(self) -> int:
        """:attr:`peak_bytes` if no two intermediate tensors shared memory."""
        scratch = sum(b.nbytes for b in self.buffers if b.role == SCRATCH)
        return self.peak_bytes - scratch + sum(e.naive_bytes for e in self.executables)


def combined_bytes(programs: Sequence[Program]) -> int:
    """Device memory of programs over the same states: those and the arenas are shared."""
    shared: dict[str, int] = {}
    own = 0
    for program in programs:
        own += program.constant_bytes
        for buffer in program.buffers:
            if buffer.shares or buffer.role == PAGES:
                continue
            if buffer.role in (STATE, SCRATCH):
                shared[buffer.name] = max(shared.get(buffer.name, 0), buffer.nbytes)
            else:
                own += buffer.nbytes
    return own + sum(shared.values())


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ValueError(complaint)
