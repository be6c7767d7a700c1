"""The processor protocol: seven methods behind which stands a CPU, GPU, NPU or a simulation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from coexec.base.errors import UsageError
from coexec.core.arena import ArenaBlock
from coexec.core.events import Event
from coexec.core.flag import Raised
from coexec.core.types import Array, OpCall, Region


@dataclass(frozen=True)
class Support:
    """Whether a processor executes an operator call; a refusal always has a reason."""

    yes: bool
    reason: str = ""


@dataclass(frozen=True)
class ProcessorSpec:
    """What a processor is. ``resources`` names the silicon it occupies: never book it twice."""

    name: str
    kind: str
    device: str
    driver: str = ""
    compute_units: int = 0
    memory_bytes: int = 0
    unified_memory: bool = True
    features: Mapping[str, bool] = field(default_factory=dict)
    resources: tuple[str, ...] = ()


class Buffer(ABC):
    """Memory of a processor; contents are undefined until written.

    ``over`` is the memory of the host that it lies over, as bytes, if :meth:`Runner.adopt` made it.
    """

    nbytes: int
    over: Array | None = None
    _same: Array | None = None

    def lies_over(self, array: Array) -> bool:
        """Whether ``array`` is the very memory of this buffer.

        The array that was last found to be is known again: NumPy takes microseconds for an address,
        and processors ask at every exchange.
        """
        if self.over is None:
            return False
        if array is not self._same and _address(self.over) == _address(array):
            self._same = array
        return array is self._same


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


class Ticket(ABC):
    """A promise of work handed to a processor; ``Processor.wait`` redeems it.

    ``raised`` is the moment at which a flag tells others that it is done, if one does.
    """

    raised: Raised | None = None

    def then(self, call: Callable[[], object]) -> None:
        """Have ``call`` called once the work is done or has failed, from any thread.

        Tickets of a processor that is ``chained`` have this.
        """
        raise NotImplementedError(f"{type(self).__name__} does not tell when it is done")


@dataclass(frozen=True)
class Executable:
    """A compiled region as plain data. ``submit`` takes buffers in the order of :attr:`arguments`.

    ``scratch_bytes`` is the arena for intermediate tensors, ``naive_bytes`` its size without reuse.
    ``carried`` are offsets in the arena of outputs that stay there for later executables, which
    have them among their ``continued``; neither are arguments. ``page_bytes`` is memory outside of
    the device for tensors that leave it (:class:`coexec.core.pages.Pages`). ``blocks`` are what
    lies in the arena and can be :meth:`moved`, with what is continued or left alone, by its name.
    """

    processor: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scratch_bytes: int
    naive_bytes: int
    carried: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    continued: tuple[str, ...] = field(default=(), kw_only=True)
    page_bytes: int = field(default=0, kw_only=True)
    blocks: tuple[ArenaBlock, ...] = field(default=(), kw_only=True)

    def moved(self, shifts: Mapping[str, int], nbytes: int) -> Self:
        """The same with blocks of the arena so many bytes further, in an arena of ``nbytes``."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to move")

    @property
    def constant_bytes(self) -> int:
        """Weights and tables that travel with the executable."""
        return 0

    def arena_use(self) -> Iterable[tuple[str, int]]:
        """Names of nodes (``a+b``: fused) with the bytes of the arena in use while they run.

        Empty where the processor plans no arena.
        """
        return ()

    def computed(self) -> Mapping[str, str]:
        """Its results or steps by name, with words that differ where last bits may."""
        return dict.fromkeys(self.outputs, "")

    def halves(self, phase: str, results: Sequence[str]) -> tuple[Executable, Executable]:
        """The steps of a phase that come first, which make ``results``, and those behind them.

        Both take the same buffers. Executables of processors with ``pauses`` have this.

        Raises:
            ValueError: a result is made behind them.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot pause")

    @property
    def arguments(self) -> tuple[str, ...]:
        """Tensor names in argument order: inputs, then outputs, then arena and pages (if any)."""
        scratch = ("#scratch",) if self.scratch_bytes else ()
        return self.inputs + self.outputs + scratch + (("#pages",) if self.page_bytes else ())

    def to_json(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """The executable as JSON values and named arrays, for a bundle."""
        raise NotImplementedError(f"{type(self).__name__} cannot be saved in a bundle")


Host = Array
"""Host memory in a copy: a C-contiguous NumPy array, or a part of one along an axis."""


def shared(dst: Buffer | Host, src: Buffer | Host) -> bool:
    """Whether a copy is one between a buffer and the memory that it lies over."""
    # Asked of the arrays, which are no abstract class: a tenth of the time.
    if isinstance(dst, np.ndarray):
        return not isinstance(src, np.ndarray) and src.lies_over(dst)
    return isinstance(src, np.ndarray) and dst.lies_over(src)


class Runner(ABC):
    """The running half of a processor: all that a saved program needs.

    ``after`` lists tickets that must be complete before the work starts; a ticket of another
    processor is waited for by its own processor first (the executor sees to that). ``detailed``
    asks ``wait`` for the parts (kernels) of a launch and not only for its span. ``host_memory``
    is whether it computes on memory of the host: two such processors share a tensor. ``chained`` is
    whether it follows others by itself (:meth:`follow`), so that no thread of the host has to wake
    in between. ``threaded`` is whether a thread of this process takes up what it is given: it then
    contends with whoever hands over more. ``prompt`` is whether handing over returns at once,
    whatever has to be done before. ``pages`` says when it moves tensors off the device, if
    it does: ``beside`` its kernels, or ``between`` them, with the very cores that compute.
    """

    detailed: bool = False
    host_memory: bool = False
    chained: bool = False
    threaded: bool = False
    prompt: bool = False
    pages: Literal["", "beside", "between"] = ""

    @abstractmethod
    def describe(self) -> ProcessorSpec:
        """Name, capabilities and the silicon it occupies."""

    @abstractmethod
    def alloc(self, nbytes: int) -> Buffer:
        """Allocate memory; freed when the buffer is garbage."""

    def alloc_for_host(self, nbytes: int) -> Buffer:
        """Memory for a tensor that only this processor and the host touch, the host in every run.

        Where it can be, such that a copy needs no help of the device.
        """
        return self.alloc(nbytes)

    def adopt(self, memory: Host) -> Buffer:
        """A buffer over memory of the host (bytes, page-aligned), where ``host_memory`` is set.

        Raises:
            ProcessorError: the device does not take this memory.
        """
        raise NotImplementedError(f"{type(self).__name__} does not compute on memory of the host")

    def sees_host_memory(self) -> bool:
        """Whether adopted memory is the host's at any time, so that nothing is done to show it.

        Only who made something has to tell of it then, once for all work so far.
        """
        return False

    def alloc_pages(self, nbytes: int) -> Buffer:
        """Memory outside of the device for an executable's pages, where ``pages`` is set.

        Raises:
            DeviceMemoryError: there is no room.
        """
        raise NotImplementedError(f"{type(self).__name__} moves nothing off the device")

    def tell(self) -> Ticket:
        """Let others see all work so far in adopted memory, where :meth:`sees_host_memory`.

        What a copy between a buffer and its memory does, whichever of its buffers that is.
        """
        raise NotImplementedError(f"{type(self).__name__} does not see memory of the host")

    def follow(self, ticket: Ticket) -> None:
        """Start what is handed over from now on after ``ticket`` of another, chained processor."""
        raise NotImplementedError(f"{type(self).__name__} does not follow others by itself")

    @abstractmethod
    def copy(self, dst: Buffer | Host, src: Buffer | Host, after: Sequence[Ticket]) -> Ticket:
        """Copy ``src`` to ``dst`` (equal sizes); at least one is a buffer of this processor.

        Between a buffer and the memory that it lies over nothing moves: what one side wrote before
        is then there for the other.
        """

    @abstractmethod
    def submit(
        self, executable: Executable, buffers: Sequence[Buffer], after: Sequence[Ticket]
    ) -> Ticket:
        """Start a compiled region on ``buffers`` (order: ``Executable.arguments``)."""

    def again(
        self, executable: Executable, buffers: Sequence[Buffer]
    ) -> Callable[[], Ticket] | None:
        """What submits a region on the same buffers as before, with all looked up beforehand.

        None: nothing is to be gained, or not yet. It holds for as long as both are there.
        """
        return None

    def bind(self, executable: Executable, buffers: Sequence[Buffer]) -> None:
        """Do beforehand what the first submission of a region on ``buffers`` has to wait for."""
        return  # nothing

    def meets(self, other: Runner) -> bool:
        """Whether a kernel may wait here for one of ``other`` that works at the same time."""
        return False

    @abstractmethod
    def wait(self, ticket: Ticket) -> Event:
        """Block until the work is done and say when it ran."""

    def finish(self, ticket: Ticket) -> None:
        """Block until the work is done, for a caller who may ask later, or never, when it ran.

        Raises what :meth:`wait` raises.
        """
        self.wait(ticket)

    def watch(self, ticket: Ticket) -> None:
        """As :meth:`finish`, for a caller whose core has nothing else to do: it need not sleep."""
        self.finish(ticket)


IN_FLOATS = "this processor computes in floats"


class Processor(Runner):
    """A device that compiles regions ahead of time and runs them.

    ``pauses`` is whether what it compiles can be divided where a caller looks at a result
    (:meth:`Executable.halves`).
    """

    pauses: bool = False

    @abstractmethod
    def supports(self, call: OpCall) -> Support:
        """Whether this call can be compiled here, and if not, why."""

    @abstractmethod
    def compile(self, region: Region) -> Executable:
        """Compile a region whose every call is supported."""

    def lay_out(self, region: Region) -> Executable:
        """What :meth:`compile` gives, for plans alone: code need not be built yet."""
        return self.compile(region)

    def fused(self, region: Region) -> Mapping[str, OpCall | None]:
        """What computes nodes of ``region``, by their names, if all of it is compiled as a whole.

        A call of an operator of its own; nothing where the call of another node has that in it. Of
        nodes that are not named, their own calls do. Only what is priced otherwise need be told.
        """
        return {}

    def fused_share(self, made: OpCall, share: OpCall) -> OpCall | None:
        """What computes a share of a node if ``made``, one of :meth:`fused`, computes all of it.

        ``share`` is the node's own call for that part. None: shares are computed by their own
        calls, and so are the nodes around them that ``made`` has in it.
        """
        return None

    def in_floats(self, region: Region, layers: Mapping[str, str]) -> Mapping[str, str]:
        """Which quantised ``layers`` of ``region`` are computed in floats, by name, with reasons.

        ``layers`` are all of them, each with why nobody computes it on bytes, or "".
        """
        return {name: reason or IN_FLOATS for name, reason in layers.items()}

    def code_of(self, call: OpCall) -> str:
        """A digest of the code that executes a supported call here, with its tuned values.

        Times measured with other code no longer hold. Empty where name, driver and version of
        coexec say it all.
        """
        return ""

    def choices(self) -> str:
        """What was found to be fast for it and decides on its code, as :meth:`choose_by` takes it.

        Empty where nothing does but the processor itself.
        """
        return ""

    def choose_by(self, choices: str) -> None:
        """Compile from now on, for everybody, by the :meth:`choices` of an earlier process.

        Raises:
            UsageError: they are none of this processor.
        """
        raise UsageError(f"{type(self).__name__} has nothing to choose by")


@dataclass(frozen=True)
class Candidate:
    """A processor that exists on this machine (``spec``) or does not (``reason``: what to do)."""

    name: str
    spec: ProcessorSpec | None
    reason: str = ""


def require_float16(processors: Mapping[str, Processor], asked: str) -> None:
    """Refuse what was ``asked`` for where the first processor has no arithmetic in float16.

    Raises:
        UsageError: with that processor, and what to do.
    """
    spec = next(iter(processors.values())).describe()
    if not spec.features.get("fp16", True):
        raise UsageError(
            f"{asked} needs float16, which {spec.name} ({spec.device}) does not have; "
            "use another processor, or precision 'float32'"
        )
