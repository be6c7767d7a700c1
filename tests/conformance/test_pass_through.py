"""Nodes without effect take no kernel."""

from __future__ import annotations

import numpy as np
import pytest

import coexec
from coexec.core.events import Trace
from tests.graphs import parse
from tests.runtimes import THOROUGH

X = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
WITHIN = "g (float[3,40] x) => (float[3,40] y) { h = Abs(x) d = Dropout(h) y = Neg(d) }"
LAST = "g (float[3,40] x) => (float[3,40] y) { h = Abs(x) z = Neg(h) y = Dropout(z) }"
MASKED = (
    "g (float[3,40] x) => (float[3,40] y, bool[3,40] m) { h = Abs(x) z = Neg(h) y, m = Dropout(z) }"
)


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize(("text", "kernel"), [(WITHIN, False), (LAST, False), (MASKED, True)])
def test_a_dropout_outside_of_training_takes_no_kernel(
    runtime: str, text: str, kernel: bool
) -> None:
    """Unless its mask is wanted."""
    session = coexec.compile(coexec.load(parse(text)), [runtime])
    trace = Trace()
    results = session.run({"x": X}, trace=trace)
    np.testing.assert_array_equal(results["y"], -np.abs(X))
    assert results.get("m", np.True_).all()
    assert any("Dropout" in event.operator for event in trace.leaves()) == kernel
