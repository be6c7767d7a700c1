"""Inputs that are indices into tables of the model, held against how long these are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from coexec.base.errors import DataError
from coexec.core.types import Array

SAME_VALUES = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""Operators whose results hold the values of their first operand."""


def check_indices(model: ir.Model, arrays: Mapping[str, Array], what: str) -> None:
    """Refuse indices that ``Gather`` has no entry for: kernels, which cannot raise, read zeros.

    ``arrays`` are inputs of the model by name, of any number of samples; ``what`` they are is told.

    Raises:
        DataError: an input has such values; it, they and the node are named.
    """
    for value in model.graph.inputs:
        array = arrays.get(str(value.name))
        if array is None or not array.size or array.dtype.kind not in "iu":
            continue
        low, high = int(array.min()), int(array.max())
        for node, entries in _tables(value):
            if low < -entries or high >= entries:
                raise DataError(
                    f"{what}: input {value.name!r} ranges from {low} to {high}, but Gather "
                    f"{node.name!r} looks it up in {entries} entries (0 to {entries - 1})"
                )


def _tables(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Nodes that look ``value`` up in what they read first, and how many entries that has."""
    for node, position in value.uses():
        if node.op_type == "Gather" and position == 1:
            axis = node.attributes.get_int("axis", 0)
            table = node.inputs[0]
            shape = None if table is None else table.shape
            if shape is not None and isinstance(shape[axis], int):
                yield node, int(str(shape[axis]))
        elif node.op_type in SAME_VALUES and position == 0:
            yield from _tables(node.outputs[0])
