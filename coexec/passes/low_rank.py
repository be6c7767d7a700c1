"""Write weight matrices as products of two smaller ones: an operator becomes two, with less work.

The truncated singular value decomposition is the best approximation of a matrix by one of lower
rank (Eckart and Young, 1936). A k x k convolution becomes a k x k convolution to ``rank`` channels
and a 1 x 1 convolution (Zhang and others, "Accelerating very deep convolutional networks for
classification and detection", 2016), a matrix product two matrix products.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.base.errors import UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from coexec.ops.node import known_type, set_type
from coexec.passes.fold_batch_norm import constant, set_input

RankRule = Callable[[Array, int, int], int]
"""Rank for singular values (largest first) of a matrix of so many rows and columns."""

WINDOW = ("strides", "pads", "dilations", "auto_pad", "group")
"""Attributes that the 1 x 1 convolution does not have."""


@dataclass(frozen=True)
class Factorised:
    """A node that became two: FLOP and weights are ``share`` of what they were.

    ``energy`` is the part of the squared singular values that was kept.
    """

    node: str
    op_type: str
    full_rank: int
    rank: int
    share: float
    energy: float


def by_cost(share: float) -> RankRule:
    """Two matrices of at most ``share`` of the elements of the one.

    Raises:
        UsageError: the share is not between 0 and 1.
    """
    _require_share(share)
    return lambda values, rows, columns: int(share * rows * columns / (rows + columns))


def by_energy(share: float) -> RankRule:
    """The lowest rank that keeps ``share`` of the sum of the squared singular values.

    Raises:
        UsageError: the share is not between 0 and 1.
    """
    _require_share(share)

    return lambda values, _rows, _columns: bisect.bisect_left(_kept(values), share) + 1


def factorise(model: ir.Model, rank_of: RankRule) -> list[Factorised]:
    """Divide Conv, Gemm and MatMul with constant weights in two wherever work falls; in place.

    Grouped convolutions, weights that several nodes read and weights that a run may change stay.
    The node that makes the result keeps its name and its bias. Returns what was done.
    """
    builder = GraphBuilder(model.graph, "forward")
    found = [_factorise(node, rank_of, builder) for node in list(model.graph)]
    return [each for each in found if each is not None]


def _factorise(node: ir.Node, rank_of: RankRule, builder: GraphBuilder) -> Factorised | None:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    array = constant(weight)
    if weight is None or array is None or not _divisible(node, weight, array):
        return None
    matrix = _as_matrix(node, array)
    rows, columns = matrix.shape
    values, vectors = _spectrum(matrix)
    rank = max(1, rank_of(values, rows, columns))
    share = rank * (rows + columns) / (rows * columns)
    if share >= 1:
        return None
    _replace(node, weight, array, _factors(matrix, values[:rank], vectors[:, :rank]), builder)
    return Factorised(
        str(node.name), node.op_type, len(values), rank, share, _kept(values)[rank - 1]
    )


def _spectrum(matrix: Array) -> tuple[Array, Array]:
    """Singular values, largest first, and as columns the singular vectors of the shorter side.

    By the eigenvalues of the matrix times its transpose: many times faster than a full
    decomposition where one side is long, and far more exact than float32 weights are.
    """
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares, vectors = np.linalg.eigh(short @ short.T)
    return np.sqrt(np.maximum(squares[::-1], 0.0)), vectors[:, ::-1]


def _factors(matrix: Array, values: Array, vectors: Array) -> tuple[Array, Array]:
    """The matrix projected on these vectors, as (inner, outer): outer @ inner is the projection.

    Both get the root of the singular values, so that gradients in training are of one size.
    """
    roots = np.sqrt(np.maximum(values, values[0] * np.finfo(np.float32).eps))
    roots = np.where(roots > 0, roots, 1.0)
    if matrix.shape[0] <= matrix.shape[1]:
        return vectors.T @ matrix / roots[:, None], vectors * roots
    return vectors.T * roots[:, None], matrix @ vectors / roots


def _kept(values: Array) -> list[float]:
    """Part of the sum of squares that the first 1, 2, ... values hold; all of it for zeros."""
    sums = np.cumsum(values**2)
    shares = sums / sums[-1] if sums[-1] > 0 else np.ones_like(sums)
    return [float(share) for share in shares]


def _divisible(node: ir.Node, weight: ir.Value, array: Array) -> bool:
    """Whether this is a product with a matrix of its own."""
    if node.domain or array.dtype.kind != "f" or len(tuple(weight.uses())) != 1:
        return False
    if weight.is_graph_output():
        return False
    if node.op_type == "Conv":
        return array.ndim > 2 and node.attributes.get_int("group", 1) == 1
    return node.op_type in ("Gemm", "MatMul") and array.ndim == 2


def _as_matrix(node: ir.Node, array: Array) -> Array:
    """Weights as (outputs, inputs), float64."""
    if node.op_type == "Conv":
        return array.reshape(len(array), -1).astype(np.float64)
    return (array if _is_transposed(node) else array.T).astype(np.float64)


def _is_transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))


def _replace(
    node: ir.Node,
    weight: ir.Value,
    array: Array,
    factors: tuple[Array, Array],
    builder: GraphBuilder,
) -> None:
    """Put a node of the first factor in front of ``node``, which gets the second one."""
    first, second = (
        _like(node, array, factor, last)
        for factor, last in zip(factors, (False, True), strict=True)
    )
    inner = builder.initializer(f"{weight.name}.first", first)
    outer = builder.initializer(f"{weight.name}.second", second)
    front = ir.node(
        node.op_type,
        [node.inputs[0], inner],
        {a.name: ir.Attr(a.name, a.type, a.value) for a in node.attributes.values()},
        name=builder.name(f"{node.name}.first"),
        version=node.version,
    )
    for name in ("alpha", "beta"):
        front.attributes.pop(name, None)
    for name in (*WINDOW, "transA"):
        node.attributes.pop(name, None)
    if node.op_type == "Conv":
        node.attributes.add(ir.AttrInt64s("kernel_shape", [1] * (array.ndim - 2)))
    middle = front.outputs[0]
    middle.name = builder.name(f"{front.name}:0")
    _set_middle_type(middle, node, len(factors[0]))
    builder.graph.insert_before(node, front)
    set_input(node, 0, middle)
    set_input(node, 1, outer)
    builder.graph.initializers.pop(str(weight.name), None)


def _like(node: ir.Node, array: Array, factor: Array, last: bool) -> Array:
    """A factor (outputs, inputs) in the layout and element type of the node's weights."""
    if node.op_type == "Conv":
        window = (1,) * (array.ndim - 2) if last else array.shape[2:]
        factor = factor.reshape(len(factor), -1, *window)
    elif not _is_transposed(node):
        factor = factor.T
    return np.ascontiguousarray(factor, array.dtype)


def _set_middle_type(middle: ir.Value, node: ir.Node, rank: int) -> None:
    """The result's type with ``rank`` channels, where it is known."""
    kind = known_type(node.outputs[0])
    if kind is not None:
        axis = 1 if node.op_type == "Conv" else kind.rank - 1
        shape = (*kind.shape[:axis], rank, *kind.shape[axis + 1 :])
        set_type(middle, TensorType(shape, kind.dtype))


def _require_share(share: float) -> None:
    if not 0 < share < 1:
        raise UsageError(f"the share to keep must lie between 0 and 1, not {share}")
