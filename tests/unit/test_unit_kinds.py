"""Kernels by kinds of compute units: which variants are defaults where, and ``?unit=gpu``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from coexec.base.errors import ProcessorError
from coexec.core.types import OpCall, TensorType
from coexec.processors.find import open_processor
from coexec.processors.opencl.choose import by_default, named
from coexec.processors.opencl.family import DeviceFacts, KernelFamily, Lowering, Variant
from tests.runtimes import DRIVERS, THOROUGH, open_opencl

CPU = DeviceFacts("any", "any", True, True, 4096, 1 << 15, 2, 64)
GPU = replace(CPU, unit_kind="gpu", vector_bytes=4)
KIND = TensorType((2,), np.dtype(np.float32))
CALL = OpCall("Relu", (KIND,), {}, (KIND,), version=14)


def lower(_call: OpCall, _facts: DeviceFacts, _values: Mapping[str, int]) -> Lowering:
    return Lowering(())


def refuse(_call: OpCall, _facts: DeviceFacts) -> str | None:
    return "no"


CORES = Variant("cores", lower, units=("cpu",))
ITEMS = Variant("items", lower, units=("gpu",))
FAMILY = KernelFamily("any", ("Relu",), (CORES, ITEMS, Variant("naive", lower)))


def test_the_first_variant_for_the_kind_of_unit_is_the_default() -> None:
    assert by_default(FAMILY, CALL, CPU).variant.name == "cores"
    assert by_default(FAMILY, CALL, GPU).variant.name == "items"


def test_a_variant_that_is_named_runs_on_any_kind_of_unit() -> None:
    assert named("cores")(FAMILY, CALL, GPU).variant.name == "cores"
    assert named("items")(FAMILY, CALL, CPU).variant.name == "items"


def test_the_naive_variant_is_the_last_resort_of_every_kind() -> None:
    cores = replace(FAMILY, variants=(CORES, Variant("naive", lower)))
    assert by_default(cores, CALL, GPU).variant.name == "naive"
    none = replace(FAMILY, variants=(ITEMS, Variant("naive", lower, refuse)))
    assert none.choose(CALL, CPU) == (None, "no")


@pytest.mark.parametrize("runtime", DRIVERS)
def test_a_device_is_laid_out_for_as_a_gpu(runtime: str) -> None:
    asked = open_opencl(f"{runtime}?unit=gpu")
    assert asked.name == f"{runtime}?unit=gpu"
    assert (asked.facts.unit_kind, asked.facts.vector_bytes) == ("gpu", 4)
    assert asked.facts.max_work_group_size <= 256
    assert asked.facts.local_bytes <= 32768
    assert asked.facts.on_chip
    assert asked.describe().features["kernels for GPUs"]


@pytest.mark.parametrize("runtime", DRIVERS)
def test_a_driver_for_cpus_is_laid_out_for_as_a_cpu(runtime: str) -> None:
    own = open_opencl(runtime)
    assert own.facts.unit_kind == "cpu"
    assert not own.facts.on_chip
    assert "kernels for GPUs" not in own.describe().features


def test_another_unit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ProcessorError, match=r"unit=tpu; known: .*unit=best\|gpu"):
        open_processor(f"{THOROUGH[0]}?unit=tpu")
