"""Programs on several processors at once: same results as on one, whatever goes where."""

from __future__ import annotations

import random
import threading
from collections import Counter

import numpy as np
import pytest

from coexec.base.errors import ProcessorError
from coexec.core.events import COPY, LAUNCH, MAP, RUN, Event, Trace
from coexec.core.plan import Plan
from coexec.core.program import BOUNDARY, SCRATCH, Launch, Read, Wait, Write
from coexec.core.types import Array
from coexec.frontend import load
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.runtime.executor import Executor
from coexec.runtime.lanes import threads_last
from coexec.runtime.lower import lower
from coexec.runtime.lowering import Lowering
from coexec.runtime.mode import ExecutionMode
from tests.graphs import evaluate, parse
from tests.queues import Broken, OnCaller, executor, queues
from tests.random_graphs import random_model

GRAPHS = 300
SHARING, HERE, REUSING = 0.8, 0.3, 0.5
"""Of processors on common memory, and of those that follow others, in random graphs; of those that
can work on the thread of their caller; of programs that save memory."""


def test_random_graphs_with_random_plans_compute_what_one_processor_does() -> None:
    """Three rounds each: what the first leaves behind does not disturb the next.

    Some processors share memory, others do not: tensors stay where they are, or are copied. Some
    programs write again where others have read, in rooms or in arenas.
    """
    on = queues("one", "two", "three")
    divided, sharing, copying, lent = 0, 0, 0, 0
    for seed in range(GRAPHS):
        dice = random.Random(seed)
        model = random_model(dice)
        plan = {str(node.name): dice.choice([*on]) for node in model.graph}
        for each in on.values():
            each.host_memory = dice.random() < SHARING
            each.chained = dice.random() < SHARING
            each.here = OnCaller(each) if dice.random() < HERE else None
            each.sees = dice.random() < SHARING
        runs = executor(model, plan, on, reuses=dice.random() < REUSING)
        divided += len(runs.program.processors) > 1
        boundary = [spec for spec in runs.program.buffers if spec.role == BOUNDARY]
        sharing += any(spec.shares for spec in boundary)
        copying += any(not spec.shares for spec in boundary)
        arenas = {spec.name for spec in runs.program.buffers if spec.role == SCRATCH}
        lent += any(spec.shares in arenas for spec in boundary)
        for round_number in range(3):
            rng = np.random.default_rng([seed, round_number])
            feeds = {n: rng.standard_normal(5).astype(np.float32) for n in ("a", "b")}
            feeds = {str(v.name): feeds[str(v.name)] for v in model.graph.inputs}
            expected = evaluate(model, feeds)
            actual = runs.run(feeds)
            assert actual.keys() == expected.keys()
            for name, array in expected.items():
                np.testing.assert_array_equal(actual[name], array, err_msg=f"seed {seed}")
    assert divided > 0.9 * GRAPHS
    assert sharing > 0.5 * GRAPHS
    assert copying > 0.5 * GRAPHS
    assert lent > 0.02 * GRAPHS


CHAIN = parse(
    "g (float[5] a) => (float[5] y) { [first] t = Neg(a) [second] u = Exp(t) [third] y = Neg(u) }"
)
CHAINED = {"first": "one", "second": "two", "third": "one"}


def test_a_tensor_in_common_memory_is_mapped_and_never_copied() -> None:
    runs = executor(load(CHAIN, {}), CHAINED, queues("one", "two"))
    shared = {spec.name: spec.shares for spec in runs.program.buffers if spec.shares}
    assert shared == {"t@two": "t@one", "u@one": "u@two"}
    assert runs.program.planned_bytes == 4 * 20  # a, t, u, y
    trace = Trace()
    runs.run({"a": np.ones(5, np.float32)}, trace=trace)
    copies = Counter((e.kind, e.bytes) for e in trace.leaves() if e.kind in (COPY, MAP))
    assert copies == {(COPY, 20): 2, (MAP, 0): 4}  # the input and the output; t and u


def test_results_in_common_memory_do_not_change_in_the_next_run() -> None:
    text = "g (float[5] a) => (float[5] t, float[5] y) { [first] t = Neg(a) [second] y = Exp(t) }"
    runs = executor(load(parse(text), {}), {"first": "one", "second": "two"}, queues("one", "two"))
    before = runs.run({"a": np.ones(5, np.float32)})
    runs.run({"a": np.zeros(5, np.float32)})
    np.testing.assert_array_equal(before["t"], -np.ones(5, np.float32))


def test_a_run_that_nobody_waits_for_ends_before_the_next_where_memory_is_common() -> None:
    on = queues("one", "two")
    runs = executor(load(CHAIN, {}), CHAINED, on)
    assert runs.run({"a": np.ones(5, np.float32)}, fetch=[]) == {}
    assert all(done.done() for each in on.values() for done in each.handed_over)


def test_a_program_made_for_common_memory_copies_where_there_is_none() -> None:
    on = queues("one", "two")
    program = lower(load(CHAIN, {}).graph, Lowering(Plan(CHAINED), on))
    on["two"].host_memory = False
    x = np.linspace(-1, 1, 5, dtype=np.float32)
    trace = Trace()
    y = Executor(program, on).run({"a": x}, trace=trace)["y"]
    np.testing.assert_array_equal(y, -np.exp(-x))
    assert not [event for event in trace.leaves() if event.kind == MAP]


