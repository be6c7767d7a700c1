"""How nodes that read shares of a batch are divided themselves: into shares again, or into sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from coexec.base.window import Window
from coexec.core.types import OpCall
from coexec.ops.contraction import contractions
from coexec.ops.reduce import keeps_dims, reduce_axes
from coexec.ops.split import CannotSplit
from coexec.ops.split_rules import way


@dataclass(frozen=True)
class Divided:
    """A value in shares along an axis: by processor, its elements ``bounds`` and the value."""

    axis: int
    bounds: Mapping[str, tuple[int, int]]
    values: Mapping[str, ir.Value]


@dataclass(frozen=True)
class Way:
    """How a node is divided: the axis of each operand that is, and its result's.

    None: each share has a summand of the result, or of each result if there are several.
    """

    operands: Mapping[int, int]
    axis: int | None
    bounds: Mapping[str, tuple[int, int]]


def find_way(call: OpCall, divided: Mapping[int, Divided]) -> Way | None:
    """How a call with these divided operands (one at least) is divided, if a rule does it."""
    if not call.has_output(0):
        return None
    used = [kind for kind in call.outputs if kind is not None]
    along = _along(call, divided) if len(used) == 1 else None
    return along or _summed(call, divided)


def results_of(node: ir.Node) -> list[ir.Value]:
    """The results of a node that has a way: the first, or all of which it makes summands."""
    return [value for value in node.outputs if value.name]


def is_reduction(call: OpCall) -> bool:
    """Whether a call reduces axes (ReduceSum, ReduceMean, ...)."""
    return not call.domain and call.op_type.startswith("Reduce")


def _along(call: OpCall, divided: Mapping[int, Divided]) -> Way | None:
    """Shares of the result of shares of the operands."""
    first = next(iter(divided.values()))
    if call.identifier == "Reshape":
        return _reshape(call, first) if 0 in divided else None
    if is_reduction(call):
        axes = reduce_axes(call)
        if first.axis in axes:
            return None
        before = 0 if keeps_dims(call) else sum(axis < first.axis for axis in axes)
        return Way({0: first.axis}, first.axis - before, first.bounds)
    for axis in range(call.output(0).rank):
        try:
            how = way(call, axis)
        except CannotSplit:
            continue
        windows = {i: w for i, w in enumerate(how.windows) if w is not None}
        plain = how.quantum == 1 and all(_plain(window) for window in windows.values())
        axes_read = {i: window.axis for i, window in windows.items()}
        if plain and _agree(divided, axes_read):
            return Way(axes_read, axis, first.bounds)
    return None


def _reshape(call: OpCall, share: Divided) -> Way | None:
    """Samples stay together if the first axis of the result is made of whole ones."""
    rows, out = call.input(0).shape[0], call.output(0).shape
    sizes = [stop - start for start, stop in share.bounds.values()]
    fits = bool(out) and share.axis == 0 and all(out[0] * size % rows == 0 for size in sizes)
    return Way({0: 0}, 0, share.bounds) if fits else None


def _summed(call: OpCall, divided: Mapping[int, Divided]) -> Way | None:
    """Partial sums of shares of the operands."""
    for axes in contractions(call):
        if _agree(divided, axes):
            return Way(axes, None, next(iter(divided.values())).bounds)
    return None


def _plain(window: Window) -> bool:
    """Whether element i is read for result i."""
    return (window.step, window.before, window.reach) == (1, 0, 1)


def _agree(divided: Mapping[int, Divided], axes: Mapping[int, int]) -> bool:
    """Whether all divided operands are read along the axes and in the shares that they have."""
    same = all(axes.get(index) == known.axis for index, known in divided.items())
    return same and len({tuple(known.bounds.items()) for known in divided.values()}) == 1
