"""Calls that compute quantised layers on bytes, as they are measured: equal ones for equal times.

Scales, zero points and the values of weights change no time, and neither do names. Without them,
layers of one geometry are one call, measured once.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coexec.core.types import OpCall, Region, TensorType
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.integer_cores import DEQUANTIZE, QUANTIZE
from coexec.processors.opencl.fusion.integer_operators import BYTE, IntegerLayer, Steps, layer_of
from coexec.processors.opencl.fusion.integers import replaced_calls

STEPS = Steps(1 / 64, 128)


def integer_calls(region: Region, facts: DeviceFacts) -> dict[str, OpCall | None]:
    """What computes the nodes that become layers on bytes, by their names; nothing: another's."""
    found = replaced_calls(region, facts)
    return {name: None if call is None else as_priced(call) for name, call in found.items()}


def as_priced(call: OpCall) -> OpCall:
    """A call on bytes without what changes no time."""
    own = layer_of(call)
    core = replace(own.core, name="", constants={})
    layer = IntegerLayer(
        core,
        (STEPS,) * len(own.steps),
        STEPS,
        residual=own.residual and replace(own.residual, other=STEPS, steps=STEPS, low=0, high=255),
        kinds=own.kinds,
    )
    return replace(
        call,
        attributes={"layer": layer},
        constants={i: np.ones_like(array) for i, array in call.constants.items()},
        name="",
        like=_on_bytes(core),
    )


def _on_bytes(core: OpCall) -> OpCall:
    """The operator on floats, with bytes in place of them; conversions stay what they are."""
    if core.op_type in (QUANTIZE, DEQUANTIZE):
        return core

    def narrow(kind: TensorType | None) -> TensorType | None:
        return kind if kind is None or kind.dtype != np.float32 else TensorType(kind.shape, BYTE)

    return replace(
        core, inputs=tuple(map(narrow, core.inputs)), outputs=tuple(map(narrow, core.outputs))
    )
