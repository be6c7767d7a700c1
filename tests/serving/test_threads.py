"""Threads of processors run on the cores of those."""

from __future__ import annotations

import os

import pytest

from coexec.base.cores import physical_cores, pinned
from coexec.core.processor import ProcessorSpec
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.serving.threads import own_cores, thread_for

CORES = physical_cores()
several = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores to tell them apart")


class Somewhere(ReferenceProcessor):
    """A processor that says what it occupies."""

    def __init__(self, *resources: str) -> None:
        super().__init__()
        self.resources = resources

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec("somewhere", "cpu", "test", resources=self.resources)


@several
def test_a_part_of_the_cpu_has_its_own_cores() -> None:
    assert own_cores(Somewhere("cpu:1")) == (CORES[1],)


@several
def test_threads_for_all_cores_and_for_devices_run_anywhere() -> None:
    everything = tuple(f"cpu:{number}" for number in range(len(CORES)))
    for resources in (everything, ("cpu",), ("gpu:0",), ("cpu:0", "gpu:0"), ()):
        assert own_cores(Somewhere(*resources)) == ()


@several
def test_work_runs_on_the_cores_and_the_caller_is_left_as_it_was() -> None:
    before = os.sched_getaffinity(0)
    last = CORES[-1:]
    with thread_for("last", last) as tied, thread_for("free", ()) as free:
        assert tied.submit(os.sched_getaffinity, 0).result() == set(last[0])
        assert free.submit(os.sched_getaffinity, 0).result() == before
    with pinned(last):
        assert os.sched_getaffinity(0) == set(last[0])
    with pinned(()):
        assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before
