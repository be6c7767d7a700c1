"""Weights of quantised operators as integers again, so that an NPU or CPU computes in 8 bits.

A quantised model has its weights as integers behind a DequantizeLinear. Loading computes what is
constant ahead, which makes them floats: right for processors that compute in floats anyway, but
ONNX Runtime takes an operator as an integer one only if all around it is quantised. Symmetric 8-bit
scales are found again from the floats, and with them the very same integers. Weights that are no
multiples of such a scale (they never were integers, or had a zero point) stay floats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array
from coexec.ops.whole_weights import Quantised, quantised
from coexec.processors.ort.inline import LEAST_OPSET, Step

WEIGHTED = ("Conv", "Gemm", "MatMul")
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
MOST_BIAS = 2**31 - 1
"""Integer biases have 32 bits."""
FLOAT = np.dtype(np.float32)


def with_integer_weights(
    steps: Sequence[Step], constants: Mapping[str, Array]
) -> tuple[list[Step], dict[str, Array]]:
    """Steps in which operators between quantised values read quantised weights and biases.

    Returns them with the constants that they read.
    """
    makers = {name: step for step in steps for name in step.outputs}
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    found: list[Step] = []
    known = dict(constants)
    for step in steps:
        maker = makers.get(step.inputs[0]) if step.inputs else None
        weights = None
        if maker is not None and _is_quantised(step, maker, readers, constants):
            weights = quantised(constants[step.inputs[1]], by_channel=step.op_type == "Conv")
        if maker is None or weights is None:
            found.append(step)
        else:
            found += _with_integers(step, weights, constants[maker.inputs[1]], known)
    read = {name for step in found for name in step.inputs}
    return found, {name: array for name, array in known.items() if name in read}


def _is_quantised(
    step: Step, maker: Step, readers: Mapping[str, Sequence[Step]], constants: Mapping[str, Array]
) -> bool:
    """Between a dequantisation and quantisations, with float weights that are known."""
    return (
        step.op_type in WEIGHTED
        and maker.op_type == DEQUANTIZE
        and _is_quantised_later(step.outputs[0], readers, constants)
        and step.inputs[1] in constants
        and constants[step.inputs[1]].dtype == FLOAT
        and np.size(constants.get(maker.inputs[1], ())) == 1
    )


def _is_quantised_later(
    name: str, readers: Mapping[str, Sequence[Step]], constants: Mapping[str, Array]
) -> bool:
    """Whether all that reads a value quantises it, maybe behind a Relu that changes nothing then.

    Without such a Relu the steps are as ONNX Runtime looks for them; it takes it out itself.
    """
    after = readers.get(name, ())
    for reader in after:
        behind = readers.get(reader.outputs[0], ()) if reader.op_type == "Relu" else ()
        if reader.op_type != QUANTIZE and not (
            behind and all(is_nothing_below(each, constants) for each in behind)
        ):
            return False
    return bool(after)


def is_nothing_below(step: Step, constants: Mapping[str, Array]) -> bool:
    """Whether a step quantises with no integer for what is below 0."""
    if step.op_type != QUANTIZE:
        return False
    if len(step.inputs) < len(("value", "scale", "zero")) or not step.inputs[2]:
        return "output_dtype" not in step.attributes
    zero = constants.get(step.inputs[2])
    whole = zero is not None and zero.dtype.kind in "iu"
    return zero is not None and whole and bool((zero == np.iinfo(zero.dtype).min).all())


def _with_integers(
    step: Step, weights: Quantised, data_scale: Array, known: dict[str, Array]
) -> list[Step]:
    """Dequantisations of weight and bias, then the step that reads them; adds what is constant."""
    weight, *bias = step.inputs[1:]
    inputs = [step.inputs[0], f"{step.name}/{weight}"]
    more = [_dequantise(step, inputs[1], weights, known)]
    scale = weights.scale * data_scale.reshape(())
    whole = np.rint(known[bias[0]] / scale) if bias and bias[0] in known else None
    if whole is not None and np.abs(whole).max(initial=0.0) <= MOST_BIAS:
        inputs.append(f"{step.name}/{bias[0]}")
        more.append(_dequantise(step, inputs[2], Quantised(whole.astype(np.int32), scale), known))
    else:
        inputs += bias
    return [*more, replace(step, inputs=tuple(inputs))]


def _dequantise(step: Step, name: str, found: Quantised, known: dict[str, Array]) -> Step:
    values, scale, zero = (f"{name}/{part}" for part in ("values", "scale", "zero"))
    known[values] = found.values
    known[scale] = np.asarray(found.scale, np.float32)
    known[zero] = np.zeros(known[scale].shape, found.values.dtype)
    axis = {"axis": ir.AttrInt64("axis", 0)} if known[scale].ndim else {}
    inputs = (values, scale, zero)
    return Step(DEQUANTIZE, f"{name}/dequantise", inputs, (name,), axis, LEAST_OPSET, step.origin)
