"""Processors that follow each other by a number in common memory, without the host."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from coexec.base.cores import physical_cores
from coexec.base.errors import ProcessorError
from coexec.base.pages import page_aligned
from coexec.core.flag import WRAP, Flag, Raised
from coexec.core.types import OpCall, Region, TensorType
from coexec.processors.opencl import flags as module
from coexec.processors.opencl.flags import Flags
from coexec.processors.opencl.sources import kernel_source
from coexec.processors.ort.flags import STORES_IN_ORDER
from coexec.runtime.script import BEYOND
from tests.runtimes import DRIVERS, THOROUGH, open_opencl

SECONDS = 120
PROGRAM = """
import sys
import numpy as np
import coexec
from coexec.api import open_all
from coexec.core.events import Trace
from coexec.core.plan import Plan
from coexec.processors.opencl.flags import Flags
from coexec.processors.ort.flags import OrtFlags
from coexec.runtime.script import Script
from tests.graphs import evaluate, parse

def count(kind):
    wait_for = kind.wait_for
    kind.wait_for = lambda self, moment: (waited.append(moment), wait_for(self, moment))

def again(script, lanes):
    repeated.append(script)
    hand_over(script, lanes)

waited, repeated, hand_over = [], [], Script.run
Script.run = again
count(Flags)
count(OrtFlags)
specs = sys.argv[1:]
text = ("g (float[65537] x) => (float[65537] y) { [a] a = Neg(x) [b] b = Relu(a) [c] c = Sub(a, b)"
        " [d] d = Sub(b, c) [y] y = Max(c, d) }")
names = list(open_all(specs))
plan = Plan({node: names[node in "bd"] for node in "abcdy"})
model = coexec.load(parse(text))
session = coexec.compile(model, specs, plan=plan)
rng = np.random.default_rng(0)
for number in range(30):
    trace = Trace() if number % 10 == 9 else None
    x = rng.standard_normal(65537).astype(np.float32)
    got = session.run({"x": x}, trace=trace)["y"]
    np.testing.assert_array_equal(got, evaluate(model, {"x": x})["y"])
print(len(waited), len(repeated))
"""


CONSTANTS = """
import sys
import numpy as np
import coexec
from coexec.api import open_all
from coexec.core.plan import Plan
from tests.graphs import evaluate, parse

text = ("g (float[300, 300] x) => (float[300, 300] y) <float half = {0.5}, int64[2] n = {300, 300}>"
        " { [w] w = Expand(half, n) [a] a = Neg(x) [b] b = MatMul(a, w) [c] c = Sub(a, b)"
        " [d] d = MatMul(c, w) [y] y = Max(c, d) }")
names = list(open_all(sys.argv[1:]))
model = coexec.load(parse(text))
plan = Plan({node: names[node in "bd"] for node in "abcdy"})
session = coexec.compile(model, sys.argv[1:], plan=plan)
for number in range(4):
    x = np.full((300, 300), number, np.float32)
    np.testing.assert_allclose(session.run({"x": x})["y"], evaluate(model, {"x": x})["y"], 1e-5)
