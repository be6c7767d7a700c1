"""Programs that another process compiles: no compiler in this one, the same binaries on disk."""

from __future__ import annotations

from pathlib import Path

import pyopencl as cl
import pytest

from coexec.base.errors import ProcessorError
from coexec.base.knobs import BUILD_APART, CACHE_DIR
from coexec.processors.opencl.build_apart import worth_a_process
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.programs import ProgramCache
from tests.runtimes import THOROUGH, open_opencl

GOOD = tuple(
    ProgramSource("good", f"__kernel void add(__global int *x) {{ x[get_global_id(0)] += {n}; }}")
    for n in (1, 2)
)
BAD = ProgramSource("bad", "__kernel void add(__global int *x) { x[0] = nothing; }")


def cache_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ProgramCache:
    monkeypatch.setenv(CACHE_DIR.name, str(folder))
    monkeypatch.setenv(BUILD_APART.name, "2")
    device = open_opencl(THOROUGH[0])
    return ProgramCache(device.context, device.device)


def refuse(cache: ProgramCache, source: ProgramSource) -> cl.Program:
    raise AssertionError(f"{source.family} is compiled in this process")


def test_another_process_compiles_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = cache_in(tmp_path, monkeypatch)
    with monkeypatch.context() as here:
        here.setattr(ProgramCache, "_compile", refuse)
        built = programs.build(GOOD)
    assert [program.kernel_names for program in built] == ["add", "add"]
    assert (programs.compiled, programs.loaded) == (2, 2)
    assert len(list((tmp_path / "opencl").iterdir())) == 2


def test_what_does_not_compile_there_is_told_as_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    programs = cache_in(tmp_path, monkeypatch)
    with pytest.raises(ProcessorError, match="kernel family 'bad' does not build"):
        programs.build((*GOOD, BAD))
    assert "another process could not build all kernels" in caplog.text


def test_few_programs_are_worth_no_process_unless_one_was_used_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(BUILD_APART.name, "16")
    assert worth_a_process(16, again=False)
    assert not worth_a_process(15, again=False)
    assert worth_a_process(1, again=True)
    monkeypatch.setenv(BUILD_APART.name, "0")
    assert not worth_a_process(100, again=True)
