"""Exponential moving averages of parameters: evaluated and saved in their place.

Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017 (arXiv
1703.01780), whose teacher is that of a training without its second loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from coexec.core.types import Array
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import type_of

AVERAGE = "#average"
"""Behind the name of a parameter: the state that holds its average."""


def average_name(parameter: str) -> str:
    """Name of the state that holds the average of a parameter."""
    return f"{parameter}{AVERAGE}"


def append_average(g: GraphBuilder, average: ir.Value, new: ir.Value, decay: float) -> ir.Value:
    """``decay * average + (1 - decay) * new``, such that what is equal to its average stays so."""
    share = g.constant(1.0 - decay, type_of(average).dtype)
    return g.op("Add", [average, g.op("Mul", [g.op("Sub", [new, average]), share])])


def averaged(state: Mapping[str, Array]) -> dict[str, Array]:
    """States by name, averages under the names of their parameters."""
    averages = {n.removesuffix(AVERAGE): a for n, a in state.items() if n.endswith(AVERAGE)}
    return {n: averages.get(n, a) for n, a in state.items() if not n.endswith(AVERAGE)}


def with_averages(state: Mapping[str, Array], parameters: Iterable[str]) -> dict[str, Array]:
    """``state``, where averages that it lacks begin at their parameters."""
    begun = {average_name(name): state[name] for name in parameters if name in state}
    return {**begun, **state}
