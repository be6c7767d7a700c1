"""Sources that become one program: every family's, and steps that give the same bits."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pyopencl as cl
import pytest

import coexec
from coexec.base.knobs import BUILD_APART, CACHE_DIR
from coexec.core.types import Array
from coexec.processors.opencl import processor as module
from coexec.processors.opencl.executable import (
    KernelStep,
    Label,
    OpenCLExecutable,
    ProgramSource,
    Step,
)
from coexec.processors.opencl.programs import OPTIONS, ProgramCache
from coexec.processors.opencl.sources import kernel_source
from coexec.processors.opencl.together import FAMILY, MOST, joined, names_of, together
from tests.pipeline.small import FEATURES, network
from tests.runtimes import DRIVERS, THOROUGH, open_opencl

FOLDER = resources.files("coexec.processors.opencl.kernels")
FILES = sorted(Path(file.name).stem for file in FOLDER.iterdir() if file.name.endswith(".cl"))
FAMILIES = [name for name in FILES if "__kernel" in kernel_source(name)]


def executable_of(texts: list[str]) -> OpenCLExecutable:
    """Steps of one kernel each, all of the same name."""
    steps: list[Step] = [
        KernelStep(number, "run", (), (1,), None, Label(text)) for number, text in enumerate(texts)
    ]
    sources = tuple(ProgramSource("any", text) for text in texts)
    return OpenCLExecutable("any", (), (), 0, 0, programs=sources, steps=tuple(steps))


def steps_of(trainer: coexec.Trainer) -> tuple[list[float], dict[str, Array]]:
    """Losses of two steps, and all states behind them."""
    rng = np.random.default_rng(3)
    batch = {"x": rng.standard_normal((4, FEATURES), np.float32)}
    labels = rng.integers(0, 3, 4)
    return [trainer.step(batch, labels) for _ in range(2)], trainer.state()


def trainer_on(runtime: str, memory: str | None = None) -> coexec.Trainer:
    loss, optimizer = coexec.losses.SoftmaxCrossEntropy(), coexec.optim.SGD(0.1, momentum=0.9)
    return coexec.Trainer(coexec.load(network()), loss, optimizer, [runtime], memory=memory)


def families_of(trainer: coexec.Trainer) -> set[str]:
    """Families of the programs of a training step."""
    executables = [e for e in trainer.program.executables if isinstance(e, OpenCLExecutable)]
    return {program.family for each in executables for program in each.programs}


@pytest.mark.filterwarnings("ignore:Pre-build attribute access")
@pytest.mark.parametrize("family", FAMILIES)
def test_no_name_of_a_family_meets_itself(family: str) -> None:
    source = ProgramSource(family, kernel_source(family))
    device = open_opencl(THOROUGH[0])
    text = joined([source, source]).text
    cl.Program(device.context, text).compile(list(OPTIONS), devices=[device.device])


def test_names_and_macros_of_a_source_are_found() -> None:
    text = """#define V 4 /* lanes, #define not */
#define MAKE(name) \\
    static float name(const float v) { return v; }
#define TYPED(T) static T CAT(root_, T)(T x) { return CAT(as_, T)(x); }
MAKE(made)
typedef JOIN(float, V) lanes __attribute__((aligned(4)));
typedef struct {
    int low;
} ends;
__constant int table[] = {1, 2};
static inline __attribute__((always_inline)) void
helper(__global float *x,
       const int n)
{
    int local = called(n);
}
static inline float once(float x) { return exp(x); }
static const float ROOT = sqrt(2.0f);
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void run(__global float *x) {}
"""
    names, macros = names_of(text)
    assert {"made", "lanes", "ends", "table", "helper", "once", "ROOT", "root_float4", "run"} <= {
        *names
    }
    assert {"local", "called", "low", "exp", "sqrt", "reqd_work_group_size", "as_float"}.isdisjoint(
        names
    )
    assert macros == ["MAKE", "TYPED", "V"]


def test_programs_are_the_same_whatever_the_order_of_steps() -> None:
    texts = [f"__kernel void run() {{ int n = {n}; }}" for n in range(MOST + 1)]
    there, back = together(executable_of(texts)), together(executable_of(texts[::-1]))
    assert there.programs == back.programs
    assert [program.parts for program in there.programs] == [9, 8]
    places = [
        [(s.program, s.entry) for s in e.steps if isinstance(s, KernelStep)] for e in (there, back)
    ]
    assert places[0] == places[1][::-1]
    assert len(set(places[0])) == MOST + 1


def test_a_single_program_stays_as_it_is() -> None:
    executable = executable_of(["__kernel void run() {}"])
    assert together(executable) is executable


@pytest.mark.parametrize("runtime", THOROUGH)
def test_steps_by_few_programs_give_the_same_bits(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProgramCache, "keeps_much", True)
    plain, sparing = trainer_on(runtime), trainer_on(runtime, "64MiB")
    losses, states = steps_of(plain)
    same_losses, same_states = steps_of(sparing)
    assert FAMILY not in families_of(plain)
    assert families_of(sparing) == {FAMILY}
    assert losses == same_losses
    for name, value in states.items():
        np.testing.assert_array_equal(same_states[name], value)


@pytest.mark.parametrize("runtime", DRIVERS)
def test_only_drivers_that_keep_much_get_few_programs(runtime: str) -> None:
    sparing = trainer_on(runtime, "64MiB")
    steps_of(sparing)
    assert (FAMILY in families_of(sparing)) == open_opencl(runtime).programs.keeps_much


def test_a_driver_that_does_not_build_them_gets_each_by_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(executable: OpenCLExecutable) -> OpenCLExecutable:
        wrong = ProgramSource(FAMILY, "__kernel void run() { nothing; }")
        return replace(executable, programs=(wrong,) * len(executable.programs))

    monkeypatch.setattr(ProgramCache, "keeps_much", True)
    monkeypatch.setattr(module, "together", broken)
    trainer = trainer_on(THOROUGH[0], "64MiB")
    steps_of(trainer)
    assert FAMILY not in families_of(trainer)
    assert "each kernel stays a program of its own" in caplog.text


def test_many_sources_in_one_program_are_worth_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_DIR.name, str(tmp_path))
    monkeypatch.setenv(BUILD_APART.name, "2")
    texts = [f"__kernel void run(__global int *x) {{ x[0] = {n}; }}" for n in range(2)]
    device = open_opencl(THOROUGH[0])
    programs = ProgramCache(device.context, device.device)
    with monkeypatch.context() as here:
        here.delattr(ProgramCache, "_compile")
        (built,) = programs.build(together(executable_of(texts)).programs)
    assert sorted(built.kernel_names.split(";")) == ["run_0", "run_1"]
