"""The naive variant of a family takes every call that the family supports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.ops.table import OPERATORS
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.table import KERNELS

CPU = DeviceFacts(
    name="any",
    vendor="any",
    fp16=True,
    fp64=True,
    max_work_group_size=256,
    local_bytes=32768,
    compute_units=2,
    alignment=128,
    vector_bytes=32,
)


@pytest.mark.parametrize(
    "facts", [CPU, replace(CPU, unit_kind="gpu", fp16=False)], ids=lambda facts: facts.unit_kind
)
def test_no_variant_takes_what_the_naive_one_refuses(
    facts: DeviceFacts, rng: np.random.Generator
) -> None:
    """So that a processor need ask only that one whether it executes a call."""
    asked = 0
    for op in OPERATORS.values():
        family = KERNELS.get(op.identifier)
        for example in op.examples if family is not None else ():
            assert family is not None
            call = example.call(op, example.draw(rng))
            takes = [v.name for v in family.variants if v.applies(call, facts) is None]
            assert not takes or takes[-1] == family.naive.name, f"{call}: {takes}"
            asked += 1
    assert asked > 500
