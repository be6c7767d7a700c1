"""Sequences of kernels in one launch: the same bits, the same traces, less to launch."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pyopencl as cl
import pytest

import coexec
from coexec.core.events import Trace
from coexec.core.types import Array
from coexec.processors.opencl import sequence as module
from coexec.processors.opencl import sequences as choosing
from coexec.processors.opencl.bound import BoundKernel
from coexec.processors.opencl.executable import (
    ARENA,
    ARGUMENT,
    KernelStep,
    Label,
    OpenCLExecutable,
    ProgramSource,
    Slot,
    Step,
)
from coexec.processors.opencl.family import Scalar
from coexec.processors.opencl.programs import OPTIONS
from coexec.processors.opencl.sequence import as_functions, calls_of, may_join
from coexec.processors.opencl.sequences import (
    MEAN_FLOP,
    MOST,
    MOST_FLOP,
    sequences_of,
    worth_joining,
)
from coexec.processors.opencl.sources import kernel_source
from coexec.zoo.catalog import build
from tests.runtimes import DRIVERS, SLOW_TO_BUILD, THOROUGH, open_opencl

FOLDER = resources.files("coexec.processors.opencl.kernels")
FILES = sorted(Path(file.name).stem for file in FOLDER.iterdir() if file.name.endswith(".cl"))
ALONE = KernelStep(0, "run", (), (1,), (1,), Label("any"))
FAMILIES = [
    name
    for name in FILES
    if "__kernel" in kernel_source(name)
    and may_join(ALONE, ProgramSource(name, kernel_source(name)))
]
FACTS = open_opencl(THOROUGH[0]).facts
ONE, TWO = replace(FACTS, compute_units=1), replace(FACTS, compute_units=2)
PARTS = [f"{name}?cores=1" for name in THOROUGH if name != SLOW_TO_BUILD]
"""PoCL's parts need a process of their own."""
PROCESSORS = [*DRIVERS, *PARTS]


def executable_of(steps: list[Step], sources: int = 1) -> OpenCLExecutable:
    texts = [f"__kernel void run(__global float *x) {{ x[0] += {n}; }}" for n in range(sources)]
    programs = tuple(ProgramSource("any", text) for text in texts)
    return OpenCLExecutable("any", (), (), 64, 64, programs=programs, steps=tuple(steps))


def step_of(program: int = 0, flop: int = 0, slot: Slot | None = None) -> KernelStep:
    label = Label(f"node {program}", flop=flop)
    return KernelStep(program, "run", (slot or Slot(ARENA, nbytes=4),), (1,), (1,), label)


def spec_of(processor: str, launch: str) -> str:
    return f"{processor}{'&' if '?' in processor else '?'}launch={launch}"


def session_of(processor: str, launch: str) -> coexec.Session:
    return coexec.compile(build("digits_cnn", batch=1), [spec_of(processor, launch)])


def feeds() -> dict[str, Array]:
    return {"x": np.random.default_rng(3).standard_normal((1, 1, 8, 8), np.float32)}


def launches(session: coexec.Session, monkeypatch: pytest.MonkeyPatch) -> int:
    """Kernels that a run launches."""
    seen: list[BoundKernel] = []
    enqueue = BoundKernel.enqueue

    def noted(kernel: BoundKernel, queue: cl.CommandQueue) -> cl.Event:
        seen.append(kernel)
        return enqueue(kernel, queue)

    with monkeypatch.context() as patched:
        patched.setattr(BoundKernel, "enqueue", noted)
        session.run(feeds())
        seen.clear()
        session.run(feeds())
    return len(seen)


