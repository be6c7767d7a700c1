"""Random valid calls of operators whose kernels have many code paths: movement and products."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from coexec.core.types import OpCall, TensorType
from coexec.ops.axes import int64s
from coexec.ops.conv import attributes_of
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.opdef import Example, Sample

Shape = tuple[int, ...]
Maker = Callable[["Dice"], Example]

REDUCTIONS = ("none", "add", "mul", "min", "max")


class Dice(random.Random):
    """A seeded source of shapes, axes and samples of one element type.

    One type, since each needs kernels of its own, which take longer to build than to run.
    """

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.dtype = self.choice(("float32", "float32", "float64", "uint8", "int64"))
        self.real = self.choice(("float32", "float32", "float64"))

    def shape(self, rank: int, low: int = 1, high: int = 9) -> Shape:
        return tuple(self.randint(low, high) for _ in range(rank))

    def data(self, shape: Shape, high: float = 100) -> Sample:
        return Sample(shape, self.dtype, 0, high)

    def tensor(self, most_rank: int) -> tuple[Shape, int]:
        """A shape, larger at low ranks, and one of its axes."""
        rank = self.randint(1, most_rank)
        return self.shape(rank, 1, 40 if rank < 3 else 9), self.randrange(rank)


def replaced(shape: Shape, axis: int, size: int) -> Shape:
    """``shape`` with another size along ``axis``."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def transpose(dice: Dice) -> Example:
    rank = dice.randint(1, 6)
    shape = dice.shape(rank, 1, 40 if rank < 3 else 9 if rank == 3 else 4)
    return Example((dice.data(shape),), {"perm": tuple(dice.sample(range(rank), rank))})


def slice_(dice: Dice) -> Example:
    shape, _ = dice.tensor(4)
    axes = dice.sample(range(len(shape)), dice.randint(1, len(shape)))
    bounds = [[dice.randint(-50, 50) for _ in axes] for _ in range(2)]
    steps = [dice.choice((1, 1, 2, 3, -1, -2)) for _ in axes]
    return Example((dice.data(shape), *map(int64s, (*bounds, axes, steps))))


def slice_grad(dice: Dice) -> Example:
    shape, _ = dice.tensor(3)
    starts = tuple(dice.randrange(size) for size in shape)
    steps = tuple(dice.choice((1, 2, 3, -1, -2)) for _ in shape)
    room = [
        (size - 1 - start if step > 0 else start) // abs(step) + 1
        for size, start, step in zip(shape, starts, steps, strict=True)
    ]
    taken = tuple(dice.randint(1, count) for count in room)
    attributes = {"shape": shape, "starts": starts, "steps": steps}
    return Example((dice.data(taken, 10),), attributes)


def tile(dice: Dice) -> Example:
    rank = dice.randint(1, 6)
    repeats = [dice.randint(1, 3 if rank < 5 else 2) for _ in range(rank)]
    return Example((dice.data(dice.shape(rank, 1, 3)), int64s(repeats)))


def concat(dice: Dice) -> Example:
    shape, axis = dice.tensor(4)
    sizes = [dice.randint(0, 20) for _ in range(dice.randint(1, 4))]
    parts = tuple(dice.data(replaced(shape, axis, size)) for size in sizes)
    return Example(parts, {"axis": axis})


def split(dice: Dice) -> Example:
    shape, axis = dice.tensor(3)
    sizes = [dice.randint(0, 20) for _ in range(3)]
    data = dice.data(replaced(shape, axis, sum(sizes)))
    return Example((data, int64s(sizes)), {"axis": axis}, outputs=3)


def expand(dice: Dice) -> Example:
    rank = dice.randint(1, 4)
    shape = dice.shape(rank, 1, 20 if rank < 4 else 9)
    source = tuple(dice.choice((size, size, 1)) for size in shape)[dice.randint(0, 1) :]
    return Example((dice.data(source), int64s(shape)))


def pad(dice: Dice) -> Example:
    rank = dice.randint(1, 4)
    shape = dice.shape(rank, 5, 40 if rank < 3 else 9)
    mode = dice.choice(("constant", "reflect", "edge", "wrap"))
    pads = [dice.choice((0, 0, dice.randint(-1, 3))) for _ in range(2 * rank)]
    value = dice.data((), 9) if mode == "constant" else None
    return Example((dice.data(shape), int64s(pads), value), {"mode": mode})


