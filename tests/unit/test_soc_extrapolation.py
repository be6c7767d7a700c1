"""Beyond what was measured predictions stay in order: more work takes longer, more cores less."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from coexec.core.soc_file import find_soc, soc_names
from coexec.cost.soc.coefficients import shipped
from coexec.cost.soc.engine_profile import TFLITE
from coexec.cost.soc.estimate import calls_us
from coexec.cost.soc.workload import CONV, DEPTHWISE, Workload

SIDES, CHANNELS, KERNELS = (7, 28, 112), (3, 16, 256, 1024), (1, 3, 5)
ROUNDING = 1 - 1e-9


def convolution(side: float, inputs: float, outputs: float, kernel: float) -> Workload:
    pixels, taps = side**2, kernel**2 * inputs
    return Workload(
        CONV,
        2 * pixels * outputs * taps,
        pixels * inputs,
        pixels * outputs,
        taps * outputs,
        out_pixels=pixels,
        in_channels=inputs,
        out_channels=outputs,
        kernel=kernel,
    )


def depthwise(side: float, channels: float, kernel: float) -> Workload:
    plain = convolution(side, channels, channels, kernel)
    return replace(
        plain,
        family=DEPTHWISE,
        flop=plain.flop / channels,
        weights=plain.weights / channels,
        groups=channels,
    )


def batched(work: Workload, batch: int) -> Workload:
    return replace(
        work,
        flop=batch * work.flop,
        in_elements=batch * work.in_elements,
        out_elements=batch * work.out_elements,
        out_pixels=batch * work.out_pixels,
    )


GRID = [convolution(*each) for each in itertools.product(SIDES, CHANNELS, CHANNELS, KERNELS)]
GRID += [depthwise(*each) for each in itertools.product(SIDES, CHANNELS, KERNELS)]
WIDER = [
    (convolution(side, inputs, outputs, kernel), convolution(side, 2 * inputs, outputs, kernel))
    for side, inputs, outputs, kernel in itertools.product(SIDES, CHANNELS, CHANNELS, KERNELS)
]


def times(soc: str, processor: str, precision: str, calls: list[Workload]) -> np.ndarray:
    return calls_us(shipped(), find_soc(soc), processor, precision, TFLITE, calls)


@pytest.mark.parametrize("soc", soc_names())
@pytest.mark.parametrize(
    ("processor", "precision"), [("gpu", "float16"), ("cpu", "float32"), ("cpu", "int8")]
)
def test_a_larger_batch_never_takes_less(soc: str, processor: str, precision: str) -> None:
    last = times(soc, processor, precision, GRID)
    for batch in (2, 4, 32, 64):
        more = times(soc, processor, precision, [batched(each, batch) for each in GRID])
        assert (more >= last * ROUNDING).all()
        last = more


@pytest.mark.parametrize("soc", soc_names())
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_twice_the_arithmetic_on_a_cpu_never_takes_less(soc: str, precision: str) -> None:
    narrow = times(soc, "cpu", precision, [pair[0] for pair in WIDER])
    wide = times(soc, "cpu", precision, [pair[1] for pair in WIDER])
    assert (wide >= narrow * ROUNDING).all()


@pytest.mark.parametrize("soc", soc_names())
def test_twice_the_channels_on_a_gpu_take_a_fifth_less_at_most(soc: str) -> None:
    """Trees over shapes have steps, and a few of them go down."""
    narrow = times(soc, "gpu", "float16", [pair[0] for pair in WIDER])
    wide = times(soc, "gpu", "float16", [pair[1] for pair in WIDER])
    assert (wide >= 0.8 * narrow).all()
    assert (wide >= narrow * ROUNDING).mean() > 0.9


def of_unmeasured_mixes() -> list[str]:
    """Chips of which no mix of cores was measured: those that were have factors of their own."""
    levels = {level for group in shipped().factors.values() for level in group}
    words = [level.split() for level in levels]
    measured = {each[0] for each in words if each[1:] and each[1].startswith("cpu")}
    return [name for name in soc_names() if name not in measured]


@pytest.mark.parametrize("soc", of_unmeasured_mixes())
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_more_cores_of_one_kind_never_take_longer(soc: str, precision: str) -> None:
    for cluster in find_soc(soc).clusters:
        last = times(soc, f"cpu:1{cluster.name}", precision, GRID)
        for cores in range(2, cluster.cores + 1):
            more = times(soc, f"cpu:{cores}{cluster.name}", precision, GRID)
            assert (more <= last / ROUNDING).all()
            last = more
