"""Enqueued commands that were not waited for yet, and what is told of them afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyopencl as cl

from coexec.core.events import COPY, LAUNCH, LAYOUT, Event
from coexec.core.flag import Raised
from coexec.core.processor import Ticket
from coexec.processors.opencl.executable import Label
from coexec.processors.opencl.in_place import InPlaceRead


@dataclass
class OpenCLTicket(Ticket):
    """Events of the enqueued commands with their labels; ``keep`` holds host memory in flight.

    ``start_ns`` is when it was made. ``spans`` are times by the host's clock: of what the host did
    itself, or where the device has none and somebody asked for details. ``raised`` is the moment
    at which others are told, ``left`` what the host has to do once the commands are done.
    """

    name: str
    kind: str
    events: list[cl.Event]
    labels: Sequence[Label]
    keep: object = None
    start_ns: int = field(default_factory=time.perf_counter_ns)
    spans: list[tuple[int, int]] = field(default_factory=list)
    raised: Raised | None = None
    left: InPlaceRead | None = None

    def then(self, call: Callable[[], object]) -> None:
        def ended(_status: cl.command_execution_status) -> None:
            call()

        if self.left is not None:
            self.left.hand_over()
        if not self.events:
            call()
            return
        self.events[-1].set_callback(cl.command_execution_status.COMPLETE, ended)


def parts_of(
    labels: Sequence[Label], spans: Sequence[tuple[int, int]], track: str
) -> tuple[Event, ...]:
    """What each command of a launch did on a track; waits for transfers did nothing."""
    kinds = {"": LAUNCH, "out": COPY, "in": COPY}
    return tuple(
        event_of(label, LAYOUT if label.layout else kinds[label.moves], track, *span)
        for label, span in zip(labels, spans, strict=True)
        if label.moves in kinds
    )


def event_of(
    label: Label, kind: str, track: str, start_ns: int, end_ns: int, parts: tuple[Event, ...] = ()
) -> Event:
    """What a command, or the ``parts`` of a launch together, did on a track."""
    return Event(
        name=label.name,
        kind=kind,
        track=track,
        start_ns=start_ns,
        end_ns=end_ns,
        flop=label.flop,
        bytes=label.bytes,
        operator=label.operator,
        phase=label.phase,
        parts=parts,
        source=label.source,
        dtype=label.dtype,
        items=label.items,
        live=label.live,
        choice=label.choice,
        gradients=label.gradients,
        workspace=label.workspace,
        meets=label.meets,
    )