def test_nodes_of_one_processor_stay_together_where_nobody_waits() -> None:
    """Two chains side by side, node by node: a region each, and one for what joins them."""
    text = (
        "g (float[5] a) => (float[5] y) { [l0] l0 = Neg(a) [r0] r0 = Relu(a) [l1] l1 = Exp(l0)"
        " [r1] r1 = Exp(r0) [l2] l2 = Neg(l1) [r2] r2 = Neg(r1) [y] y = Add(l2, r2) }"
    )
    plan = {n: "one" if n.startswith("l") else "two" for n in ("l0", "r0", "l1", "r1", "l2", "r2")}
    runs = executor(load(parse(text), {}), {**plan, "y": "one"}, queues("one", "two"))
    assert [len(e.region.nodes) for e in runs.program.executables] == [3, 3, 1]  # type: ignore[attr-defined]


FORK = parse(
    "g (float[5] a) => (float[5] y) { [left] l = Neg(a) [right] r = Relu(a) [join] y = Add(l, r) }"
)
FORKED = {"left": "one", "right": "two", "join": "one"}


def test_two_processors_work_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each branch waits for the other to have begun: a serial run would never end."""
    both = threading.Barrier(2, timeout=30)
    run = ReferenceProcessor._run

    def meet(self: ReferenceProcessor, node: object, values: dict[str, Array]) -> Event:
        if node.call.name in ("left", "right"):  # type: ignore[attr-defined]
            both.wait()
        return run(self, node, values)  # type: ignore[arg-type]

    monkeypatch.setattr(ReferenceProcessor, "_run", meet)
    x = np.linspace(-1, 1, 5, dtype=np.float32)
    results = executor(load(FORK, {}), FORKED, queues("one", "two")).run({"a": x})
    np.testing.assert_array_equal(results["y"], np.maximum(x, 0) - x)


def test_each_processor_has_a_thread_and_the_first_has_the_callers() -> None:
    on = queues("one", "two")
    on["two"].chained = False
    executor(load(FORK, {}), FORKED, on).run({"a": np.zeros(5, np.float32)})
    (first,), (second,) = on["one"].submitted_by, on["two"].submitted_by
    assert first == threading.current_thread().name
    assert second.startswith("coexec two")


def test_processors_that_follow_each_other_are_all_served_by_the_caller() -> None:
    on = queues("one", "two")
    executor(load(FORK, {}), FORKED, on).run({"a": np.zeros(5, np.float32)})
    assert on["one"].submitted_by == on["two"].submitted_by == {threading.current_thread().name}


def test_one_of_several_tensors_tells_that_those_before_it_are_there() -> None:
    text = (
        "g (float[5] a) => (float[5] y, float[5] z) { [t] t = Neg(a) [u] u = Exp(t) "
        "[y] y = Add(t, u) [z] z = Sub(u, t) }"
    )
    on = queues("one", "two")
    plan = {"t": "one", "u": "one", "y": "two", "z": "two"}
    runs = executor(load(parse(text), {}), plan, on)
    x = np.linspace(-1, 1, 5, dtype=np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(runs.run({"a": x})["z"], np.exp(-x) + x)
    assert on["two"].followed == 2  # once a run: t and u leave one region together


def test_a_failure_in_any_lane_is_raised_and_stops_the_others() -> None:
    for broken in ("one", "two"):
        on = queues("one", "two")
        on[broken] = Broken(broken)
        runs = executor(load(FORK, {}), FORKED, on)
        with pytest.raises(ProcessorError, match=f"{broken} is broken"):
            runs.run({"a": np.zeros(5, np.float32)})


def test_outputs_that_nobody_wants_are_not_read() -> None:
    model = load(
        parse("g (float[5] a) => (float[5] y, float[5] z) { [y] y = Neg(a) [z] z = Relu(y) }"), {}
    )
    runs = executor(model, {"y": "one", "z": "two"}, queues("one", "two"))
    assert [*runs.run({"a": np.ones(5, np.float32)}, fetch=["z"])] == ["z"]
    assert runs.run({"a": np.ones(5, np.float32)}, fetch=[]) == {}


def test_a_trace_has_every_launch_on_its_own_track_inside_the_run() -> None:
    runs = executor(load(FORK, {}), FORKED, queues("one", "two"))
    trace = Trace()
    runs.run({"a": np.zeros(5, np.float32)}, trace=trace)
    launched = [(leaf.track, leaf.name) for leaf in trace.leaves() if leaf.kind == LAUNCH]
    assert sorted(launched) == [("one", "join"), ("one", "left"), ("two", "right")]
    (run,) = [event for event in trace.host() if event.kind == RUN]
    assert all(run.start_ns <= e.start_ns <= e.end_ns <= run.end_ns for e in trace.leaves())


def test_waiting_after_every_operator_is_still_one_after_the_other() -> None:
    on = queues("one", "two")
    runs = executor(load(FORK, {}), FORKED, on, mode=ExecutionMode(synchronise="operator"))
    runs.run({"a": np.zeros(5, np.float32)})
    assert on["two"].submitted_by == {threading.current_thread().name}


def test_threads_are_woken_behind_those_who_need_nothing_of_them() -> None:
    first = ("ort", (Write("x", "x@ort"), Launch(0, ("x@ort", "y@ort"))))
    sending = ("ort", (Launch(0, ("x@ort", "y@ort")), Read("y#staged", "y@ort")))
    apart = ("gpu", (Write("x", "x@gpu"), Launch(1, ("x@gpu", "z@gpu"))))
    needing = ("gpu", (Write("y#staged", "y@gpu"), Launch(1, ("y@gpu", "z@gpu"))))
    gate = ("", (Wait(gate=True),))
    assert threads_last([first, apart], {"ort"}) == [apart, first]
    assert threads_last([sending, needing], {"ort"}) == [sending, needing]
    assert threads_last([first, gate, apart], {"ort"}) == [first, gate, apart]
    assert threads_last([first, apart], set()) == [first, apart]
