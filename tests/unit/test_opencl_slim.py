"""Binaries without what only a compiler reads: taken by the driver, and the same kernels."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyopencl as cl
import pytest

from coexec.base.knobs import BUILD_APART, CACHE_DIR
from coexec.processors.opencl import programs
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.programs import ProgramCache
from coexec.processors.opencl.slim import CODE, IR, LARGE, is_full, slimmed
from tests.runtimes import RUNTIMES, open_opencl

TERMS = " ".join(f"v += sin(v * {n}.0f) * x[(i + {n}) % 8];" for n in range(1, 40))
SOURCES = tuple(
    ProgramSource(
        name,
        f"__kernel void {name}(__global float *x, __global float *y, float scale) "
        f"{{ size_t i = get_global_id(0); float v = scale; {TERMS} y[i] = v; }}",
    )
    for name in ("first", "second")
)


def elf(parts: dict[str, bytes]) -> bytes:
    """A file of these sections, as the runtime writes it."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in parts)
    bodies = [b"", *parts.values(), names]
    starts = [names.find(b"\0" + name.encode()) + 1 for name in parts]
    place = 64 + 64 * len(bodies)
    headers = b""
    for name_at, body in zip([0, *starts, 0], bodies, strict=True):
        headers += struct.pack("<2I4Q2I2Q", name_at, 0, 0, 0, place, len(body), 0, 0, 0, 0)
        place += len(body)
    counts = (64, 0, 0, 64, len(bodies), len(bodies) - 1)
    start = b"\x7fELF\x02\x01" + b"\0" * 10
    header = start + struct.pack("<2HI3QI6H", 0, 0, 1, 0, 0, 64, 0, *counts)
    return header + headers + b"".join(bodies)


def test_one_part_is_replaced_and_all_others_stay() -> None:
    full = elf({IR: b"i" * (LARGE + 1), CODE: b"code", ".ocl.meta": b"what kernels take"})
    nothing = elf({IR: b"little", CODE: b"other"})
    assert is_full(full)
    assert slimmed(full, nothing) == elf(
        {IR: b"little", CODE: b"code", ".ocl.meta": b"what kernels take"}
    )
    assert not is_full(slimmed(full, nothing))


@pytest.mark.parametrize(
    "binary",
    [
        b"",
        b"\x7fELF",
        b"\x7fELF\x02\x01" + b"\xff" * 90,
        elf({CODE: b"code"}),
        elf({IR: b"i" * LARGE, CODE: b"code"}),
        elf({IR: b"i" * (LARGE + 1), CODE: b""}),
    ],
    ids=["empty", "cut off", "damaged", "no such part", "a small one", "no code"],
)
def test_what_is_no_such_binary_or_small_stays(binary: bytes) -> None:
    assert not is_full(binary)


def test_a_binary_of_another_kind_is_not_made_smaller() -> None:
    with pytest.raises(ValueError, match=IR):
        slimmed(b"SPIR-V", elf({IR: b"little"}))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProgramCache:
    if "opencl:intel" not in RUNTIMES:
        pytest.skip("Intel's runtime is not installed")
    monkeypatch.setenv(CACHE_DIR.name, str(tmp_path))
    monkeypatch.setenv(BUILD_APART.name, "2")
    device = open_opencl("opencl:intel")
    return ProgramCache(device.context, device.device)


def result(cache: ProgramCache, program: cl.Program) -> np.ndarray:
    queue = cl.CommandQueue(cache.context)
    x, y = np.arange(8, dtype=np.float32), np.empty(8, np.float32)
    flags = cl.mem_flags
    source = cl.Buffer(cache.context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=x)
    target = cl.Buffer(cache.context, flags.WRITE_ONLY, y.nbytes)
    program.all_kernels()[0](queue, (8,), None, source, target, np.float32(0.5))
    cl.enqueue_copy(queue, y, target)
    return y


def test_what_another_process_compiles_is_small_and_computes_the_same(cache: ProgramCache) -> None:
    here = ProgramCache(cache.context, cache.device, apart=False)
    expected = [result(here, here._compile(source)) for source in SOURCES]
    built = cache.build(SOURCES)
    assert all(not is_full(cache._file(source).read_bytes()) for source in SOURCES)
    for program, values in zip(built, expected, strict=True):
        np.testing.assert_array_equal(result(cache, program), values)


def test_full_binaries_of_the_past_are_made_smaller(cache: ProgramCache) -> None:
    ProgramCache(cache.context, cache.device, apart=False).build(SOURCES)
    assert all(is_full(cache._file(source).read_bytes()) for source in SOURCES)
    cache.build(SOURCES)
    assert all(not is_full(cache._file(source).read_bytes()) for source in SOURCES)
    assert (cache.compiled, cache.loaded) == (0, 2)


def test_a_driver_that_refuses_is_not_asked_again(
    cache: ProgramCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    ProgramCache(cache.context, cache.device, apart=False).build(SOURCES)
    asked = []

    def refuses(_name: str, sources: list[ProgramSource]) -> bool:
        asked.append(len(sources))
        return False

    monkeypatch.setattr(programs, "build_apart", refuses)
    for _ in range(2):
        ProgramCache(cache.context, cache.device).build(SOURCES)
    assert asked == [2]
    assert all(is_full(cache._file(source).read_bytes()) for source in SOURCES)
