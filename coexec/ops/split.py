"""How one call of an operator divides into shares: each computes a run of its result's elements.

A :class:`Way` says for one axis of the result what a share reads of each operand, and which
attributes it has. Placement costs shares by it, and the pass ``split_operator`` makes them nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coexec.base.window import Window
from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.table import OPERATORS

Changes = Callable[[int, int], Mapping[str, Any]]
Operands = Callable[[int, int], Mapping[int, Array]]
VERSION = 21
"""Opset of the calls that cut and join."""


class CannotSplit(ValueError):
    """Why a call does not divide along an axis."""


def unchanged(_start: int, _stop: int) -> Mapping[str, Any]:
    """Shares have the call's own attributes."""
    return {}


def as_read(_start: int, _stop: int) -> Mapping[int, Array]:
    """Shares have parts of the call's own operands only."""
    return {}


@dataclass(frozen=True)
class Way:
    """Shares along ``axis`` of the result, of ``count`` units with ``quantum`` elements each.

    Where a call has several results, all of them are divided so. ``windows`` tells what units read
    of each operand; ``None``: all of it, whatever the share. ``changes`` gives the attributes that
    a share of units ``start`` to ``stop`` has of its own, ``operands``, by number, the constants
    that it has in place of the call's (a shape).
    """

    axis: int
    count: int
    windows: tuple[Window | None, ...]
    quantum: int = 1
    changes: Changes = unchanged
    operands: Operands = as_read

    def units(self, start: int, stop: int) -> tuple[int, int]:
        """Elements ``start`` to ``stop`` of the axis as units.

        Raises:
            CannotSplit: a bound within a unit, or nothing in between.
        """
        if start % self.quantum or stop % self.quantum:
            raise CannotSplit(f"shares {start} to {stop} are no multiples of {self.quantum}")
        if not 0 <= start < stop <= self.count * self.quantum:
            raise CannotSplit(f"no elements {start} to {stop} of {self.count * self.quantum}")
        return start // self.quantum, stop // self.quantum

    def overlapping(self, start: int, stop: int, overlap: tuple[int, int]) -> tuple[int, int]:
        """Units ``start`` to ``stop`` with so many elements before them and behind them."""
        before, behind = (elements // self.quantum for elements in overlap)
        return max(start - before, 0), min(stop + behind, self.count)

    def span(self, operand: int, start: int, stop: int) -> tuple[Window, int, int] | None:
        """What units ``start`` to ``stop`` read of an operand; ``None``: all of it."""
        window = self.windows[operand]
        return None if window is None else (window, *window.span(start, stop))


def share_call(call: OpCall, way: Way, start: int, stop: int) -> OpCall:
    """The call that computes units ``start`` to ``stop`` of ``call``."""
    inputs = list(call.inputs)
    constants: dict[int, Array] = dict(call.constants)
    for index, kind in enumerate(call.inputs):
        read = way.span(index, start, stop)
        if kind is None or read is None:
            continue
        window, first, last = read
        inputs[index] = _cut(kind, window.axis, last - first)
        if index in constants:
            place = (*[slice(None)] * window.axis, slice(first, last))
            constants[index] = constants[index][place]
    for index, array in way.operands(start, stop).items():
        inputs[index], constants[index] = TensorType.of(array), array
    share = replace(
        call,
        inputs=tuple(inputs),
        attributes={**call.attributes, **way.changes(start, stop)},
        outputs=(),
        constants=constants,
    )
    return OPERATORS[call.identifier].typed(share)


def cut_call(kind: TensorType, axis: int, start: int, stop: int) -> OpCall:
    """The call that cuts elements ``start`` to ``stop`` of an axis out of a tensor."""
    bounds = [np.array([number], np.int64) for number in (start, stop, axis)]
    inputs = (kind, *map(TensorType.of, bounds))
    call = OpCall("Slice", inputs, constants=dict(enumerate(bounds, 1)), version=VERSION)
    return OPERATORS["Slice"].typed(call)


def join_call(parts: Sequence[TensorType], axis: int) -> OpCall:
    """The call that joins tensors along an axis."""
    call = OpCall("Concat", tuple(parts), {"axis": axis}, version=VERSION)
    return OPERATORS["Concat"].typed(call)


def _cut(kind: TensorType, axis: int, size: int) -> TensorType:
    return kind.with_shape((*kind.shape[:axis], size, *kind.shape[axis + 1 :]))
