"""A run of a training graph that looks at its numbers before any parameter changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from coexec.base.errors import NonFiniteLoss
from coexec.core.events import Trace
from coexec.core.types import Array
from coexec.steps.diagnosis import explain
from coexec.steps.resident import Compiled


@dataclass(frozen=True)
class Outcome:
    """The loss of a batch, and whether its gradients were too large for float16."""

    loss: float
    overflowed: bool = False


class _Overflow(Exception):
    """Leaves a program at its gate: gradients are not finite, and the loss is."""

    def __init__(self, loss: float) -> None:
        super().__init__(loss)
        self.loss = loss


def run_gated(
    compiled: Compiled,
    feeds: Mapping[str, Array],
    step: int,
    passed: Callable[[], None],
    trace: Trace | None,
) -> Outcome:
    """Run a graph with a loss; its gate keeps bad numbers from reaching the parameters.

    ``passed`` is called when the numbers are good, before parameters change. With early updates
    only the loss is known by then: sums of gradients that overflowed are for the caller to clear.

    Raises:
        NonFiniteLoss: the loss is NaN or infinite; parameters are as before ``step``.
    """
    graph = compiled.graph

    def gate(host: Mapping[str, Array]) -> None:
        loss = float(host[graph.loss])
        if not np.isfinite(loss):
            raise NonFiniteLoss(_explain(compiled, feeds, loss, step))
        if graph.magnitude in graph.gate and not np.isfinite(host[graph.magnitude]):
            raise _Overflow(loss)
        passed()

    try:
        results = compiled.executor.run(feeds, (*graph.watched,), gate, trace)
    except _Overflow as overflow:
        return Outcome(overflow.loss, overflowed=True)
    overflowed = bool(graph.magnitude) and not np.isfinite(results[graph.magnitude])
    return Outcome(float(results[graph.loss]), overflowed)


def _explain(compiled: Compiled, feeds: Mapping[str, Array], loss: float, step: int) -> str:
    states = {n: compiled.executor.read_state(n) for n in compiled.executor.program.state}
    return explain(compiled.graph.model.graph, feeds, states, loss, step)
