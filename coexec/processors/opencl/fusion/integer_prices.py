"""Calls that compute quantised layers on bytes, as they are measured: equal ones for equal times.

Scales, zero points and the values of weights change no time, and neither do names. Without them,
layers of one geometry are one call, measured once.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coexec.core.types import OpCall, Region, TensorType
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.integer_cores import DEQUANTIZE, QUANTIZE, as_convolution
from coexec.processors.opencl.fusion.integer_operators import (
    BYTE,
    CONV,
    DEQUANTISE,
    QUANTISE,
    IntegerLayer,
    Steps,
    layer_of,
    stored_type,
)
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


def share_on_bytes(made: OpCall, share: OpCall) -> OpCall | None:
    """What computes ``share``, a part of a node on floats that ``made`` computes all of.

    ``made`` is a layer with channels last, the result a call as :func:`as_priced` gives it. None
    where a share of a linear layer is no convolution.
    """
    heavy = made.identifier == CONV.identifier
    core = as_convolution(share) if heavy else share
    if core is None:
        return None
    core = replace(core, name="", constants={})
    result = stored_type(core.output(0).shape)
    kinds = [kind for kind in core.inputs if kind is not None]
    constants = {}
    if made.identifier == QUANTISE.identifier:
        kinds = kinds[:1]
    elif made.identifier == DEQUANTISE.identifier:
        kinds, result = [result], core.output(0)
    elif heavy:
        channels = (result.shape[-1],)
        for i, shape in enumerate((core.input(1).shape, channels, channels), 1):
            constants[i] = np.ones(shape, made.constants[i].dtype)
        residual = [result] if layer_of(made).residual is not None else []
        known = map(TensorType.of, constants.values())
        kinds = [stored_type(kinds[0].shape), *known, *residual]
    else:
        kinds = [stored_type(kind.shape) for kind in kinds]
    return replace(
        made,
        inputs=tuple(kinds),
        attributes={"layer": replace(layer_of(made), core=core)},
        outputs=(result,),
        constants=constants,
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
