"""What a model is fed with: its inputs, and arrays checked against them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.base.errors import DataError
from coexec.core.types import Array


def model_inputs(model: ir.Model) -> list[ir.Value]:
    """Graph inputs that are data: not the initializers that old models list there too."""
    initializers = model.graph.initializers
    return [value for value in model.graph.inputs if value.name not in initializers]


class Inputs:
    """What a model wants as inputs, looked up once for all that it is fed with.

    Its inputs must not change from then on. Those that are ``optional`` may be left out.
    """

    def __init__(self, model: ir.Model, optional: Collection[str] = ()) -> None:
        self.model = model
        self.optional = optional
        self._types = {str(value.name): _dtype_and_dims(value) for value in model_inputs(model)}

    def check(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """As :func:`check_feeds`, which is asked only where arrays have to be converted or refused.

        Raises what that raises.
        """
        wanted = self._types
        if self.optional and isinstance(feeds, dict):
            left_out = [name for name in self.optional if name not in feeds]
            wanted = {name: kind for name, kind in wanted.items() if name not in left_out}
        fast = isinstance(feeds, dict) and feeds.keys() == wanted.keys()
        if fast and all(_fits(feeds[name], *kind) for name, kind in wanted.items()):
            return {name: feeds[name] for name in wanted}
        return check_feeds(self.model, feeds, self.optional)


def _dtype_and_dims(value: ir.Value) -> tuple[np.dtype[Any] | None, tuple[int | None, ...] | None]:
    """Element type and dimensions of an input; none where the model leaves them open."""
    dtype = None if value.dtype is None else np.dtype(value.dtype.numpy())
    if value.shape is None:
        return dtype, None
    return dtype, tuple(dim if isinstance(dim, int) else None for dim in value.shape.dims)


def _fits(array: Array, dtype: np.dtype[Any] | None, dims: tuple[int | None, ...] | None) -> bool:
    """Whether an input can be taken as it is; where types are open, not all that can be are."""
    return (
        type(array) is np.ndarray
        and array.dtype == dtype
        and not array.dtype.hasobject  # strings are refused, with their name
        and array.flags.c_contiguous
        and dims is not None
        and array.ndim == len(dims)
        and all(dim is None or dim == size for dim, size in zip(dims, array.shape, strict=True))
    )


def check_feeds(
    model: ir.Model, feeds: Mapping[str, Array], optional: Collection[str] = ()
) -> dict[str, Array]:
    """``feeds`` as contiguous arrays of the model's element types, in the model's input order.

    Raises:
        DataError: an input that is not ``optional`` is missing, or one is unknown or does not fit.
    """
    inputs = {str(value.name): value for value in model_inputs(model)}
    if not isinstance(feeds, Mapping):
        raise DataError(
            f"inputs are arrays by name, not {type(feeds).__name__}; "
            f"the model's inputs are {list(inputs)}"
        )
    unknown = [name for name in feeds if name not in inputs]
    missing = [name for name in inputs if name not in feeds and name not in optional]
    if unknown or missing:
        raise DataError(
            f"inputs do not fit the model: missing {missing}, unknown {unknown}; "
            f"the model's inputs are {list(inputs)}"
        )
    given = {name: value for name, value in inputs.items() if name in feeds}
    return {name: check_array(value, feeds[name]) for name, value in given.items()}


def check_array(value: ir.Value, data: Array) -> Array:
    """``data`` in the input's element type; refuses conversions that would lose information."""
    try:
        array = np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as error:  # PyTorch's tensors raise the latter
        raise DataError(f"input {value.name!r} is no array: {error}") from error
    dtype = np.dtype(value.dtype.numpy()) if value.dtype is not None else array.dtype
    if value.dtype == ir.DataType.STRING:
        raise DataError(f"input {value.name!r} wants strings; coexec computes on numbers")
    if array.dtype.kind in "OSU":
        raise DataError(f"input {value.name!r} is {kind_text(array)}; coexec computes on numbers")
    if array.dtype != dtype:
        allowed = array.dtype.kind == dtype.kind == "f" or np.can_cast(array.dtype, dtype, "safe")
        if not allowed:
            raise DataError(
                f"input {value.name!r} wants {dtype.name}, not {array.dtype.name}; convert it first"
            )
        array = array.astype(dtype)
    if value.shape is not None:
        _check_shape(value, array)
    return np.ascontiguousarray(array).reshape(array.shape)


def kind_text(array: Array) -> str:
    """The element type in words: NumPy calls text of 21 letters ``str672``."""
    return {"U": "text", "S": "text in bytes", "O": "Python objects"}.get(
        array.dtype.kind, array.dtype.name
    )


def _check_shape(value: ir.Value, array: Array) -> None:
    assert value.shape is not None
    expected = tuple(value.shape.dims)
    fits = len(expected) == array.ndim and all(
        not isinstance(dim, int) or dim == size
        for dim, size in zip(expected, array.shape, strict=False)
    )
    if not fits:
        text = "x".join(str(dim if isinstance(dim, int) else dim.value or "?") for dim in expected)
        given = "x".join(map(str, array.shape))
        raise DataError(f"input {value.name!r} wants shape {text}, the data has {given}")
