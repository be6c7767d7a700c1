"""Seeded random data for commands that measure and were given no files."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.autodiff.losses import Loss, SoftmaxCrossEntropy
from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.inputs import model_inputs
from coexec.ops.node import type_of


def random_array(value: ir.Value, rng: np.random.Generator) -> Array:
    """Data for an input of known shape and type: normal floats, integers 0 and 1.

    Raises:
        UsageError: its shape is open.
    """
    if value.shape is None or not value.shape.is_static() or value.dtype is None:
        raise UsageError(f"input {value.name!r} has an open shape; give --shape {value.name}=...")
    dtype = np.dtype(value.dtype.numpy())
    shape = tuple(value.shape.numpy())
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def random_feeds(model: ir.Model, rng: np.random.Generator) -> dict[str, Array]:
    """Data for every input of a model."""
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
        UsageError: a shape is given for an unknown input, or another axis is open too.
    """
    names = [str(value.name) for value in model_inputs(model)]
    unknown = [name for name in shapes if name not in names]
    if unknown:
        raise UsageError(f"the model has no input {unknown}; its inputs are {names}")
    bound = dict(shapes)
    for value in model_inputs(model):
        name = str(value.name)
        if name in bound or value.shape is None or value.shape.is_static():
            continue
        dims = [
            batch_size if i == 0 and not isinstance(d, int) else d
            for i, d in enumerate(value.shape.dims)
        ]
        if not all(isinstance(dim, int) for dim in dims):
            raise UsageError(f"input {name!r} has open axes; give --shape {name}=...")
        bound[name] = tuple(int(str(dim)) for dim in dims)
    return bound
