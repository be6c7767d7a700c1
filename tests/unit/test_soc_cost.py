"""Predicted costs of phones: physical limits hold, refusals have reasons, units are right."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.base.errors import ProcessorError, UsageError
from coexec.core.soc import Soc
from coexec.core.soc_file import find_soc, soc_names
from coexec.core.types import OpCall, TensorType
from coexec.cost.soc.coefficients import GENERAL, SPEEDS, levels, shipped
from coexec.cost.soc.estimate import ENGINES
from coexec.cost.soc.limits import limits_of
from coexec.cost.soc.npu_terms import NPU_TERMS
from coexec.cost.soc.predict import predict, supports
from coexec.cost.soc.terms import CALLS as CALLS_TERM
from coexec.cost.soc.terms import TERMS
from coexec.ops.opdef import COEXEC
from coexec.ops.table import opdef

FLOAT = np.dtype("float32")


def call(op_type: str, *shapes: tuple[int, ...], domain: str = "", **attributes: object) -> OpCall:
    """A call on float32 operands with its outputs inferred."""
    kinds = tuple(TensorType(shape, FLOAT) for shape in shapes)
    bare = OpCall(op_type, kinds, attributes, domain=domain, version=21)
    return opdef(bare).typed(bare)


def convolution(side: int, channels: int, batch: int = 1, group: int = 1) -> OpCall:
    image, filters = (batch, channels, side, side), (channels, channels // group, 3, 3)
    return call("Conv", image, filters, pads=(1, 1, 1, 1), group=group)


def test_floats_take_what_cores_of_a_name_and_of_a_kind_have_in_common() -> None:
    """Revisions of a core, and cores that nobody measured, differ in kernels of integers."""
    known = shipped().factors["tflite cpu float32"]
    little = levels(find_soc("snapdragon-865"), "cpu:1little", "float32")
    assert little[:4] == (GENERAL, "cores in order", "core Cortex-A55", "core Cortex-A55 int8 32")
    assert set(little[:4]) <= set(known)
    newer = levels(find_soc("snapdragon-8-gen-2"), "cpu:1prime", "float32")
    assert [level for level in newer if level in known] == [GENERAL, "cores out of order"]
    assert levels(find_soc("snapdragon-865"), "cpu:1little", "int8")[1] == "int8 x4"


@pytest.mark.parametrize("kind", sorted(SPEEDS))
def test_cores_of_a_kind_differ_from_all_in_speed_alone(kind: str) -> None:
    """Two or three chips of a kind tell no more: proportions of their own extrapolate badly."""
    known = shipped().factors["tflite cpu float32"]
    with_factor = (known[GENERAL] > 0) & (np.array(TERMS) != "calls")
    ratios = known[kind][with_factor] / known[GENERAL][with_factor]
    assert ratios == pytest.approx(ratios[0], rel=1e-3)
    assert 0.5 < ratios[0] < 2
    assert known[kind][CALLS_TERM] >= 1


CALLS = (
    convolution(56, 64),
    convolution(7, 512),
    convolution(28, 64, group=64),
    convolution(14, 64, batch=32),
    call("MatMul", (64, 2048), (2048, 2048)),
    call("MatMul", (1, 2048), (2048, 1000)),
    call("Add", (1, 64, 56, 56), (1, 64, 56, 56)),
    call("Softmax", (32, 1000)),
    call("MaxPool", (1, 64, 112, 112), kernel_shape=(3, 3), strides=(2, 2)),
    call("ConvWeightGrad", (8, 16, 28, 28), (8, 32, 28, 28), domain=COEXEC, kernel_shape=(3, 3),
         pads=(1, 1, 1, 1)),
)  # fmt: skip


@pytest.mark.parametrize("name", soc_names())
def test_no_call_beats_the_peak_or_the_memory_of_its_processor(name: str) -> None:
    soc = find_soc(name)
    for processor in ("cpu", "cpu:1little" if _has_little(soc) else "cpu:1prime", "gpu"):
        for precision in ("float32", "float16"):
            limits = limits_of(soc, processor, precision)
            for each in CALLS:
                cost = predict(soc, processor, each, precision)
                assert cost.flop / (cost.compute_us * 1e3) <= limits.peak_gflops * 1.0001
                assert cost.memory_bytes / (cost.compute_us * 1e3) <= soc.memory.peak_gbps
                assert 0 < cost.memory_us <= cost.compute_us * 1.0001
                assert cost.compute_us < 60e6


def _has_little(soc: Soc) -> bool:
    return any(each.name == "little" for each in soc.clusters)


def test_energy_is_power_times_time_and_what_dram_takes() -> None:
    soc = find_soc("snapdragon-865")
    cost = predict(soc, "gpu", CALLS[0])
    assert soc.gpu is not None
    joules = cost.compute_us * 1e-6 * soc.gpu.step_mw[-1] * 1e-3
    joules += cost.memory_bytes * soc.memory.pj_per_byte * 1e-12
    assert cost.energy_uj == pytest.approx(joules * 1e6)


def test_larger_work_takes_longer_and_more_cores_take_less() -> None:
    soc = find_soc("snapdragon-855")
    small, large = convolution(28, 128), convolution(56, 128)
    for processor in ("cpu", "gpu", "cpu:1big"):
        one, four = predict(soc, processor, small), predict(soc, processor, large)
        assert 1.5 < four.compute_us / one.compute_us < 8
    one, three = predict(soc, "cpu:1big", large), predict(soc, "cpu:3big", large)
    assert 1.2 < one.compute_us / three.compute_us <= 3.2


def test_a_view_costs_nothing() -> None:
    shape = np.array([64, -1])
    bare = OpCall(
        "Reshape",
        (TensorType((1, 64, 7, 7), FLOAT), TensorType.of(shape)),
        constants={1: shape},
        version=21,
    )
    cost = predict(find_soc("snapdragon-855"), "gpu", opdef(bare).typed(bare))
    assert (cost.compute_us, cost.memory_bytes, cost.energy_uj) == (0, 0, 0)


def test_the_stock_engine_waits_after_every_call_and_is_slower() -> None:
    soc = find_soc("snapdragon-865")
    stock = predict(soc, "gpu", CALLS[0], engine="stock-mnn-opencl")
    own = predict(soc, "gpu", CALLS[0], engine="coexec")
    assert stock.dispatch.median_us == soc.latency.gpu_sync.median_us
    assert own.dispatch.median_us == soc.latency.gpu_dispatch.median_us
    assert stock.compute_us > 2 * own.compute_us
    assert "stock-mnn-opencl" in stock.source


@pytest.mark.parametrize("engine", ["coexec", "stock-mnn-opencl"])
def test_no_operator_on_the_cpu_is_cheaper_than_calling_one(engine: str) -> None:
    soc = find_soc("snapdragon-845")
    tiny = call("MatMul", (1, 4), (4, 4)), call("Add", (4,), (4,)), call("Softmax", (1, 4))
    for each in tiny:
        assert predict(soc, "cpu", each, engine=engine).compute_us >= 4
    product = predict(soc, "cpu", tiny[0], engine="stock-mnn-opencl").compute_us
    assert 14.8 <= product < 20  # published for the smallest products on three phones: 9-29


def test_operators_that_do_little_with_what_they_load_are_charged_by_bytes() -> None:
    """A softmax counts some twenty operations an element; its time is that of memory."""
    soc = find_soc("snapdragon-865")
    for op_type, shapes in (("Softmax", ((32, 1 << 14),)), ("Exp", ((1 << 19,),))):
        add = predict(soc, "cpu", call("Neg", (1 << 19,)))
        other = predict(soc, "cpu", call(op_type, *shapes))
        assert other.flop > 4 * add.flop
        assert other.compute_us < 10 * add.compute_us


def test_a_product_of_one_row_takes_as_long_as_one_core_reads_its_weights() -> None:
    soc, row = find_soc("snapdragon-865"), call("MatMul", (1, 2048), (2048, 4096))
    reading_us = 2048 * 4096 * FLOAT.itemsize / limits_of(soc, "cpu:1prime", "float32").core_gbps
    one, four = (predict(soc, name, row).compute_us for name in ("cpu:1prime", "cpu:1prime+3big"))
    assert 1 <= one / (reading_us / 1e3) < 1.5
    assert four == pytest.approx(one, rel=0.05)


def test_npus_refuse_with_a_reason() -> None:
    soc = find_soc("snapdragon-865")
    assert supports(soc, "npu", CALLS[0], "int8").yes
    refused = supports(soc, "npu", CALLS[0])
    assert refused.reason == "Hexagon 698 computes in int8, int16, not in float32"
    assert not supports(find_soc("helio-p35"), "npu", CALLS[0], "int8").yes
    with pytest.raises(ProcessorError, match=r"computes in int8, int16, not in float32"):
        predict(soc, "npu", CALLS[0])


def test_what_is_unknown_lists_what_is_known() -> None:
    soc = find_soc("helio-p35")
    with pytest.raises(UsageError, match=r"unknown engine 'magic'; known: coexec, stock-mnn"):
        predict(soc, "gpu", CALLS[0], engine="magic")
    with pytest.raises(ProcessorError, match=r"helio-p35 has no 'npu'; it has cpu, gpu"):
        predict(soc, "npu", CALLS[0])


def test_int8_has_a_level_for_the_instructions_that_multiply() -> None:
    """Cores with dot products run other kernels: an A55 of both kinds, in floats the same."""
    old, new = find_soc("snapdragon-710"), find_soc("exynos-9820")
    assert levels(old, "cpu:1little", "int8")[:2] == (GENERAL, "int8 x2")
    assert levels(new, "cpu:1little", "int8")[:2] == (GENERAL, "int8 x4")
    shared = [levels(soc, "cpu:1little", "float32")[:3] for soc in (old, new)]
    assert shared[0] == shared[1] == (GENERAL, "cores in order", "core Cortex-A55")
    for group in (name for name in shipped().factors if name.endswith("cpu int8")):
        assert {"int8 x2", "int8 x4"} <= set(shipped().factors[group])


def test_shipped_coefficients_fit_this_version_and_say_where_they_are_from() -> None:
    fitted = shipped()
    assert fitted.date
    assert sum(fitted.rows.values()) > 10_000
    for group, by_level in fitted.factors.items():
        for factors in by_level.values():
            assert (factors >= 0).all()
            terms = NPU_TERMS if " npu " in group else TERMS
            assert len(factors) == len(terms) or group.endswith("run")
    assert {name.partition(" ")[0] for name in fitted.errors} & set(ENGINES)
