"""Single operators on coexec: a graph of one case, run on data that stays on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

import coexec
from bench.operands import draw
from bench.peers.coexec_graphs import graph_of
from coexec.core.processor import Buffer, Runner, Ticket
from coexec.core.program import Launch
from coexec.core.types import Array
from coexec.runtime.executor import Executor


class Resident:
    """A compiled model whose inputs were copied to the device once: a run only computes.

    ``in_place`` names an input for an output that takes its place, as states do in training: after
    the first run, whose results are kept, it is written there.
    """

    def __init__(
        self,
        model: ir.Model,
        processor: str,
        feeds: Mapping[str, Array],
        in_place: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        session = coexec.compile(model, [processor])
        if session.fallbacks:
            raise RuntimeError(f"not all on {processor}: {session.fallbacks}")
        program, processors = session.program, session.processors
        del session  # its executor has buffers of its own
        executor = Executor(program, processors)
        wanted = {name: feeds[name] for name in program.inputs}
        results = executor.run(wanted)
        self.results = [results[name] for name in program.outputs]
        self.launches = [
            (
                processors[program.executables[step.executable].processor],
                program.executables[step.executable],
                _arguments(executor, step, in_place),
            )
            for step in program.instructions
            if isinstance(step, Launch)
        ]

    def run(self, count: int) -> None:
        """So many runs, handed over one behind the other; waits for the last."""
        tickets: list[tuple[Runner, Ticket]] = []
        for _ in range(count):
            tickets = self.submit()
        for runner, ticket in tickets[-1:]:
            runner.wait(ticket)

    def submit(self) -> list[tuple[Runner, Ticket]]:
        """Hand one run over; all of it is done when the last ticket is."""
        return [
            (runner, runner.submit(executable, buffers, ()))
            for runner, executable, buffers in self.launches
        ]


def _arguments(executor: Executor, step: Launch, in_place: Mapping[str, str]) -> list[Buffer]:
    """The buffers of a launch, with those of results replaced by those whose place they take.

    Raises:
        KeyError: ``in_place`` names a tensor that is no argument of the launch.
    """
    names = executor.program.executables[step.executable].arguments
    holders = dict(zip(names, step.buffers, strict=True))
    taken = {holders[result]: holders[operand] for result, operand in in_place.items()}
    return [executor.buffers[taken.get(name, name)] for name in step.buffers]


IN_PLACE: Mapping[str, Mapping[str, str]] = {
    "update.momentum": {"y0": "x", "y1": "m"},
    "update.adam": {"y0": "x", "y1": "m", "y2": "s"},
}


class OperatorCall:
    """A case of the suites gemm, conv and memory."""

    def __init__(self, processor: str, kind: str, spec: Mapping[str, Any]) -> None:
        feeds: dict[str, Array] = dict(draw(spec["operands"]))
        model = graph_of(kind, spec)
        feeds |= {
            name: np.asarray(value)
            for name, value in (("rate", np.float32(0.01)), ("step", np.int64(1)))
            if name in {str(v.name) for v in model.graph.inputs}
        }
        self.resident = Resident(model, processor, feeds, IN_PLACE.get(kind, {}))

    def run(self, count: int) -> None:
        self.resident.run(count)

    def outputs(self) -> Sequence[Array]:
        return self.resident.results

    def facts(self) -> Mapping[str, Any]:
        return {}
