"""ONNX Runtime on the thread of its caller: order, cores, flags, failures."""

from __future__ import annotations

import itertools
import os
import threading

import numpy as np
import pytest

from coexec.base.cores import physical_cores
from coexec.base.errors import ProcessorError
from coexec.base.pages import page_aligned
from coexec.core.events import COPY, LAUNCH, MAP
from coexec.core.flag import number_in
from coexec.core.types import OpCall, Region, TensorType
from coexec.processors.find import open_processor
from coexec.processors.ort.flags import STORES_IN_ORDER
from coexec.processors.ort.here import OrtHere
from coexec.processors.ort.processor import OrtProcessor

F32 = np.dtype(np.float32)
ROW = TensorType((4,), F32)


def opened(spec: str = "ort:cpu?threads=1") -> tuple[OrtProcessor, OrtHere]:
    processor = open_processor(spec)
    assert isinstance(processor, OrtProcessor)
    assert isinstance(processor.here, OrtHere)
    return processor, processor.here


def test_work_is_done_in_order_by_who_waits_for_it() -> None:
    processor, here = opened()
    executable = processor.compile(Region.alone(OpCall("Neg", (ROW,), {}, (ROW,), version=13)))
    x, y = here.alloc(ROW.nbytes), here.alloc(ROW.nbytes)
    found, later = np.zeros(4, F32), np.zeros(4, F32)
    with here.occupied():
        written = here.copy(x, np.full(4, 3, F32), ())
        launched = here.submit(executable, [x, y], ())
        read = here.copy(found, y, ())
        here.copy(later, y, ())
        assert not found.any()
        here.finish(read)
        assert found.tolist() == [-3] * 4
        assert not later.any()
        here.finish_all()
        assert later.tolist() == [-3] * 4
    events = [here.wait(ticket) for ticket in (written, launched, read)]
    assert [event.kind for event in events] == [COPY, LAUNCH, COPY]
    assert all(one.end_ns <= other.start_ns for one, other in itertools.pairwise(events))


def test_it_begins_behind_what_the_processors_own_thread_has_to_do() -> None:
    processor, here = opened()
    go = threading.Event()
    held = processor.worker.hand_over(lambda: go.wait(20))
    threading.Timer(0.05, go.set).start()
    with here.occupied():
        assert held.future.done()


@pytest.mark.skipif(not physical_cores(), reason="this system does not tie threads to cores")
def test_the_caller_has_the_processors_cores_meanwhile() -> None:
    cores = physical_cores()
    core = len(cores) - 1
    _, here = opened(f"ort:cpu?cores={core}")
    before = os.sched_getaffinity(0)
    with here.occupied():
        assert os.sched_getaffinity(0) == set(cores[core])
    assert os.sched_getaffinity(0) == before


def test_what_failed_is_told_and_what_is_behind_it_is_not_done() -> None:
    _, here = opened()

    def fail() -> None:
        raise ProcessorError("no good")

    memory = page_aligned(64)
    called: list[str] = []
    with here.occupied():
        here.come_after(fail)
        told = here.copy(memory, here.adopt(memory), ())
        told.then(lambda: called.append("told"))
        with pytest.raises(ProcessorError, match="no good"):
            here.finish_all()
        assert called == ["told"]
        assert here.newest is None
        with pytest.raises(ProcessorError, match="no good"):
            here.finish(told)
        again = here.copy(memory, here.adopt(memory), ())
        assert here.wait(again).kind == MAP


@pytest.mark.skipif(not STORES_IN_ORDER, reason="processors tell each other by events here")
def test_the_flag_is_raised_when_work_is_done_or_left() -> None:
    _, here = opened()
    memory = page_aligned(64)
    assert here.flags is not None
    number = number_in(here.flags.own.memory)
    with here.occupied():
        first, second = (here.copy(memory, here.adopt(memory), ()) for _ in range(2))
        assert first.raised is not None
        assert second.raised is not None
        assert second.raised.number == first.raised.number + 1 == int(number) + 2
        here.finish(first)
        assert int(number) == first.raised.number
    assert int(number) == second.raised.number
    with pytest.raises(ProcessorError, match="did not come to its end"):
        here.finish(second)
