"""Programs of a device in memory."""

from __future__ import annotations

import gc
import weakref

import pyopencl as cl
import pytest

from coexec.processors.opencl import programs
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.programs import ProgramCache
from tests.runtimes import THOROUGH, open_opencl

SOURCES = [
    ProgramSource("test", f"__kernel void kept(__global int *x) {{ *x = {number}; }}")
    for number in range(4)
]


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> ProgramCache:
    """Of a device, with room for two programs."""
    monkeypatch.setattr(programs, "KEPT", 2)
    whole = open_opencl(THOROUGH[0]).programs
    return ProgramCache(whole.context, whole.device, apart=False)


def made(cache: ProgramCache) -> int:
    """Programs that were not in memory when they were asked for."""
    return cache.compiled + cache.loaded


def test_programs_asked_for_longest_ago_are_let_go(cache: ProgramCache) -> None:
    first = weakref.ref(cache.build((SOURCES[0],))[0])
    cache.build((SOURCES[1],))
    cache.build((SOURCES[0],))  # which is the latest one then
    cache.build((SOURCES[2],))
    assert made(cache) == 3
    cache.build((SOURCES[0], SOURCES[2]))
    assert made(cache) == 3
    cache.build((SOURCES[1], SOURCES[3]))
    gc.collect()
    assert first() is None
    cache.build((SOURCES[0],))
    assert made(cache) == 6


def test_all_programs_of_a_build_are_kept(cache: ProgramCache) -> None:
    built = cache.build((*SOURCES, SOURCES[0]))
    assert built[0] is built[-1]
    assert cache.build(tuple(SOURCES)) == built[:-1]
    assert made(cache) == len(SOURCES)
    assert all(isinstance(program, cl.Program) for program in built)