def gather(dice: Dice) -> Example:
    shape, axis = dice.tensor(3)
    indices = Sample(dice.shape(dice.randint(0, 2), 1, 20), "int64", -shape[axis], shape[axis])
    return Example((dice.data(shape), indices), {"axis": axis})


def gather_grad(dice: Dice) -> Example:
    shape, axis = dice.tensor(3)
    indices = Sample(dice.shape(dice.randint(0, 2)), "int64", -shape[axis], shape[axis])
    grad = dice.data(shape[:axis] + indices.shape + shape[axis + 1 :], 10)
    return Example((indices, grad), {"axis": axis, "shape": shape})


def gather_nd(dice: Dice) -> Example:
    shape = dice.shape(dice.randint(1, 4), 2, 9)
    batch = dice.randrange(len(shape))
    depth = dice.randint(1, len(shape) - batch)
    least = min(shape[batch : batch + depth])
    lead = shape[:batch] + dice.shape(dice.randint(0, 2), 1, 5)
    indices = Sample((*lead, depth), "int64", -least, least)
    return Example((dice.data(shape), indices), {"batch_dims": batch})


def _element_indices(dice: Dice, shape: Shape, axis: int) -> Sample:
    smaller = tuple(dice.choice((size, size, dice.randint(1, size))) for size in shape)
    within = replaced(smaller, axis, dice.randint(1, 30))
    return Sample(within, dice.choice(("int32", "int64")), -shape[axis], shape[axis])


def gather_elements(dice: Dice) -> Example:
    shape, axis = dice.tensor(4)
    indices = _element_indices(dice, shape, axis)
    return Example((dice.data(shape), indices), {"axis": axis})


def scatter_elements(dice: Dice) -> Example:
    shape, axis = dice.tensor(4)
    indices = _element_indices(dice, shape, axis)
    operands = (dice.data(shape, 10), indices, dice.data(indices.shape, 10))
    return Example(operands, {"axis": axis, "reduction": dice.choice(REDUCTIONS)})


def scatter_nd(dice: Dice) -> Example:
    shape, _ = dice.tensor(3)
    depth = dice.randint(1, len(shape))
    least, lead = min(shape[:depth]), dice.shape(dice.randint(0, 2))
    indices = Sample((*lead, depth), "int64", -least, least)
    updates = dice.data(lead + shape[depth:], 10)
    operands = (dice.data(shape, 10), indices, updates)
    return Example(operands, {"reduction": dice.choice(REDUCTIONS)})


def top_k(dice: Dice) -> Example:
    rank = dice.randint(1, 3)
    shape, axis = dice.shape(rank, 1, 300 if rank < 3 else 40), dice.randrange(rank)
    k = np.array([dice.randint(0, shape[axis])])
    data = dice.data(shape, 10)
    return Example((data, k), {"axis": axis, "largest": dice.randint(0, 1)}, outputs=2)


def cum_sum(dice: Dice) -> Example:
    rank = dice.randint(1, 3)
    shape, axis = dice.shape(rank, 1, 1500 if rank == 1 else 40), dice.randrange(rank)
    # Sums of many float32 are a matter of tolerance, not of kernels' geometry.
    data = Sample(shape, "float64" if dice.dtype.startswith("float") else dice.dtype, 0, 9)
    attributes = {"reverse": dice.randint(0, 1), "exclusive": dice.randint(0, 1)}
    return Example((data, np.array(axis)), attributes)


