"""How ONNX Runtime waits for a number in memory, and raises its own."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from coexec.base.errors import ProcessorError
from coexec.base.pages import page_aligned
from coexec.core.flag import WRAP, Flag, Raised, flag_page, number_in, signed
from coexec.processors.find import open_processor
from coexec.processors.ort import flags as module
from coexec.processors.ort.flags import STORES_IN_ORDER, OrtFlags
from coexec.processors.ort.processor import OrtProcessor

HERE, THERE = frozenset({"cpu:0"}), frozenset({"cpu:1"})


def test_it_goes_on_once_the_number_is_there() -> None:
    """Also past the largest number of 32 bits; a number that has come is not waited for."""
    flags, other = OrtFlags(HERE), Flag(flag_page(), "other", THERE)
    for number in (1, 7, WRAP // 2 - 1, WRAP // 2, WRAP // 2 + 3):
        passed = threading.Event()

        def wait(number: int = number, passed: threading.Event = passed) -> None:
            flags.wait_for(Raised(other, number))
            passed.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not passed.is_set()
        number_in(other.memory)[...] = signed(number)
        thread.join()
        assert passed.is_set()
        flags.wait_for(Raised(other, number - 1))


def test_what_never_comes_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1000)
    flags, other = OrtFlags(HERE), Flag(flag_page(), "other", THERE)
    with pytest.raises(ProcessorError, match="other did not come to an end"):
        flags.wait_for(Raised(other, 1))


def test_it_does_not_wait_on_the_core_that_has_to_raise_the_number() -> None:
    flags = OrtFlags(HERE)
    assert flags.can_wait_for(Raised(Flag(flag_page(), "other", THERE), 1))
    assert not flags.can_wait_for(Raised(Flag(flag_page(), "other", HERE | THERE), 1))


@pytest.mark.skipif(not STORES_IN_ORDER, reason="processors tell each other by events here")
def test_a_failed_job_raises_the_flag_too() -> None:
    """Who follows it would wait for a minute otherwise; the failure is told to who waits for it."""
    processor = open_processor("ort:cpu?threads=1")
    assert isinstance(processor, OrtProcessor)
    assert processor.flags is not None
    memory = page_aligned(64)
    buffer = processor.adopt(memory)
    processor.worker.call(lambda: None)
    # Others may have used it before.
    before = int(number_in(processor.flags.own.memory))

    def fail() -> None:
        raise ProcessorError("no good")

    failed = processor.worker.hand_over(fail)
    told = processor.copy(memory, buffer, ())
    with pytest.raises(ProcessorError, match="no good"):
        processor.wait(told)
    assert failed.future.done()
    assert told.raised == Raised(processor.flags.own, before + 1)
    # Whoever waited may be told before the flag is raised.
    processor.worker.call(lambda: None)
    assert int(number_in(processor.flags.own.memory)) == before + 1
    np.testing.assert_equal(processor.wait(processor.copy(memory, buffer, ())).bytes, 0)
