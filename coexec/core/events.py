"""What happened when, on one clock (host monotonic nanoseconds)."""

from __future__ import annotations

from dataclasses import dataclass, field

LAUNCH, LAYOUT, COPY, MAP, FREE = "launch", "layout", "copy", "map", "free"
"""Kinds of events on a processor's track; a layout event is a kernel that only rearranges data."""

DISPATCH, SYNC, RUN = "dispatch", "sync", "run"
"""Kinds of events on the host's track: handing work over, waiting for it, a whole run."""

HOST = "host"
"""Track of the host thread."""


@dataclass(frozen=True)
class Event:
    """One thing a processor did; ``parts`` are the kernels of a launched region.

    ``flop`` and ``bytes`` are the work of the operator (not counters), ``track`` is the processor.
    ``dtype`` is the element type it computes in. ``source`` is the node of the user's model that
    the work belongs to: a gradient's forward node, an update's layer, a forward node itself.
    ``items`` is the number of work-items of a kernel. ``live`` are the bytes of the arena in use
    while it runs, of which ``gradients`` are tensors of the backward pass and ``workspace`` is the
    kernels' own; 0 where that means nothing. ``choice`` is the kernel's variant with its values.
    ``meets`` is whether it waited for other processors meanwhile, for an unknown time.
    """

    name: str
    kind: str
    track: str
    start_ns: int
    end_ns: int
    flop: int = 0
    bytes: int = 0
    operator: str = ""
    phase: str = ""
    parts: tuple[Event, ...] = ()
    source: str = ""
    dtype: str = ""
    items: int = 0
    live: int = 0
    choice: str = ""
    gradients: int = 0
    workspace: int = 0
    meets: bool = False

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


@dataclass
class Trace:
    """Events of one or several runs, in the order in which they were waited for."""

    events: list[Event] = field(default_factory=list)

    def leaves(self) -> list[Event]:
        """Kernels and copies, without the regions around them and the host's own track."""
        return [
            leaf
            for event in self.events
            if event.track != HOST and event.kind != FREE
            for leaf in (event.parts or (event,))
        ]

    def host(self) -> list[Event]:
        """What the host thread did: dispatching, waiting, whole runs."""
        return [event for event in self.events if event.track == HOST]
