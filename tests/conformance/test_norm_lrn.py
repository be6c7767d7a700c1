"""Local response normalisation by Newton's roots: exact to rounding for sums of any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import OpCall, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.kernels.norm import FAMILY
from coexec.processors.opencl.kernels.norm_lrn import refuse_lrn
from tests.running import expected_outputs, run_call
from tests.runtimes import RUNTIMES, open_opencl

OP = OPERATORS["LRN"]


def normalisation(bias: float) -> OpCall:
    """Planes of two vectors, the second of which overlaps the first."""
    kind = TensorType((2, 7, 3, 5), np.dtype(np.float32))
    return OP.typed(OpCall("LRN", (kind,), {"size": 5, "alpha": 0.5, "bias": bias}))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_results_are_exact_to_rounding_for_sums_of_any_size(
    runtime: str, rng: np.random.Generator
) -> None:
    processor = open_opencl(runtime)
    call = normalisation(1e-3)
    variant, reason = FAMILY.choose(call, processor.facts)
    assert variant is not None, reason
    assert variant.name == "lrn"
    x = rng.standard_normal((2, 7, 3, 5)) * 10.0 ** rng.uniform(-4, 15, (2, 7, 1, 1))
    x = x.astype(np.float32)
    (actual,) = run_call(processor, call, [x])
    (expected,) = expected_outputs(OP, call, [x])
    np.testing.assert_allclose(actual, expected, rtol=2e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_sums_that_overflow_give_nearly_nothing_and_nan_stays_nan(runtime: str) -> None:
    x = np.ones((2, 7, 3, 5), np.float32)
    x[0, 3, 0, 0], x[1, 0, 1, 2] = 1e30, np.nan
    (y,) = run_call(open_opencl(runtime), normalisation(1.0), [x])
    assert abs(y[0, 2, 0, 0]) < 1e-20
    assert np.isnan(y[1, :3, 1, 2]).all()
    assert np.isfinite(y[0]).all()
    assert np.isfinite(y[1, 3:]).all()


def test_sums_that_may_be_zero_are_left_to_the_naive_kernel() -> None:
    facts = replace(open_opencl(RUNTIMES[0]).facts, unit_kind="cpu")
    assert refuse_lrn(normalisation(1.0), facts) is None
    assert refuse_lrn(normalisation(0.0), facts) is not None
