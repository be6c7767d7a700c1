"""Operators of ``ai.onnx.ml`` that are arithmetic on vectors of numbers, as standard ones.

scikit-learn's converter writes scalers and linear models so, and the labels behind networks.
Forms and defaults are those of ONNX's docs/Operators-ml.md; trees, kernels and strings have none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coexec.frontend.operands import NOT_COVERED, Results, Rewrite, required
from coexec.frontend.rewrite import Emitter

LAST = -1


def _floats(node: ir.Node, name: str) -> list[float]:
    attribute = node.attributes.get(name)
    return [] if attribute is None else [float(value) for value in attribute.as_floats()]


def _text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def _is_matrix(value: ir.Value) -> bool:
    """Whether rows are rows of a matrix, as they are where no shape is known yet."""
    return value.shape is None or value.shape.rank() == 2


def _single(node: ir.Node, emit: Emitter) -> ir.Value:
    """The first operand in float32, which the results of these operators have."""
    return emit.op("Cast", [required(node, 0)], {"to": ir.DataType.FLOAT.value})


def scaler(node: ir.Node, emit: Emitter) -> Results:
    """Scaler: (x - offset) * scale, each one number or one for each column."""
    y = _single(node, emit)
    for name, op_type in (("offset", "Sub"), ("scale", "Mul")):
        numbers = _floats(node, name)
        if numbers:
            y = emit.op(op_type, [y, emit.constant(numbers, np.float32)])
    return (y,)


def binarizer(node: ir.Node, emit: Emitter) -> Results:
    """Binarizer: 1 where x is above the threshold, else 0."""
    limit = node.attributes.get("threshold")
    threshold = emit.constant(0.0 if limit is None else limit.as_float(), np.float32)
    above = emit.op("Greater", [_single(node, emit), threshold])
    return (emit.op("Cast", [above], {"to": ir.DataType.FLOAT.value}),)


def normalizer(node: ir.Node, emit: Emitter) -> Results:
    """Normalizer: rows over their largest element, their L1 or their L2 norm; zeros stay."""
    kinds = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}
    kind = kinds.get(_text(node, "norm", "MAX"))
    if kind is None or not _is_matrix(required(node, 0)):
        return NOT_COVERED
    x = _single(node, emit)
    norm = emit.op(kind, [x, emit.ints([LAST])], {"keepdims": 1})
    none = emit.op("Equal", [norm, emit.constant(0.0, np.float32)])
    divisor = emit.op("Where", [none, emit.constant(1.0, np.float32), norm])
    return (emit.op("Div", [x, divisor]),)


def _linear(node: ir.Node, emit: Emitter, targets: int) -> ir.Value | None:
    """x times the transposed coefficients, plus intercepts: float32 (rows, targets)."""
    coefficients = np.array(_floats(node, "coefficients"), np.float32)
    intercepts = _floats(node, "intercepts")
    fits = targets > 0 and coefficients.size > 0 and coefficients.size % targets == 0
    if not fits or not _is_matrix(required(node, 0)):
        return None
    weights = np.ascontiguousarray(coefficients.reshape(targets, -1).T)
    y = emit.op("MatMul", [_single(node, emit), emit.constant(weights, np.float32)])
    return emit.op("Add", [y, emit.constant(intercepts, np.float32)]) if intercepts else y


def linear_regressor(node: ir.Node, emit: Emitter) -> Results:
    """LinearRegressor without a transformation of its result."""
    if _text(node, "post_transform", "NONE") != "NONE":
        return NOT_COVERED
    targets = node.attributes.get("targets")
    y = _linear(node, emit, 1 if targets is None else targets.as_int())
    return NOT_COVERED if y is None else (y,)


def linear_classifier(node: ir.Node, emit: Emitter) -> Results:
    """LinearClassifier with a score for each of its whole-number labels: label, scores."""
    labels = node.attributes.get("classlabels_ints")
    classes = [] if labels is None else [int(value) for value in labels.as_ints()]
    transform = _text(node, "post_transform", "NONE")
    if len(classes) < 2 or transform not in ("NONE", "LOGISTIC", "SOFTMAX"):
        return NOT_COVERED
    intercepts = len(_floats(node, "intercepts"))
    scores = _linear(node, emit, len(classes)) if intercepts in (0, len(classes)) else None
    if scores is None:
        return NOT_COVERED
    best = emit.op("ArgMax", [scores], {"axis": LAST, "keepdims": 0})
    label = emit.op("Gather", [emit.ints(classes), best], {"axis": 0})
    if transform == "LOGISTIC":
        scores = emit.op("Sigmoid", [scores])
    if transform == "SOFTMAX":
        scores = emit.op("Softmax", [scores], {"axis": LAST})
    return label, scores


def array_feature_extractor(node: ir.Node, emit: Emitter) -> Results:
    """ArrayFeatureExtractor: elements of the last axis; one row of them of a vector."""
    x, places = required(node, 0), required(node, 1)
    if x.shape is None or x.shape.rank() == 0:
        return NOT_COVERED
    line = emit.op("Reshape", [places, emit.ints([LAST])])
    y = emit.op("Gather", [x, line], {"axis": LAST})
    return (emit.op("Reshape", [y, emit.ints([1, LAST])]) if x.shape.rank() == 1 else y,)


OF_CLASSICAL: Mapping[str, Rewrite] = {
    "ArrayFeatureExtractor": array_feature_extractor,
    "Binarizer": binarizer,
    "LinearClassifier": linear_classifier,
    "LinearRegressor": linear_regressor,
    "Normalizer": normalizer,
    "Scaler": scaler,
}
"""By operator of ``ai.onnx.ml``."""