@pytest.mark.filterwarnings("ignore:Pre-build attribute access")
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_of_a_family_become_functions_whose_names_do_not_meet(family: str) -> None:
    device = open_opencl(THOROUGH[0])
    text = "\n".join(as_functions(kernel_source(family), part) for part in range(2))
    cl.Program(device.context, text).compile(list(OPTIONS), devices=[device.device])


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_sequence_gives_the_same_bits_by_fewer_launches(
    processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    each, together = session_of(processor, "each"), session_of(processor, "together")
    assert launches(together, monkeypatch) == 1 < launches(each, monkeypatch)
    expected = each.run(feeds())["y"].copy()
    for _ in range(20):
        np.testing.assert_array_equal(together.run(feeds())["y"], expected)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_trace_shows_the_kernels_of_a_sequence_one_by_one(processor: str) -> None:
    traces = []
    for launch in ("each", "together"):
        session, trace = session_of(processor, launch), Trace()
        expected = session.run(feeds())["y"].copy()
        np.testing.assert_array_equal(session.run(feeds(), trace=trace)["y"], expected)
        np.testing.assert_array_equal(session.run(feeds())["y"], expected)
        traces.append([(e.name, e.operator, e.flop, e.choice) for e in trace.leaves()])
    assert traces[0] == traces[1]


def test_who_waits_in_vain_leaves_the_others_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(name: str) -> str:
        return f"#define PATIENCE 0\n{kernel_source(name)}"

    expected = session_of(THOROUGH[0], "each").run(feeds())["y"]
    monkeypatch.setattr(module, "kernel_source", impatient)
    session = session_of(THOROUGH[0], "together")
    for _ in range(20):
        np.testing.assert_array_equal(session.run(feeds())["y"], expected)


def test_a_driver_that_does_not_build_sequences_launches_each_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = session_of(THOROUGH[0], "each").run(feeds())["y"]
    monkeypatch.setattr(module, "kernel_source", lambda _name: "nothing;")
    session = session_of(THOROUGH[0], "together")
    assert "every kernel is a launch" in caplog.text
    np.testing.assert_array_equal(session.run(feeds())["y"], expected)


def test_programs_are_the_same_whatever_the_order_of_kernels() -> None:
    numbers = [0, 1, 2, 1]
    there = sequences_of(executable_of([step_of(n) for n in numbers], 3), ONE)
    back = sequences_of(executable_of([step_of(n) for n in numbers[::-1]], 3), ONE)
    assert [p.source for p in there.programs] == [p.source for p in back.programs]
    assert [launch.count for launch in there.launches] == [4]


def test_sources_beyond_those_of_a_program_begin_another() -> None:
    executable = executable_of([step_of(n) for n in range(MOST + 2)], MOST + 2)
    found = sequences_of(executable, ONE)
    assert [program.source.parts for program in found.programs] == [MOST, 2]
    assert [(launch.first, launch.count) for launch in found.launches] == [(0, MOST), (MOST, 2)]
    assert found.alone == frozenset()


def test_repeated_kernels_share_a_program() -> None:
    found = sequences_of(executable_of([step_of(n % 3) for n in range(60)], 3), ONE)
    assert [program.source.parts for program in found.programs] == [3]


def test_a_launch_ends_where_memory_is_in_too_many_blocks() -> None:
    steps: list[Step] = [step_of(slot=Slot(ARGUMENT, index)) for index in range(70)]
    found = sequences_of(executable_of(steps), ONE)
    assert [launch.count for launch in found.launches] == [64, 6]


def test_long_kernels_are_launched_alone_where_cores_wait_for_each_other() -> None:
    steps: list[Step] = [step_of(), step_of(), step_of(1, 2 * MOST_FLOP), step_of(), step_of()]
    executable = executable_of(steps, 2)
    assert [each.first for each in sequences_of(executable, ONE).launches] == [0]
    found = sequences_of(executable, TWO)
    assert [(each.first, each.count) for each in found.launches] == [(0, 2), (3, 2)]
    assert found.alone == {1}


def test_one_core_launches_kernels_alone_of_which_a_launch_is_a_small_part() -> None:
    steps: list[Step] = [step_of(), step_of(), step_of(1, MEAN_FLOP + 1), step_of(), step_of()]
    found = sequences_of(executable_of(steps, 2), ONE)
    assert [(each.first, each.count) for each in found.launches] == [(0, 2), (3, 2)]
    assert found.alone == {1}
    shorter: list[Step] = [*steps[:2], step_of(1, MEAN_FLOP), *steps[3:]]
    assert [each.count for each in sequences_of(executable_of(shorter, 2), ONE).launches] == [5]


def test_networks_of_long_kernels_get_no_programs_of_their_own() -> None:
    assert worth_joining(executable_of([step_of(0, flop=MEAN_FLOP), step_of(1, flop=MEAN_FLOP)], 2))
    longer: list[Step] = [step_of(0, flop=2 * MEAN_FLOP), step_of(1, flop=MEAN_FLOP)]
    assert not worth_joining(executable_of(longer, 2))


@pytest.mark.parametrize("processor", THOROUGH[:1])
def test_training_steps_launch_each_kernel_as_networks_do_not(
    processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: list[bool] = []

    def decide(executable: OpenCLExecutable) -> bool:
        decided.append(worth_joining(executable))
        return decided[-1]

    monkeypatch.setattr(choosing, "worth_joining", decide)
    model = build("digits_cnn", batch=2)
    coexec.compile(model, [processor]).run({"x": np.zeros((2, 1, 8, 8), np.float32)})
    assert decided == [True]
    loss, optimizer = coexec.losses.SoftmaxCrossEntropy(), coexec.optim.SGD(learning_rate=0.1)
    trainer = coexec.Trainer(model, loss=loss, optimizer=optimizer, processors=[processor])
    trainer.step({"x": np.zeros((2, 1, 8, 8), np.float32)}, np.zeros(2, np.int64))
    assert decided == [True, False, False]


def test_a_kernel_between_others_that_cannot_join_stays_alone() -> None:
    grouped = replace(step_of(), local_size=(2,), global_size=(2,))
    meeting = replace(step_of(), label=Label("norm", meets=True))
    steps: list[Step] = [step_of(), grouped, step_of(), meeting, step_of()]
    assert sequences_of(executable_of(steps), ONE).launches == ()


def test_kernels_that_share_local_memory_do_not_join() -> None:
    for text in ("barrier(CLK_LOCAL_MEM_FENCE);", "__local float x[4];", "get_num_groups(0);"):
        source = ProgramSource("any", f"__kernel void run() {{ {text} }}")
        assert not may_join(ALONE, source)


def test_a_table_has_numbers_and_places_in_words() -> None:
    numbers = (Scalar(-1), Scalar(1.5, "float32"), Scalar(5 << 32, "int64"))
    slots = (Slot(ARENA, offset=3 << 32, nbytes=4), Slot(ARGUMENT, 1, nbytes=4))
    step = replace(step_of(), args=(*slots, *numbers), global_size=(40, 3))
    found = sequences_of(executable_of([step, step]), ONE)
    (launch,) = found.launches
    calls = calls_of([step], found.programs[0], 1)
    half = int(np.float32(1.5).view(np.int32))
    arguments = [0, 0, 3, 1, 0, 0, -1, half, 0, 5]
    assert calls.table.tolist() == [16, 0, 40, 3, 1, 30, *arguments]
    assert calls.blocks == (Slot(ARENA), slots[1])
    assert launch.calls.starts == (0, 16)


def test_plans_are_let_go_with_their_executables() -> None:
    plans = choosing.SequencePlans(ONE, joins=True)
    executable = executable_of([step_of(), step_of()])
    assert plans.of(executable) is plans.of(executable)
    assert len(plans.of(executable).launches) == 1
    plans.refuse(executable)
    assert plans.of(executable).launches == ()
    del executable
    assert not vars(plans)["_known"]
