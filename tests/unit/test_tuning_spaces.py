"""The declared spaces of tunables: every point makes launches that any device accepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

import numpy as np
import pytest

from coexec.core.types import OpCall
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.byte_dots import VNNI
from coexec.processors.opencl.family import DeviceFacts, KernelFamily, Lowering, Variant
from coexec.processors.opencl.table import FAMILIES, KERNELS

CPU = DeviceFacts("cpu", "any", True, True, 4096, 1 << 15, 2, 64)
DEVICES = {
    "wide cpu": CPU,
    "cpu": replace(CPU, vector_bytes=32),
    "gpu": replace(CPU, vector_bytes=4, unit_kind="gpu", max_work_group_size=256),
    "vector gpu": replace(CPU, vector_bytes=16, unit_kind="gpu", max_work_group_size=256),
}

FOR_CORES = {"norm_joint"}
"""Families that no GPU is asked for: their work-items wait for other processors."""


def calls(family: KernelFamily) -> Iterator[OpCall]:
    """The examples of a family's operators as typed calls."""
    rng = np.random.default_rng(5)
    for identifier in family.operators:
        op = OPERATORS[identifier]
        for example in op.examples:
            yield example.call(op, example.draw(rng))


def points(variant: Variant, defaults: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """The defaults, each declared value in place of one of them, and all last values at once."""
    yield dict(defaults)
    for name, values in variant.space.items():
        for value in values:
            yield {**defaults, name: value}
    yield {name: values[-1] for name, values in variant.space.items()}


def complaints(lowering: Lowering, facts: DeviceFacts) -> list[str]:
    found = []
    for kernel in lowering.calls:
        local = kernel.local_size or (1,) * len(kernel.global_size)
        if prod(local) > facts.max_work_group_size:
            found.append(f"{kernel.entry}: work-group {local}")
        whole = len(local) == len(kernel.global_size) and min(kernel.global_size) > 0
        if not whole or any(g % s for g, s in zip(kernel.global_size, local, strict=True)):
            found.append(f"{kernel.entry}: {kernel.global_size} in groups of {local}")
        if kernel.defines.get(VNNI) and facts.dots != "vnni":
            found.append(f"{kernel.entry}: asks for an instruction that the device does not have")
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_point_of_a_space_makes_valid_launches(family: KernelFamily, device: str) -> None:
    facts, tried = DEVICES[device], 0
    for call in calls(family):
        for variant in family.variants:
            if variant.applies(call, facts) is not None:
                continue
            defaults = variant.defaults(call, facts)
            undeclared = {n: v for n, v in defaults.items() if v not in variant.space.get(n, ())}
            assert not undeclared, f"{call.identifier} {variant.name}"
            for values in points(variant, defaults):
                bad = complaints(variant.lower(call, facts, values), facts)
                assert not bad, f"{call.identifier} {variant.name} {values}: {bad}"
                tried += 1
    assert bool(tried) == (facts.unit_kind == "cpu" or family.name not in FOR_CORES)


def test_values_are_declared_once_and_are_integers() -> None:
    for family in {id(f): f for f in KERNELS.values()}.values():
        for variant in family.variants:
            for name, values in variant.space.items():
                where = f"{family.name} {variant.name} {name}"
                assert values, where
                assert len(set(values)) == len(values), where
                assert {type(value) for value in values} == {int}, where
