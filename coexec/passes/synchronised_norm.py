"""Batch normalisation over the shares of a batch, as if all samples were on one processor.

Each processor normalises its samples by their own statistics, which is what its kernels do fastest.
The processors exchange mean and variance per channel; from those of all of them follows a line per
channel that leads from the own normalisation to the common one. The same holds for the gradient.
Joint statistics after Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances" (1979); in training over several devices known as synchronised batch
normalisation (Peng and others, "MegDet", 2018).

Letters: m, v mean and (biased) variance of a share, M, V those of the batch, e epsilon, w the part
of the batch that a share is, n its elements per channel, N those of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.ops.batch_norm import EPSILON
from coexec.ops.node import call_of, type_of
from coexec.ops.opdef import COEXEC

Emit = Callable[..., tuple[ir.Value, ...]]
"""``emit(processor, op_type, inputs, attributes, outputs=1, domain="")`` appends a node."""
Constant = Callable[[Any, np.dtype[Any]], ir.Value]
ByProcessor = Mapping[str, ir.Value]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and variance of each share; each processor has what it needs of all of them."""

    means: ByProcessor
    variances: ByProcessor


class Norms:
    """Emits the nodes of divided normalisations; ``rows`` are the samples by processor."""

    def __init__(self, emit: Emit, constant: Constant, rows: Mapping[str, int]) -> None:
        self.emit = emit
        self.constant = constant
        self.rows = rows
        self.total = sum(rows.values())
        # Statistics of the batch on each processor, by the values that they were made of.
        self._joint: dict[tuple[Statistics, str], tuple[ir.Value, ir.Value]] = {}

    def forward(
        self, node: ir.Node, shares: ByProcessor, home: str
    ) -> tuple[dict[str, ir.Value], Statistics, tuple[ir.Value | None, ir.Value | None]]:
        """The shares of the result, the statistics, and the new running ones (made on ``home``).

        x' = (x - m) / sqrt(v + e) is normalised again with mean (M - m) / sqrt(v + e) and variance
        (V + e) / (v + e).
        """
        call = call_of(node)
        scale, bias, old_mean = node.inputs[1:4]
        assert old_mean is not None
        kind = type_of(old_mean)
        epsilon = float(call.attribute("epsilon", EPSILON))
        ones = self.constant(np.ones(kind.shape), type_of(_there(scale)).dtype)
        zeros = self.constant(np.zeros(kind.shape), type_of(_there(bias)).dtype)
        none, one = (self.constant(f(kind.shape), kind.dtype) for f in (np.zeros, np.ones))
        how = {"training_mode": 1, "momentum": 0.0, "epsilon": epsilon}
        own, means, variances = {}, {}, {}
        for place, x in shares.items():
            made = self.emit(
                place, "BatchNormalization", [x, ones, zeros, none, one], how, outputs=3
            )
            own[place], means[place], variances[place] = made
        found = Statistics(means, variances)
        results = {}
        for place in shares:
            g = _Vectors(self, place, kind.dtype)
            mean, variance = self.joint(found, place)
            spread = g.add(variances[place], epsilon)
            shift = g.div(g.sub(mean, means[place]), g.sqrt(spread))
            ratio = g.div(g.add(variance, epsilon), spread)
            operands = [own[place], scale, bias, shift, ratio]
            (results[place],) = self.emit(place, "BatchNormalization", operands, {"epsilon": 0.0})
        return results, found, self._running(node, found, home)

    def _running(
        self, node: ir.Node, found: Statistics, home: str
    ) -> tuple[ir.Value | None, ir.Value | None]:
        """old * momentum + new * (1 - momentum), where somebody reads it."""
        call = call_of(node)
        keep = float(call.attribute("momentum", 0.9))
        made: list[ir.Value | None] = []
        for index, new in zip((1, 2), self.joint(found, home), strict=True):
            old = node.inputs[index + 2]
            assert old is not None
            g = _Vectors(self, home, type_of(old).dtype)
            used = call.has_output(index)
            made.append(g.add(g.mul(old, keep), g.mul(new, 1 - keep)) if used else None)
        return made[0], made[1]

    def joint(self, found: Statistics, place: str) -> tuple[ir.Value, ir.Value]:
        """M = sum w m, V = sum w (v + (m - M)^2), computed on ``place``."""
        key = (found, place)
        if key not in self._joint:
            dtype = type_of(next(iter(found.means.values()))).dtype
            g = _Vectors(self, place, dtype)
            parts = {name: self.rows[name] / self.total for name in found.means}
            mean = g.total([g.mul(m, parts[name]) for name, m in found.means.items()])
            spreads = []
            for name, m in found.means.items():
                apart = g.sub(m, mean)
                spread = g.add(found.variances[name], g.mul(apart, apart))
                spreads.append(g.mul(spread, parts[name]))
            self._joint[key] = mean, g.total(spreads)
        return self._joint[key]

    def backward(
        self, node: ir.Node, xs: ByProcessor, gradients: ByProcessor, found: Statistics, home: str
    ) -> tuple[dict[str, ir.Value], ir.Value | None, ir.Value | None]:
        """Shares of dX; dScale and dB (made on ``home``, where somebody reads them).

        With the own gradient (for scale 1) d = (dy - S/n - (x - m) A / (n (v + e))) / sqrt(v + e),
        where S sums dy and A sums dy (x - m), the gradient over the whole batch is linear in d and
        x: all else is known per channel once S and A of all shares are.
        """
        call = call_of(node)
        scale = _there(node.inputs[1])
        kind = type_of(scale)
        inner = call.input(0).size // (call.input(0).shape[0] * kind.size)
        epsilon = float(call.attribute("epsilon", EPSILON))
        ones = self.constant(np.ones(kind.shape), kind.dtype)
        own, normal, plain = {}, {}, {}
        for place, x in xs.items():
            operands = [x, ones, gradients[place]]
            made = self.emit(
                place,
                "BatchNormalizationGrad",
                operands,
                {"epsilon": epsilon},
                outputs=3,
                domain=COEXEC,
            )
            own[place], normal[place], plain[place] = made
        results: dict[str, ir.Value] = {}
        for place in xs:
            g = _Vectors(self, place, kind.dtype)
            mean, variance = self.joint(found, place)
            along = self._along(g, found, normal, epsilon)
            all_along, all_plain = self._sums(g, found, along, plain, mean)
            wide, narrow = g.add(variance, epsilon), g.add(found.variances[place], epsilon)
            inverse = g.div(scale, g.sqrt(wide))
            count = self.rows[place] * inner
            slope_here = g.div(g.mul(along[place], 1 / count), narrow)
            slope = g.div(g.mul(all_along, 1 / (self.total * inner)), wide)
            factor = g.mul(inverse, g.sqrt(narrow))
            tilt = g.mul(inverse, g.sub(slope_here, slope))
            lifted = g.add(g.mul(plain[place], 1 / count), g.mul(mean, slope))
            lowered = g.mul(found.means[place], slope_here)
            dropped = g.mul(all_plain, 1 / (self.total * inner))
            level = g.mul(inverse, g.sub(g.sub(lifted, lowered), dropped))
            x, rank = xs[place], call.input(0).rank
            columns = [g.column(v, rank, type_of(x).dtype) for v in (factor, tilt, level)]
            results[place] = g.add(
                g.add(g.mul(own[place], columns[0]), g.mul(x, columns[1])), columns[2]
            )
        return results, *self._parameters(call, found, normal, plain, home, epsilon)

    def _along(
        self, g: _Vectors, found: Statistics, normal: ByProcessor, epsilon: float
    ) -> dict[str, ir.Value]:
        """A of each share, of the sums of dy (x - m) / sqrt(v + e).

        Each processor does that for all: all that a share sends is made by one node, so that it is
        one exchange.
        """
        spreads = {name: g.sqrt(g.add(found.variances[name], epsilon)) for name in normal}
        return {name: g.mul(each, spreads[name]) for name, each in normal.items()}

    def _sums(
        self, g: _Vectors, found: Statistics, along: ByProcessor, plain: ByProcessor, mean: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """Sums of dy (x - M) and of dy over all shares."""
        moved = [
            g.add(along[name], g.mul(g.sub(found.means[name], mean), plain[name])) for name in along
        ]
        return g.total(moved), g.total(list(plain.values()))

    def _parameters(
        self,
        call: Any,
        found: Statistics,
        normal: ByProcessor,
        plain: ByProcessor,
        home: str,
        epsilon: float,
    ) -> tuple[ir.Value | None, ir.Value | None]:
        mean, variance = self.joint(found, home)
        g = _Vectors(self, home, type_of(next(iter(plain.values()))).dtype)
        along = self._along(g, found, normal, epsilon)
        all_along, all_plain = self._sums(g, found, along, plain, mean)
        dscale = g.div(all_along, g.sqrt(g.add(variance, epsilon)))
        return (dscale if call.has_output(1) else None, all_plain if call.has_output(2) else None)


class _Vectors:
    """Arithmetic on one value per channel, on one processor, in one type."""

    def __init__(self, norms: Norms, place: str, dtype: np.dtype[Any]) -> None:
        self.norms, self.place, self.dtype = norms, place, dtype

    def _op(self, op_type: str, *operands: ir.Value | float) -> ir.Value:
        inputs = [
            o if isinstance(o, ir.Value) else self.norms.constant(o, self.dtype) for o in operands
        ]
        return self.norms.emit(self.place, op_type, inputs, {})[0]

    def add(self, a: ir.Value, b: ir.Value | float) -> ir.Value:
        return self._op("Add", a, b)

    def sub(self, a: ir.Value, b: ir.Value | float) -> ir.Value:
        return self._op("Sub", a, b)

    def mul(self, a: ir.Value, b: ir.Value | float) -> ir.Value:
        return self._op("Mul", a, b)

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self._op("Div", a, b)

    def sqrt(self, a: ir.Value) -> ir.Value:
        return self._op("Sqrt", a)

    def total(self, values: Sequence[ir.Value]) -> ir.Value:
        result = values[0]
        for value in values[1:]:
            result = self.add(result, value)
        return result

    def column(self, vector: ir.Value, rank: int, dtype: np.dtype[Any]) -> ir.Value:
        """A vector as (C, 1, ...): it meets the channels of a tensor of ``rank`` axes."""
        shape = self.norms.constant(
            np.array([-1, *(1,) * (rank - 2)], np.int64), np.dtype(np.int64)
        )
        column = self._op("Reshape", vector, shape)
        if type_of(column).dtype == dtype:
            return column
        to = {"to": int(ir.DataType.from_numpy(dtype))}
        return self.norms.emit(self.place, "Cast", [column], to)[0]


def _there(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
