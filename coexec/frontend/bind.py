"""Static types of the graph inputs, from the shapes and values a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from coexec.base.errors import DataError, ModelError, ShapeError
from coexec.core.types import Array, TensorType
from coexec.ops.node import set_type

Shape = Sequence[int]


def bind_inputs(graph: ir.Graph, shapes: Mapping[str, Shape], values: Mapping[str, Array]) -> None:
    """Make the type of every graph input static, in place.

    A given shape must agree with the declared one in rank and fixed dimensions; a symbolic
    dimension takes one size throughout the model, so it also completes inputs that are not
    named. An input with a given value gets its type, and the value as ``const_value``.
    ``ShapeError`` names the input; ``DataError`` a value of another element type.
    """
    given = {name: tuple(int(d) for d in shape) for name, shape in shapes.items()}
    given |= {name: np.shape(array) for name, array in values.items()}
    _check_names(graph, given)
    sizes: dict[str, tuple[int, str]] = {}
    for value in graph.inputs:
        if value.name in given:
            _unify(value, given[value.name], sizes)
    bound = {value: _bound_shape(value, given, sizes) for value in graph.inputs}
    missing = [value for value, shape in bound.items() if shape is None]
    if missing:
        raise ShapeError(_missing_text(missing))
    for value, shape in bound.items():
        assert shape is not None
        set_type(value, TensorType(shape, _dtype(value)))
        if value.name is not None and value.name in values:
            _set_value(value, values[value.name])


def declare_shapes(graph: ir.Graph, shapes: Mapping[str, Shape]) -> None:
    """Write given shapes, and what they say about symbolic dimensions, into the graph inputs.

    Inputs that stay open are left to be bound later. ``ShapeError`` as for :func:`bind_inputs`.
    """
    given = {name: tuple(int(d) for d in shape) for name, shape in shapes.items()}
    _check_names(graph, given)
    sizes: dict[str, tuple[int, str]] = {}
    for value in graph.inputs:
        if value.name is not None and value.name in given:
            _unify(value, given[value.name], sizes)
            value.shape = ir.Shape(given[value.name])
    for value in graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_size(dim, sizes) for dim in value.shape])


def _size(dim: int | ir.SymbolicDim, sizes: Mapping[str, tuple[int, str]]) -> int | ir.SymbolicDim:
    """What a dimension is bound to; itself where it is open."""
    if isinstance(dim, int) or dim.value is None:
        return dim
    return sizes[dim.value][0] if dim.value in sizes else dim


def is_bound(graph: ir.Graph, shapes: Mapping[str, Shape]) -> bool:
    """Whether ``shapes`` and the declared shapes leave no graph input open."""
    known = {
        dim.value
        for value in graph.inputs
        if value.name in shapes and value.shape is not None
        for dim in value.shape
        if isinstance(dim, ir.SymbolicDim)
    } - {None}
    return all(
        value.name in shapes or (value.shape is not None and _closed(value.shape, known))
        for value in graph.inputs
    )


def _closed(shape: ir.Shape, known: set[str | None]) -> bool:
    return all(isinstance(dim, int) or dim.value in known for dim in shape)


def _check_names(graph: ir.Graph, given: Mapping[str, Shape]) -> None:
    names = [value.name for value in graph.inputs]
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ShapeError(
            f"no input is named {', '.join(map(repr, unknown))}; "
            f"the model's inputs are {', '.join(map(repr, names))}"
        )


def _unify(value: ir.Value, shape: tuple[int, ...], sizes: dict[str, tuple[int, str]]) -> None:
    """Match a given shape against the declared one and note what symbolic dimensions become."""
    text = "x".join(map(str, shape)) or "scalar"
    if any(d < 0 for d in shape):
        raise ShapeError(f"input {value.name!r}: negative dimension in {text}")
    if value.shape is None:
        return
    declared = f"input {value.name!r} is {_text(value.shape)}, given {text}"
    if len(value.shape) != len(shape):
        raise ShapeError(f"{declared}: the rank differs")
    for axis, (dim, size) in enumerate(zip(value.shape, shape, strict=True)):
        if isinstance(dim, int) and dim != size:
            raise ShapeError(f"{declared}: dimension {axis} must be {dim}")
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
            first, name = sizes.setdefault(dim.value, (size, value.name or ""))
            if first != size:
                raise ShapeError(
                    f"{declared}: dimension {dim.value!r} is already {first} (input {name!r})"
                )


def _bound_shape(
    value: ir.Value, given: Mapping[str, Shape], sizes: Mapping[str, tuple[int, str]]
) -> tuple[int, ...] | None:
    if value.name is not None and value.name in given:
        return tuple(given[value.name])
    if value.shape is None:
        return None
    dims = [_size(dim, sizes) for dim in value.shape]
    known = tuple(dim for dim in dims if isinstance(dim, int))
    return known if len(known) == len(dims) else None


def _missing_text(missing: Sequence[ir.Value]) -> str:
    lines = [f"  {value.name}: {_text(value.shape)}" for value in missing]
    flags = " ".join(f"--shape {value.name}={_hint(value.shape)}" for value in missing)
    return "\n".join(["the shapes of these inputs are not known:", *lines, f"give them: {flags}"])


def _hint(shape: ir.Shape | None) -> str:
    return "..." if shape is None else "x".join(str(d) for d in shape).replace("None", "?")


def _text(shape: ir.Shape | None) -> str:
    return "of unknown rank" if shape is None else f"[{_hint(shape).replace('x', ', ')}]"


def _dtype(value: ir.Value) -> np.dtype[np.generic]:
    if not isinstance(value.type, ir.TensorType):
        raise ModelError(f"input {value.name!r} is {value.type}; coexec computes on tensors")
    if value.type.dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"input {value.name!r} has no element type")
    return np.dtype(value.type.dtype.numpy())


def _set_value(value: ir.Value, array: Array) -> None:
    if np.asarray(array).dtype != _dtype(value):
        raise DataError(
            f"input {value.name!r} is {_dtype(value).name}, given {np.asarray(array).dtype.name}"
        )
    value.const_value = ir.Tensor(np.asarray(array), name=value.name)
