"""What an exchange between two processors takes the host, measured through the executor.

A chain of tiny nodes that change places at every step, beside the same chain on each processor
alone: all that the chain takes longer is exchanges. They are Python and driver calls of one thread,
for which it has to get a core from processors that compute or wait for each other on it, so that
nothing but a run of the real thing tells how long they take.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from coexec.base.errors import CoexecError
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.cost.distribution import Distribution
from coexec.cost.measuring import LEAST_VISITS
from coexec.cost.model import Observer, ProcessorCosts
from coexec.cost.store import Entry
from coexec.frontend import load
from coexec.session import Session

log = logging.getLogger(__name__)
EXCHANGES = 12
"""Of a chain."""
ROUNDS, WARM_UP = 25, 3
ELEMENTS = 64


def measure_exchanges(
    processors: Mapping[str, Processor],
    costs: Sequence[ProcessorCosts],
    seconds: float,
    observe: Observer,
    refresh: bool = False,
) -> None:
    """Measure what is not known of exchanges between those that follow each other by themselves.

    A pair takes about a second; none is begun after ``seconds``. Called again, it measures again
    what few visits know or what may have been disturbed; the middle one counts.
    """
    began = time.perf_counter()
    for one, other in itertools.combinations(costs, 2):
        chained = one.processor.chained and other.processor.chained
        known = None if refresh else one.exchange(other)
        sure = known is not None and known.visits >= LEAST_VISITS and not known.unsure
        passed = time.perf_counter() - began
        if passed >= seconds or sure or not chained or one.shares_silicon_with(other):
            continue
        observe(passed, f"exchanges of {one.name} and {other.name}")
        try:
            found = Entry(exchange_time(processors[one.name], processors[other.name]))
        except CoexecError as error:
            log.warning("exchanges of %s and %s not measured: %s", one.name, other.name, error)
            continue
        best = found if known is None else known.or_usual(found)
        one.learn_exchange(other, best)
        other.learn_exchange(one, best)
    for each in costs:
        each.store.save()


def exchange_time(one: Processor, other: Processor) -> Distribution:
    """Of an exchange in either direction, its launch not counted.

    Raises:
        CoexecError: the chain does not compile or run.
    """
    names = one.describe().name, other.describe().name
    processors = dict(zip(names, (one, other), strict=True))
    model = _chain(EXCHANGES + 1)
    places = [(names[0], names[1]), (names[0], names[0]), (names[1], names[1])]
    sessions = [Session(model, processors, follow=_plan(*each)) for each in places]
    feeds = {"x": np.ones(ELEMENTS, np.float32)}
    rounds = [[_run_us(session, feeds) for session in sessions] for _ in range(WARM_UP + ROUNDS)]
    found = [
        max(both - (first + second) / 2, 0.0) / EXCHANGES
        for both, first, second in rounds[WARM_UP:]
    ]
    return Distribution.of(found)


def _chain(count: int) -> ir.Model:
    """Nodes of almost no work, one after another."""
    nodes = [
        helper.make_node("Abs" if i % 2 else "Neg", [f"t{i}" if i else "x"], [f"t{i + 1}"], f"n{i}")
        for i in range(count)
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [ELEMENTS])
        for name in ("x", f"t{count}")
    ]
    graph = helper.make_graph(nodes, "exchanges", ends[:1], ends[1:])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


def _plan(even: str, odd: str) -> Plan:
    return Plan({f"n{i}": odd if i % 2 else even for i in range(EXCHANGES + 1)})


def _run_us(session: Session, feeds: Mapping[str, np.ndarray]) -> float:
    """A run behind another one, which brings back what others drove from the caches."""
    session.run(feeds)
    start = time.perf_counter()
    session.run(feeds)
    return (time.perf_counter() - start) * 1e6
