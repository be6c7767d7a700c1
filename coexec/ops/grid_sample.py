"""GridSample: values between the elements of an image, at positions that a tensor gives.

https://onnx.ai/onnx/operators/onnx__GridSample.html, for any number of spatial axes. Along each
axis a position has a few taps (elements, and weights that depend on the position); a value is the
sum over all combinations of taps. Cubic weights are those of Keys ("Cubic convolution interpolation
for digital image processing", 1981) with a = -0.75.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.precision import widened

TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """Images of ``sizes`` in ``batch`` x ``channels``, read at ``points`` = prod(out) positions."""

    batch: int
    channels: int
    sizes: Shape
    out: Shape
    mode: str
    padding: str
    align: bool

    @property
    def points(self) -> int:
        return prod(self.out)

    @property
    def pixels(self) -> int:
        return prod(self.sizes)

    @property
    def taps(self) -> int:
        """Taps of a position along one axis."""
        return TAPS[self.mode]

    @classmethod
    def of(cls, call: OpCall) -> Grid:
        """Of GridSample (X, grid) and its gradients (dY, grid) and (dY, X, grid).

        Raises ``ValueError`` where operands and attributes do not fit.
        """
        images, grid = _images(call), call.inputs[-1]
        if grid is None or not is_float(grid.dtype):
            raise ValueError(f"{call.identifier}: grid {grid} is not of floats")
        rank = len(images) - 2
        if rank < 1 or grid.rank != rank + 2:
            raise ValueError(f"{call.identifier}: grid {grid} for images {images}")
        if grid.shape[0] != images[0] or grid.shape[-1] != rank:
            raise ValueError(f"{call.identifier}: grid {grid} for images {images}")
        mode, padding = call.attribute("mode", "linear"), call.attribute("padding_mode", "zeros")
        if mode not in TAPS or padding not in PADDINGS:
            raise ValueError(f"{call.identifier}: unknown mode {mode!r} or padding {padding!r}")
        out = grid.shape[1:-1]
        align = bool(call.attribute("align_corners", 0))
        found = cls(images[0], images[1], images[2:], out, mode, padding, align)
        if found.pixels == 0 and found.points:
            raise ValueError(f"{call.identifier}: images {images} without elements")
        return found


def _images(call: OpCall) -> Shape:
    """Shape of the images that are read."""
    if call.op_type == "GridSampleInputGrad":
        return tuple(int(size) for size in call.attributes["input_shape"])
    return call.input(1 if call.domain == COEXEC else 0).shape


@dataclass(frozen=True)
class Taps:
    """Along one axis, for each tap and position: element, weight, derivative of the weight."""

    index: Array
    weight: Array
    slope: Array


def positions(g: Grid, axis: int, grid: Array) -> tuple[Array, Array]:
    """Places along an axis in elements, and their derivatives by the grid; (batch, points).

    The last coordinate of a grid belongs to the first axis. Borders lie in the middle of the
    elements there (``align_corners``) or at their edges. Beyond a border of cubic images only
    elements repeat, as in PyTorch and ONNX Runtime: places stay (in ONNX's own reference they move
    to the border, which no case of its suite tells).
    """
    size = g.sizes[axis]
    normal = grid.reshape(g.batch, g.points, len(g.sizes))[..., len(g.sizes) - 1 - axis]
    at = (normal + 1) / 2 * (size - 1) if g.align else ((normal + 1) * size - 1) / 2
    slope = np.full_like(at, (size - 1) / 2 if g.align else size / 2)
    if g.mode == "nearest":
        at = np.rint(at)
    low, high = (0.0, size - 1.0) if g.align else (-0.5, size - 0.5)
    outside = (at < low) | (at > high)
    if g.padding == "border" and g.mode != "cubic":
        return np.where(outside, np.clip(at, 0, size - 1), at), np.where(outside, 0, slope)
    if g.padding == "reflection":
        folded, sign = reflected(at, low, high)
        return folded, slope * sign
    return at, slope


def reflected(at: Array, low: float, high: float) -> tuple[Array, Array]:
    """Places mirrored at two borders until they lie between them, and whether they turned (-1)."""
    span = high - low
    if span <= 0:
        return np.full_like(at, low), np.zeros_like(at)
    phase = np.mod(at - low, 2 * span)
    turned = phase > span
    inside = np.where(turned, high - (phase - span), low + phase)
    # What lies inside already keeps all its digits.
    kept = (at >= low) & (at <= high)
    return np.where(kept, at, inside), np.where(kept | ~turned, 1.0, -1.0)


def weights(mode: str, t: Array) -> tuple[Array, Array]:
    """Weights of the taps at the fraction ``t`` behind an element, and their derivatives."""
    one = np.ones_like(t)
    if mode == "nearest":
        return one[None], 0 * one[None]
    if mode == "linear":
        return np.stack([1 - t, t]), np.stack([-one, one])
    far, near = (t + 1, 2 - t), (t, 1 - t)
    outer = [((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC for d in far]
    inner = [((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1 for d in near]
    outer_slope = [(3 * CUBIC * d - 10 * CUBIC) * d + 8 * CUBIC for d in far]
    inner_slope = [(3 * (CUBIC + 2) * d - 2 * (CUBIC + 3)) * d for d in near]
    values = np.stack([outer[0], inner[0], inner[1], outer[1]])
    slopes = np.stack([outer_slope[0], inner_slope[0], -inner_slope[1], -outer_slope[1]])
    return values, slopes


def taps(g: Grid, axis: int, grid: Array) -> Taps:
    """Taps of all positions along an axis."""
    size = g.sizes[axis]
    at, slope = positions(g, axis, grid)
    base = np.floor(at)
    values, slopes = weights(g.mode, at - base)
    first = -1 if g.mode == "cubic" else 0
    index = base.astype(np.int64) + np.arange(first, first + g.taps).reshape(-1, 1, 1)
    inside = np.broadcast_to((index >= 0) & (index < size), index.shape)
    if g.padding == "reflection":
        low, high = (0.0, size - 1.0) if g.align else (-0.5, size - 0.5)
        index = np.rint(reflected(index.astype(np.float64), low, high)[0]).astype(np.int64)
    elif g.padding == "zeros":
        values, slopes = values * inside, slopes * inside
    return Taps(np.clip(index, 0, size - 1), values, slopes * slope)


def combinations(g: Grid, grid: Array) -> Iterator[tuple[Array, list[Array], list[Array]]]:
    """Elements (flat), weights and slopes along all axes, for every combination of taps."""
    along = [taps(g, axis, grid) for axis in range(len(g.sizes))]
    for chosen in product(range(g.taps), repeat=len(g.sizes)):
        parts = list(zip(along, chosen, strict=True))
        flat = np.zeros((g.batch, g.points), np.int64)
        for (t, i), size in zip(parts, g.sizes, strict=True):
            flat = flat * size + t.index[i]
        yield flat, [t.weight[i] for t, i in parts], [t.slope[i] for t, i in parts]


def _product(factors: Sequence[Array]) -> Array:
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


def infer(call: OpCall) -> Sequence[TensorType]:
    g = Grid.of(call)
    return (call.input(0).with_shape((g.batch, g.channels, *g.out)),)


@widened
def grid_sample(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    g, x = Grid.of(call), np.asarray(operands[0])
    images = x.reshape(g.batch, g.channels, g.pixels)
    y = np.zeros((g.batch, g.channels, g.points), x.dtype)
    for index, factors, _ in combinations(g, np.asarray(operands[1])):
        y += _product(factors)[:, None] * np.take_along_axis(images, index[:, None], 2)
    return (y.reshape(g.batch, g.channels, *g.out),)


def gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """To the images by scattering, to the grid by the slopes of the weights."""
    names = ("align_corners", "mode", "padding_mode")
    kept = {name: s.call.attributes[name] for name in names if name in s.call.attributes}
    dx = dgrid = None
    if s.wanted[0]:
        shape = {"input_shape": s.call.input(0).shape}
        operands = [s.grad(), s.value(1)]
        dx = s.op("GridSampleInputGrad", operands, {**kept, **shape}, domain=COEXEC)
    if s.wanted[1] and s.call.attribute("mode", "linear") != "nearest":
        operands = [s.grad(), s.value(0), s.value(1)]
        dgrid = s.op("GridSampleGridGrad", operands, kept, domain=COEXEC)
    return (dx, dgrid)


def infer_input_grad(call: OpCall) -> Sequence[TensorType]:
    g = Grid.of(call)
    _check_result(call, g)
    return (call.input(0).with_shape((g.batch, g.channels, *g.sizes)),)


@widened
def input_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Every gradient goes back to the elements that its value was made of."""
    g, dy = Grid.of(call), np.asarray(operands[0])
    lines = dy.reshape(g.batch, g.channels, g.points)
    dx = np.zeros((g.batch, g.channels, g.pixels), dy.dtype)
    for index, factors, _ in combinations(g, np.asarray(operands[1])):
        parts = _product(factors)[:, None] * lines
        for image, at, part in zip(dx, index, parts, strict=True):
            for plane, line in zip(image, part, strict=True):
                np.add.at(plane, at, line)
    return (dx.reshape(g.batch, g.channels, *g.sizes),)


