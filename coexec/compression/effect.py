"""What compressing a model changed: its size, its work, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from coexec.base.errors import DataError
from coexec.compression.techniques import batches
from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.frontend import load
from coexec.frontend.bind import Shape
from coexec.frontend.specialise import specialise
from coexec.inputs import kind_text
from coexec.ops.node import CONSTANT_MARK, call_of
from coexec.ops.table import opdef
from coexec.passes.clean import clean
from coexec.passes.fold_for_inference import fold_for_inference
from coexec.session import Session


@dataclass(frozen=True)
class Size:
    """What a model costs: ``parameters`` and ``weight_bytes`` in its file; per run the rest.

    ``flop`` and ``moved_bytes`` (the least memory traffic, operator by operator) are those of what
    coexec executes, with batch normalisations folded and changes between floats and integers.
    """

    parameters: int
    weight_bytes: int
    flop: int
    moved_bytes: int


def file_bytes(path: Path) -> int:
    """Bytes of an ONNX file, with those of the files beside it in which its weights lie."""
    weights = (value.const_value for value in ir.load(path).graph.initializers.values())
    beside = {Path(each.path) for each in weights if isinstance(each, ir.ExternalTensor)}
    return sum(each.stat().st_size for each in (path, *beside))


def size_of(model: ir.Model, shapes: Mapping[str, Shape]) -> Size:
    """Size of a model with inputs of these shapes.

    Raises:
        ShapeError: an input's shape stays open.
    """
    weights = [
        value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None and CONSTANT_MARK not in value.metadata_props
    ]
    static = specialise(load(model), shapes, fold_parameters=True)
    fold_for_inference(static)
    clean(static)
    calls = [call_of(node) for node in static.graph]
    works = [opdef(call).work(call) for call in calls]
    return Size(
        parameters=sum(weight.size for weight in weights),
        weight_bytes=sum(weight.nbytes for weight in weights),
        flop=sum(work.flop for work in works),
        moved_bytes=sum(work.bytes for work in works),
    )


def predict(
    model: ir.Model, inputs: Mapping[str, Array], processors: Mapping[str, Processor]
) -> Array:
    """First output for all samples of ``inputs``, computed in batches: (samples, ...).

    Raises:
        DataError: inputs that do not fit the model.
    """
    session = Session(load(model), processors)
    output = str(model.graph.outputs[0].name)
    count = len(next(iter(inputs.values())))
    parts = batches(session.model, inputs, np.arange(count))
    return np.concatenate([session.run(part, [output])[output] for part in parts])[:count]


def accuracy(prediction: Array, labels: Array) -> float:
    """Share of samples whose largest entry along axis 1 is the label.

    Raises:
        DataError: labels that are no class for each sample.
    """
    answers = _classes(prediction)
    if labels.shape != answers.shape or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {kind_text(labels)}{labels.shape}, not classes as integers {answers.shape}"
        )
    classes = prediction.shape[1]
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(
            f"labels range from {labels.min()} to {labels.max()}, but the model has {classes} "
            f"classes (0 to {classes - 1})"
        )
    return float((answers == labels).mean())


def agreement(one: Array, other: Array) -> float:
    """Share of samples for which two predictions choose the same class (axis 1)."""
    return float((_classes(one) == _classes(other)).mean())


def _classes(prediction: Array) -> Array:
    if prediction.ndim < 2:
        raise DataError(f"a prediction {prediction.shape} has no classes on axis 1")
    return np.asarray(prediction.argmax(1))
