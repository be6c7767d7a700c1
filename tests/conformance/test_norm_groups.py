"""Group- and InstanceNormalization by vectors along channels: remainders, shares, far means."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.types import OpCall, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.kernels.norm import FAMILY
from tests.running import assert_agrees, expected_outputs, run_call
from tests.runtimes import RUNTIMES, open_opencl


def normalisation(shape: tuple[int, ...], groups: int) -> OpCall:
    """InstanceNormalization where each channel is a group, else GroupNormalization."""
    kind, vector = (TensorType(s, np.dtype(np.float32)) for s in (shape, shape[1:2]))
    if groups == shape[1]:
        op = OPERATORS["InstanceNormalization"]
        return op.typed(OpCall("InstanceNormalization", (kind, vector, vector), {"epsilon": 1e-3}))
    op = OPERATORS["GroupNormalization"]
    return op.typed(OpCall("GroupNormalization", (kind, vector, vector), {"num_groups": groups}))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 6, 3, 5, 7), 6),
        ((1, 19, 4, 4, 4), 19),
        ((1, 2, 37, 61), 2),
        ((3, 6, 23), 2),
        ((2, 8, 4), 4),
        ((2, 4, 1, 17), 1),
    ],
)
def test_groups_agree_with_the_reference_far_from_zero(
    runtime: str, shape: tuple[int, ...], groups: int, rng: np.random.Generator
) -> None:
    call = normalisation(shape, groups)
    processor = open_opencl(runtime)
    variant, reason = FAMILY.choose(call, processor.facts)
    assert variant is not None, reason
    assert variant.name == "groups"
    x = (rng.standard_normal(shape) + 20).astype(np.float32)
    scale, bias = rng.standard_normal((2, shape[1])).astype(np.float32)
    op = OPERATORS[call.op_type]
    expected = expected_outputs(op, call, [x, scale, bias])
    assert_agrees(op, call, run_call(processor, call, [x, scale, bias]), expected)


@pytest.mark.parametrize("shape", [(1, 1, 40), (2, 6, 3), (0, 2, 8)])
def test_single_groups_and_tiny_channels_are_left_to_the_naive_kernel(
    shape: tuple[int, ...],
) -> None:
    variant, reason = FAMILY.choose(normalisation(shape, shape[1]), open_opencl(RUNTIMES[0]).facts)
    assert variant is not None, reason
    assert variant.name == "naive"