def infer_grid_grad(call: OpCall) -> Sequence[TensorType]:
    _check_result(call, Grid.of(call))
    return (call.input(2),)


@widened
def grid_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Sums over channels of dY times the slope of what was read."""
    g, x = Grid.of(call), np.asarray(operands[1])
    dy = np.asarray(operands[0]).reshape(g.batch, g.channels, g.points)
    images = x.reshape(g.batch, g.channels, g.pixels)
    result = np.zeros((g.batch, g.points, len(g.sizes)), np.asarray(operands[2]).dtype)
    for index, factors, slopes in combinations(g, np.asarray(operands[2])):
        read = (dy * np.take_along_axis(images, index[:, None], 2)).sum(1)
        for axis, slope in enumerate(slopes):
            others = [*factors[:axis], slope, *factors[axis + 1 :]]
            result[..., len(slopes) - 1 - axis] += _product(others) * read
    return (result.reshape(g.batch, *g.out, len(g.sizes)),)


def _check_result(call: OpCall, g: Grid) -> None:
    if call.input(0).shape != (g.batch, g.channels, *g.out):
        raise ValueError(f"{call.identifier}: gradient {call.input(0)} of a result of {g}")


def work(call: OpCall) -> Work:
    """A multiply-add for each tap, and one for each weight."""
    g = Grid.of(call)
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(4 * g.batch * g.channels * g.points * g.taps ** len(g.sizes), moved)


def _grid(*shape: int, far: float = 1.3) -> Sample:
    return Sample(shape, low=-far, high=far)


def _cases(make: Any) -> tuple[Example, ...]:
    """All modes and paddings, one, two and three axes."""
    plane = [
        make((2, 3, 5, 7), (2, 4, 6, 2), mode=mode, padding_mode=padding, align_corners=align)
        for mode in ("linear", "nearest", "cubic")
        for padding in PADDINGS
        for align in (0, 1)
    ]
    return (
        *plane,
        make((2, 3, 9), (2, 20, 1)),
        make((1, 2, 3, 4, 5), (1, 2, 3, 2, 3), align_corners=1),
        make((1, 2, 3, 4, 5), (1, 2, 3, 2, 3), mode="cubic", padding_mode="border"),
        make((1, 1, 1, 6), (1, 3, 5, 2), padding_mode="reflection", align_corners=1),
    )


def _forward(x: Shape, grid: Shape, **attributes: Any) -> Example:
    return Example((Sample(x), _grid(*grid)), attributes)


def _input_grad(x: Shape, grid: Shape, **attributes: Any) -> Example:
    dy = Sample((*x[:2], *grid[1:-1]))
    return Example((dy, _grid(*grid)), {**attributes, "input_shape": x}, gradient=False)


def _grid_grad(x: Shape, grid: Shape, **attributes: Any) -> Example:
    dy = Sample((*x[:2], *grid[1:-1]))
    return Example((dy, Sample(x), _grid(*grid)), attributes, gradient=False)


SECOND = "second derivatives of GridSample are not provided"

OPS = (
    OpDef(
        "GridSample", infer, grid_sample, gradient=gradient, work=work, examples=_cases(_forward)
    ),
    OpDef(
        "GridSampleInputGrad",
        infer_input_grad,
        input_grad,
        domain=COEXEC,
        not_differentiable=SECOND,
        work=work,
        examples=_cases(_input_grad),
    ),
    OpDef(
        "GridSampleGridGrad",
        infer_grid_grad,
        grid_grad,
        domain=COEXEC,
        not_differentiable=SECOND,
        work=work,
        examples=_cases(_grid_grad),
    ),
)
