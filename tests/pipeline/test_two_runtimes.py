"""ONNX Runtime and an OpenCL runtime in turns on common memory: every result, and no copy."""

from __future__ import annotations

import numpy as np
import pytest

import coexec
from coexec.core.events import COPY, HOST, Trace
from coexec.core.plan import Plan
from tests.graphs import evaluate, parse
from tests.runtimes import DRIVERS

pytest.importorskip("onnxruntime")
TEXT = (
    "g (float[257] x) => (float[257] y) { [a] a = Neg(x) [b] b = Relu(x) [c] c = Sub(a, b)"
    " [d] d = Sub(b, a) [e] e = Sub(c, d) [f] f = Sub(d, c) [y] y = Max(e, f) }"
)
ROUNDS = 20


@pytest.mark.parametrize("runtime", DRIVERS)
def test_they_follow_each_other_and_tensors_stay_where_they_are(runtime: str) -> None:
    """Each node on one reads what the other has just made, in both directions at once."""
    ort = "ort:cpu?threads=1"
    plan = Plan({node: ort if node in "acey" else runtime for node in "abcdefy"})
    model = coexec.load(parse(TEXT))
    session = coexec.compile(model, [ort, runtime], plan=plan)
    rng = np.random.default_rng(0)
    x = np.zeros(257, np.float32)
    for _ in range(ROUNDS):
        x[:] = rng.standard_normal(257)
        np.testing.assert_array_equal(session.run({"x": x})["y"], evaluate(model, {"x": x})["y"])
    trace = Trace()
    session.run({"x": x}, trace=trace)
    copies = [event for event in (*trace.leaves(), *trace.host()) if event.kind == COPY]
    # The host copies the input into memory that both read, and one of them the output.
    assert sorted(event.track for event in copies) == sorted([HOST, ort])
