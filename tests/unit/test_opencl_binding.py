"""Kernels bound to memory get the arguments that their steps state, at little cost for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pyopencl import invoker

import coexec
from coexec.processors.opencl import regions
from coexec.processors.opencl.bound import BoundKernel, bind_kernel
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.executable import ARGUMENT, KernelStep, Label, ProgramSource, Slot
from coexec.processors.opencl.family import Scalar
from coexec.processors.opencl.invokers import remember_invokers, remembering
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.pipeline.small import FEATURES, network
from tests.runtimes import DRIVERS, RUNTIMES, open_opencl

SOURCE = ProgramSource(
    "binding",
    "__kernel void sums(__global float *y, const int a, const long b, const float c)\n"
    "{ y[0] = (float)a + (float)(b >> 40) + c; }\n",
)


def counted(call: Callable[..., Any], seen: Counter[str]) -> Callable[..., Any]:
    """``call``, counted under its name."""

    def counting(*args: Any, **options: Any) -> Any:
        seen[call.__name__] += 1
        return call(*args, **options)

    return counting


def bound_sum(processor: OpenCLProcessor, output: OpenCLBuffer, a: int, b: int, c: float) -> Any:
    """``sums`` with one argument of each kind."""
    (program,) = processor.programs.build((SOURCE,))
    numbers = (Scalar(a), Scalar(b, "int64"), Scalar(c, "float32"))
    step = KernelStep(0, "sums", (Slot(ARGUMENT), *numbers), (1,), None, Label("sums"))
    return bind_kernel(step, program, lambda _slot: output.memory)


def value_of(processor: OpenCLProcessor, output: OpenCLBuffer) -> float:
    """The one element of a buffer."""
    host = np.zeros(1, np.float32)
    processor.wait(processor.copy(host, output, ()))
    return float(host[0])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_kernel_of_one_program_keeps_its_own_arguments(runtime: str) -> None:
    processor = open_opencl(runtime)
    outputs = [processor.alloc(4), processor.alloc(4)]
    first = bound_sum(processor, outputs[0], -3, 7 << 40, 0.5)
    second = bound_sum(processor, outputs[1], 2**31 - 1, -(1 << 40), 1e30)
    first.enqueue(processor.queue)
    second.enqueue(processor.queue)
    assert value_of(processor, outputs[0]) == 4.5
    assert value_of(processor, outputs[1]) == np.float32(1e30)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_argument_is_refused_when_bound(runtime: str) -> None:
    processor = open_opencl(runtime)
    (program,) = processor.programs.build((SOURCE,))
    step = KernelStep(0, "sums", (Slot(ARGUMENT),), (1,), None, Label("sums"))
    with pytest.raises(TypeError, match="argument"):
        bind_kernel(step, program, lambda _slot: processor.alloc(4).memory)


def test_arguments_set_at_every_launch_make_no_kernels_and_change_no_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: Counter[str] = Counter()
    for owner, name in ((BoundKernel, "set_arguments"), (regions, "bind_kernel")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name), seen))
    feeds = {"x": np.linspace(-1, 1, 2 * FEATURES, dtype=np.float32).reshape(2, FEATURES)}
    results = {}
    for options in ("", "?bind=each"):
        model = coexec.load(network(), {"x": (2, FEATURES)})
        session = coexec.compile(model, [f"{DRIVERS[-1]}{options}"])
        session.run(feeds)
        seen.clear()
        results[options] = session.run(feeds)["y"]
        assert seen["bind_kernel"] == 0
        assert (seen["set_arguments"] > 0) == bool(options)
    assert np.array_equal(results[""], results["?bind=each"])


def test_functions_are_generated_once_for_each_signature() -> None:
    made: list[int] = []

    def generate(_name: str, count: int, *, devs: object, bug: bool) -> Any:
        made.append(count)
        return (len, len)

    remembered = remembering(generate)
    for count, devices in ((2, [1]), (2, [1]), (3, [1]), (3, [2]), (2, [1])):
        assert remembered("k", count, devs=devices, bug=False) == (len, len)
    assert made == [2, 3, 3]


def test_pyopencl_is_asked_to_remember_only_once() -> None:
    before = invoker.generate_enqueue_and_set_args
    remember_invokers()
    assert invoker.generate_enqueue_and_set_args is before
