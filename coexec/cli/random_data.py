"""Seeded random data for commands that measure and were given no files."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from coexec.autodiff.losses import Loss, SoftmaxCrossEntropy
from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.inputs import model_inputs
from coexec.ops.node import type_of


def require_shapes(values: Iterable[ir.Value], batch_size: int = 1) -> None:
    """Refuse inputs whose shapes are open.

    Raises:
        UsageError: with all of them, what is known of their shapes, and flags to copy, in which
            an open first axis is ``batch_size``, any other 1.
    """
    unknown = [value for value in values if value.shape is None or not value.shape.is_static()]
    if not unknown:
        return
    known = ", ".join(f"{value.name}: {_shape_text(value)}" for value in unknown)
    flags = " ".join(f"--shape {value.name}={_example(value, batch_size)}" for value in unknown)
    raise UsageError(f"open shapes ({known}); give sizes for them, as in {flags}")


def _shape_text(value: ir.Value) -> str:
    """``N x 6``; an axis without a name is ``?``."""
    if value.shape is None:
        return "of any shape"
    return " x ".join(str(d) if isinstance(d, int) else d.value or "?" for d in value.shape.dims)


def _example(value: ir.Value, batch_size: int) -> str:
    """What ``--shape`` takes; nothing can be said of one of unknown rank."""
    if value.shape is None:
        return "..."
    sizes = (batch_size, *[1] * (len(value.shape.dims) - 1))
    known = zip(value.shape.dims, sizes, strict=True)
    return "x".join(str(dim if isinstance(dim, int) else size) for dim, size in known)


def random_array(value: ir.Value, rng: np.random.Generator) -> Array:
    """Data for an input of known shape and type: normal floats, integers 0 and 1."""
    assert value.shape is not None
    assert value.dtype is not None
    dtype = np.dtype(value.dtype.numpy())
    shape = tuple(value.shape.numpy())
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def random_feeds(model: ir.Model, rng: np.random.Generator) -> dict[str, Array]:
    """Data for every input of a model.

    Raises:
        UsageError: shapes are open.
    """
    require_shapes(model_inputs(model))
    return {str(value.name): random_array(value, rng) for value in model_inputs(model)}


def random_labels(loss: Loss, model: ir.Model, rng: np.random.Generator) -> Array | None:
    """Labels that a loss accepts for what it judges of a model; none if it takes none.

    Raises:
        UsageError: the model has no such output.
    """
    output = loss.prediction(model.graph.outputs)
    if not loss.labelled:
        return None
    prediction = type_of(output)
    kind = loss.labels_type(prediction)
    if kind.dtype.kind == "f":
        return rng.random(kind.shape).astype(kind.dtype)
    axis = loss.class_axis if isinstance(loss, SoftmaxCrossEntropy) else 1
    return rng.integers(0, prediction.shape[axis], kind.shape).astype(kind.dtype)


def bind_batch(
    model: ir.Model, batch_size: int, shapes: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """``shapes`` with the open first axis of every other input set to ``batch_size``.

    Raises:
        UsageError: a shape is given for an unknown input, or other axes are open too.
    """
    names = [str(value.name) for value in model_inputs(model)]
    unknown = [name for name in shapes if name not in names]
    if unknown:
        raise UsageError(f"the model has no input {unknown}; its inputs are {names}")
    bound, others = dict(shapes), []
    for value in model_inputs(model):
        name = str(value.name)
        if name in bound or (value.shape is not None and value.shape.is_static()):
            continue
        rest = () if value.shape is None else value.shape.dims[1:]
        fixed = [dim for dim in rest if isinstance(dim, int)]
        if value.shape is None or len(fixed) < len(rest):
            others.append(value)
            continue
        bound[name] = (batch_size, *fixed)
    require_shapes(others, batch_size)
    return bound
