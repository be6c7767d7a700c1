"""Whether a candidate computes what the oracle does, within its operator's own tolerance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import Array, OpCall
from coexec.processors.opencl.fusion.integer_operators import first_channels, layer_of
from coexec.processors.opencl.fusion.operators import LAYERS, definition

SPREAD = 4.0
"""Most rounding errors of a large tensor in root mean squares (measured: 2 at 4,608 products)."""


def disagreement(
    call: OpCall, actual: Mapping[str, Array], expected: Mapping[str, Array]
) -> str | None:
    """Where two results of ``call`` differ by more than its operator's tolerance, else ``None``.

    Two kernels add up the same products in different orders. What that makes of a sum grows with
    its terms, not with the sum, which may cancel to nothing: the absolute tolerance, meant for
    values about 1, grows with the root mean square of a tensor. Bytes may be a step apart, and
    those that fill channels up are looked at by nobody.
    """
    tolerance = definition(call).tolerance
    half = any(k is not None and k.dtype == np.float16 for k in (*call.inputs, *call.outputs))
    relative = tolerance.half_relative if half else tolerance.relative
    absolute = tolerance.half_absolute if half else tolerance.absolute
    for name, wanted in expected.items():
        found = actual[name]
        if call.identifier in LAYERS and wanted.dtype.kind != "f":
            shape = layer_of(call).core.output(0).shape
            apart = first_channels(found, shape).astype(int) - first_channels(wanted, shape)
            wrong = np.abs(apart) > absolute
        elif wanted.dtype.kind != "f":
            wrong = found != wanted
        else:
            a, e = found.astype(np.float64), wanted.astype(np.float64)
            finite = np.isfinite(e)
            level = float(np.sqrt(np.mean(e[finite] ** 2))) if finite.any() else 0.0
            wrong = ~np.isclose(a, e, relative, absolute * max(1.0, SPREAD * level), equal_nan=True)
        if np.any(wrong):
            return f"{int(np.count_nonzero(wrong))} of {wanted.size} elements of {name} differ"
    return None
