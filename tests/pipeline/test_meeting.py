"""Two drivers whose kernels wait for each other: what is trained, and that a failure ends it.

In processes of their own: a driver has its threads on one core only if it began so.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coexec.base.cores import physical_cores
from tests.runtimes import DRIVERS

SECONDS = 90
SPECS = ["opencl:pocl?cores=1&first=0", "opencl:intel?cores=1"]
START = """
import sys, time
from pathlib import Path
import numpy as np
import pytest
import coexec
from coexec import zoo
from coexec.api import open_all
from coexec.core.program import MEETING
from coexec.planning.planner import PlanOptions, plan_training
from coexec.runtime.lane_run import LaneRun
from tests.known_costs import know, numpy_last

names = sys.argv[2:]
processors = open_all(names)
rng = np.random.default_rng(0)
model = coexec.load(zoo.build("sensor_cnn", batch=8))
x = rng.standard_normal([int(d) for d in model.graph.inputs[0].shape]).astype(np.float32)
labels = rng.integers(0, 4, 8)

know(pytest.MonkeyPatch(), Path(sys.argv[1]), numpy_last)

def trainer(there, **how):
    loss, optimizer = coexec.losses.SoftmaxCrossEntropy(), coexec.optim.SGD(0.05, momentum=0.9)
    return coexec.Trainer(model, loss, optimizer, list(there), **how)

def both():
    whole = trainer(processors)
    how = PlanOptions("batch_parallel", 0.0)
    made = whole.with_plan(plan_training(whole, {"x": x}, how).plan)
    first = made.step({"x": x}, labels)
    programs = [each.executor.program for each in made._programs._compiled.values()]
    assert any(spec.role == MEETING for each in programs for spec in each.buffers)
    return made, [first]
"""
AGREES = """
alone = trainer({name: processors[name] for name in names[:1]})
expected = [alone.step({"x": x}, labels) for _ in range(8)]
found = []
for _ in range(2):
    made, losses = both()
    losses += [made.step({"x": x}, labels) for _ in range(7)]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    found.append(made.state())
    for name, array in alone.state().items():
        np.testing.assert_allclose(found[-1][name], array, rtol=2e-3, atol=2e-4, err_msg=name)
assert all((found[0][name] == found[1][name]).all() for name in found[0])
"""
BUDGET = """
def placed(**how):
    whole = trainer(processors, **how)
    return whole.with_plan(plan_training(whole, {"x": x}, PlanOptions("batch_parallel", 0.0)).plan)

plain = placed()
plain.step({"x": x}, labels)
small = placed(memory=int(0.9 * plain.peak_bytes))
alone = trainer({name: processors[name] for name in names[:1]})
expected = [alone.step({"x": x}, labels) for _ in range(6)]
np.testing.assert_allclose([small.step({"x": x}, labels) for _ in range(6)], expected, rtol=1e-4)
assert small.memory_plan.setting.recompute
assert small.peak_bytes <= 0.9 * plain.peak_bytes
assert any(spec.role == MEETING for spec in small.program.buffers)
for name, array in alone.state().items():
    np.testing.assert_allclose(small.state()[name], array, rtol=2e-3, atol=2e-4, err_msg=name)
"""
FAILS = """
both()
last = processors[names[1]]
submit, left = last.submit, 1

def broken(*arguments):
    global left
    left -= 1
    if left < 0:
        raise RuntimeError("pulled out")
    return submit(*arguments)

last.submit, last.again = broken, lambda *_: None
start = time.perf_counter()
try:
    both()
except RuntimeError as error:
    assert "pulled out" in str(error)
else:
    raise AssertionError("nothing failed")
assert time.perf_counter() - start < 40
"""
INTERRUPTED = """
made, _ = both()
turn, left = LaneRun.turn, 0

def interrupted(self, steps):
    global left
    turn(self, steps)
    left -= 1
    if left == 0:
        raise KeyboardInterrupt

kept = made.state()
LaneRun.turn, turns = interrupted, 0
while left <= 0:
    turns += 1
    made.load_state(kept, 0)
    left, start = turns, time.perf_counter()
    try:
        made.step({"x": x}, labels)
    except KeyboardInterrupt:
        assert time.perf_counter() - start < 40, f"after {turns} turns"
assert turns > 3
"""


@pytest.mark.parametrize(
    "rest",
    [AGREES, BUDGET, FAILS, INTERRUPTED],
    ids=["agrees", "budget", "fails", "interrupted"],
)
def test_two_drivers_meet_in_kernels(rest: str, tmp_path: Path) -> None:
    """Twice the same to the last bit, whoever comes first; nobody is waited for in vain."""
    if len(DRIVERS) < 2 or len(physical_cores()) < 2:
        pytest.skip("no two drivers with a core each")
    command = [sys.executable, "-W", "ignore", "-c", START + rest, str(tmp_path), *SPECS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
