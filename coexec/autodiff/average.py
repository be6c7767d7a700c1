"""Exponential moving averages of parameters: evaluated and saved in their place.

Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017 (arXiv
1703.01780), whose teacher is that of a training without its second loss.

Averages of float16 parameters are kept in float32: what a step adds to them is far below the
spacing of float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of

AVERAGE = "#average"
"""Behind the name of a parameter: the state that holds its average."""
SINGLE = np.dtype(np.float32)


def average_name(parameter: str) -> str:
    """Name of the state that holds the average of a parameter."""
    return f"{parameter}{AVERAGE}"


def begun(parameter: Array) -> Array:
    """The first value of a parameter's average, in the average's own type."""
    return parameter.astype(average_type(TensorType.of(parameter)).dtype)


def average_type(parameter: TensorType) -> TensorType:
    """The type of a parameter's average: float32 at least."""
    narrow = parameter.dtype.itemsize < SINGLE.itemsize
    return TensorType(parameter.shape, SINGLE if narrow else parameter.dtype)


def append_average(g: GraphBuilder, average: ir.Value, new: ir.Value, decay: float) -> ir.Value:
    """``decay * average + (1 - decay) * new``, such that what is equal to its average stays so."""
    dtype = type_of(average).dtype
    share = g.constant(1.0 - decay, dtype)
    new = new if type_of(new).dtype == dtype else g.op("CastLike", [new, average])
    return g.op("Add", [average, g.op("Mul", [g.op("Sub", [new, average]), share])])


def averaged(state: Mapping[str, Array]) -> dict[str, Array]:
    """States by name, averages under the names of their parameters."""
    parameters = {n: a for n, a in state.items() if not n.endswith(AVERAGE)}
    averages = {n: state[average_name(n)] for n in parameters if average_name(n) in state}
    return parameters | {n: a.astype(parameters[n].dtype) for n, a in averages.items()}


def with_averages(state: Mapping[str, Array], parameters: Iterable[str]) -> dict[str, Array]:
    """``state``, where averages that it lacks begin at their parameters."""
    new = {average_name(name): begun(state[name]) for name in parameters if name in state}
    return {**new, **state}