"""
ORT, POCL = "ort:cpu?threads=1&cores=0", "opencl:pocl?cores=1&first=0"


@pytest.mark.parametrize(
    ("first", "option", "waits"),
    [(POCL, "", True), (POCL, "&follow=event", False), (ORT, "", STORES_IN_ORDER)],
)
def test_two_drivers_follow_each_other_by_flags_or_events(
    first: str, option: str, waits: bool
) -> None:
    """From the third run on by calls alone, where by flags; not those with a trace.

    In a process of its own: a driver has its threads on one core only if it began so.
    """
    if len(DRIVERS) < 2 or len(physical_cores()) < 2:
        pytest.skip("no two drivers with a core each")
    first += option if first == POCL else ""
    specs = [first, f"opencl:intel?cores=1{option}"]
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *specs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    waited, repeated = map(int, done.stdout.split())
    assert (waited >= 4) == waits
    assert repeated == (25 if waits else 0)


def test_weights_move_into_large_pages_while_nobody_waits_for_the_caller() -> None:
    """In the second run, a device that waited for the caller did not map them, for a minute."""
    if "opencl:intel" not in DRIVERS or len(physical_cores()) < 2:
        pytest.skip("Intel's runtime and ONNX Runtime with a core each")
    command = [sys.executable, "-W", "ignore", "-c", CONSTANTS, ORT, "opencl:intel?cores=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr


def own_flags() -> Flags:
    """The flags of a processor that computes on memory of the host."""
    found = open_opencl(THOROUGH[0])._common._flags
    if found is None:
        pytest.skip("a device with memory of its own")
    return found


def new_flags() -> Flags:
    """Flags on the same queue that nobody else counts by."""
    return Flags(own_flags().queue, open_opencl(THOROUGH[0]).programs, "driver", frozenset())


def test_numbers_may_wrap_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that waited for a number that has come ends at once, past the largest one, too."""
    flags = new_flags()
    monkeypatch.setattr(flags, "_count", WRAP // 2 - 2)
    for _ in range(4):
        _, moment = flags.raised()
        flags.wait_for(moment)
        flags.queue.finish()
    assert flags._count > WRAP // 2
    assert int(flags.own.memory.view(np.int32)[0]) < 0
    flags.check()


def test_what_never_comes_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    source = kernel_source("flags")
    monkeypatch.setattr(module, "kernel_source", lambda name: f"#define PATIENCE 1000\n{source}")
    flags, other = new_flags(), new_flags()
    flags.wait_for(Raised(other.own, 1))
    flags.queue.finish()
    with pytest.raises(ProcessorError, match="follow=event"):
        flags.check()
    flags.check()  # said once


def test_one_kernel_raises_a_flag_and_waits_for_another() -> None:
    flags = own_flags()
    mine, other = flags.another(), flags.another()
    other.memory.view(np.int32)[0] = 7
    buffers = flags.buffer(mine), flags.buffer(other)
    flags.meeter(*buffers, 3, 7)()
    flags.queue.finish()
    assert int(mine.memory.view(np.int32)[0]) == 3
    flags.check()


def test_a_flag_that_is_further_is_not_taken_back() -> None:
    """Where a run failed, flags stand beyond all numbers while kernels come that raise them."""
    flags = own_flags()
    mine = flags.another()
    number, buffer = mine.memory.view(np.int32), flags.buffer(mine)
    for before, after in ((BEYOND, BEYOND), (1, 2), (-5, 2)):
        number[0] = before
        flags.raiser(buffer, 2)()
        flags.queue.finish()
        assert number[0] == after


def test_nobody_waits_with_what_the_other_one_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on its cores, nor in its driver, nor in one that has other processors, too."""
    flags = own_flags()
    memory, mine = page_aligned(4096), flags.own
    here = next(iter(mine.silicon), "cpu:0")
    monkeypatch.setattr(module, "_processors", {mine.driver: 1, "other": 1})
    assert flags.can_wait_for(Raised(Flag(memory, "not counted", frozenset({"gpu"})), 1))
    assert flags.can_wait_for(Raised(Flag(memory, "other", frozenset({"gpu"})), 1))
    assert not flags.can_wait_for(Raised(Flag(memory, "other", frozenset({here})), 1))
    assert not flags.can_wait_for(Raised(Flag(memory, mine.driver, frozenset({"gpu"})), 1))
    monkeypatch.setattr(module, "_processors", {mine.driver: 1, "other": 2})
    assert not flags.can_wait_for(Raised(Flag(memory, "other", frozenset({"gpu"})), 1))


def test_what_comes_in_raises_no_flag() -> None:
    """Only results are waited for; a kernel for each operand would be for nobody."""
    processor, flags = open_opencl(THOROUGH[0]), own_flags()
    memory = page_aligned(64)
    buffer = processor.adopt(memory)
    processor._common.went_on()
    before = flags._count
    arrived = [processor.copy(buffer, memory, ()) for _ in range(2)]
    assert flags._count == before
    assert all(ticket.raised is None for ticket in arrived)
    processor.copy(memory, buffer, ())
    assert flags._count == before + 1
    for ticket in arrived:
        processor.wait(ticket)


def test_a_marked_end_is_told_once_until_work_follows() -> None:
    processor = open_opencl(THOROUGH[0])
    own_flags()
    kind = TensorType((64,), np.dtype(np.float32))
    call = OpCall("Neg", (kind,), {}, (kind,), version=13)
    executable = processor.compile(Region.alone(call))
    memory = [page_aligned(kind.nbytes) for _ in range(2)]
    memory[0].view(np.float32)[:] = 2
    buffers = [processor.adopt(each) for each in memory]
    tickets = [processor.copy(memory[1], buffers[1], ()) for _ in range(2)]
    assert tickets[0].raised == tickets[1].raised
    processor.submit(executable, buffers, ())
    later = processor.copy(memory[1], buffers[1], ())
    assert later.raised is not None
    assert later.raised != tickets[1].raised
    processor.wait(later)
    np.testing.assert_array_equal(memory[1].view(np.float32), -2)