def gemm(dice: Dice) -> Example:
    m, n, k = (dice.choice((dice.randint(1, 12), dice.randint(1, 70))) for _ in range(3))
    trans_a, trans_b = dice.randint(0, 1), dice.randint(0, 1)
    a, b = (k, m) if trans_a else (m, k), (n, k) if trans_b else (k, n)
    bias = dice.choice((None, (m, n), (n,), (m, 1), (1,)))
    attributes = {"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0}
    return Example(
        (Sample(a, dice.real), Sample(b, dice.real), bias and Sample(bias, dice.real)), attributes
    )


def mat_mul(dice: Dice) -> Example:
    m, n, k = dice.shape(3, 1, 40)
    batch = dice.shape(dice.randint(0, 3), 1, 3)
    a, b = (
        tuple(dice.choice((size, size, 1)) for size in batch[dice.randint(0, len(batch)) :])
        for _ in range(2)
    )
    left, right = (*a, m, k), (*b, k, n)
    if dice.random() < 0.2:
        left = (k,)
    elif dice.random() < 0.2:
        right = (k,)
    return Example((Sample(left, dice.real), Sample(right, dice.real)))


def conv(dice: Dice) -> Example:
    rank, group = dice.choice((1, 2, 2, 3)), dice.choice((1, 1, 2, 3))
    inner, outer = dice.randint(1, 9), dice.randint(1, 9)
    kernel, dilations = dice.shape(rank, 1, 3), dice.shape(rank, 1, 2)
    if dice.random() < 0.3:  # depthwise
        group, inner, outer = 5, 1, dice.randint(1, 2)
    if dice.random() < 0.2:  # pointwise
        kernel = (1,) * rank
    attributes = {
        "group": group,
        "strides": dice.shape(rank, 1, 3),
        "dilations": dilations,
        "pads": dice.shape(2 * rank, 0, 2),
    }
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = tuple(r + dice.randint(0, 20 if rank == 1 else 7) for r in reach)
    x = Sample((dice.choice((0, 1, 2, 3)), group * inner, *size), dice.real)
    w = Sample((group * outer, inner, *kernel), dice.real)
    bias = dice.choice((None, Sample((group * outer,), dice.real)))
    return Example((x, w, bias), attributes)


def conv_transpose(dice: Dice) -> Example:
    """A convolution whose filters stay as they are while data flows the other way."""
    forward = conv(dice)
    g = _geometry(forward)
    attributes: dict[str, Any] = dict(forward.attributes)
    begin = tuple(min(1, k - 1) for k in g.kernel)
    end = tuple(min(b, n - 1) for b, n in zip(begin, g.out_size, strict=True))
    attributes["pads"] = begin + end  # of two elements at least, one is left
    attributes["output_padding"] = tuple(dice.randrange(s) for s in g.strides)
    bias = dice.choice((None, Sample((g.in_channels,), dice.real)))
    operands = (Sample(g.out_shape, dice.real), _sample(forward, 1), bias)
    return Example(operands, attributes)


def conv_input_grad(dice: Dice) -> Example:
    forward = conv(dice)
    g = _geometry(forward)
    dy = Sample(g.out_shape, dice.real)
    attributes = attributes_of(g) | {"input_shape": g.in_shape}
    return Example((dy, _sample(forward, 1)), attributes)


def conv_weight_grad(dice: Dice) -> Example:
    forward = conv(dice)
    g = _geometry(forward)
    x = _sample(forward, 0)
    attributes = attributes_of(g) | {"kernel_shape": g.kernel}
    return Example((x, Sample(g.out_shape, dice.real)), attributes)


def _sample(example: Example, index: int) -> Sample:
    operand = example.inputs[index]
    assert isinstance(operand, Sample)
    return operand


def _geometry(example: Example) -> ConvGeometry:
    kinds = [
        TensorType(s.shape, np.dtype(s.dtype)) for s in example.inputs if isinstance(s, Sample)
    ]
    return ConvGeometry.of(OpCall("Conv", tuple(kinds), example.attributes))


MAKERS: Mapping[str, Maker] = {
    "Transpose": transpose,
    "Slice": slice_,
    "coexec::SliceGrad": slice_grad,
    "Tile": tile,
    "Concat": concat,
    "Split": split,
    "Expand": expand,
    "Pad": pad,
    "Gather": gather,
    "coexec::GatherGrad": gather_grad,
    "GatherND": gather_nd,
    "GatherElements": gather_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TopK": top_k,
    "CumSum": cum_sum,
    "Gemm": gemm,
    "MatMul": mat_mul,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "coexec::ConvInputGrad": conv_input_grad,
    "coexec::ConvWeightGrad": conv_weight_grad,
}
"""How to draw a call of each operator, by identifier."""
