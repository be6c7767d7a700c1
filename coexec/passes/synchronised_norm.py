"""Batch normalisation over the shares of a batch, as if all samples were on one processor.

Each processor takes the statistics of its samples, all processors join those of all shares, and
each normalises its samples by what they have in common. In the gradient the same happens to two
sums.
The operators are those of :mod:`coexec.ops.batch_norm_shares`; the method is known as synchronised
batch normalisation (Peng and others, "MegDet", 2018).

What a share sends is made by one node, so that it is one exchange for each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from coexec.ops.batch_norm import EPSILON, MOMENTUM
from coexec.ops.node import call_of
from coexec.ops.opdef import COEXEC

Emit = Callable[..., tuple[ir.Value, ...]]
"""``emit(processor, op_type, inputs, attributes, outputs=1, domain="")`` appends a node."""
ByProcessor = Mapping[str, ir.Value]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and variance of the whole batch, as each processor knows them."""

    joint: dict[str, tuple[ir.Value, ir.Value]] = field(default_factory=dict)


class Norms:
    """Emits the nodes of divided normalisations; ``rows`` are the samples by processor."""

    def __init__(self, emit: Emit, rows: Mapping[str, int]) -> None:
        self.emit = emit
        self.rows = rows

    def forward(
        self, node: ir.Node, shares: ByProcessor, home: str
    ) -> tuple[dict[str, ir.Value], Statistics, tuple[ir.Value | None, ir.Value | None]]:
        """The shares of the result, the statistics, and the new running ones (made on ``home``)."""
        call = call_of(node)
        own = {
            place: self.emit(place, "BatchStatistics", [x], {}, outputs=2, domain=COEXEC)
            for place, x in shares.items()
        }
        found = Statistics()
        running: tuple[ir.Value | None, ir.Value | None] = (None, None)
        results = {}
        for place in dict.fromkeys([*shares, home]):
            wanted = place == home and (call.has_output(1) or call.has_output(2))
            made = self._join(node, own, place, wanted)
            found.joint[place] = made[0], made[1]
            if wanted:
                running = made[2], made[3]
            if place in shares:
                results[place] = self._normalised(node, place, shares[place], found)
        return results, found, running

    def again(self, node: ir.Node, shares: ByProcessor, found: Statistics) -> dict[str, ir.Value]:
        """The shares of the result once more, by statistics that are known: nothing is sent."""
        return {place: self._normalised(node, place, x, found) for place, x in shares.items()}

    def _normalised(
        self, node: ir.Node, place: str, share: ir.Value, found: Statistics
    ) -> ir.Value:
        how = {"epsilon": float(call_of(node).attribute("epsilon", EPSILON))}
        operands = [share, *node.inputs[1:3], *found.joint[place]]
        (result,) = self.emit(place, "BatchNormalization", operands, how)
        return result

    def _join(
        self, node: ir.Node, own: Mapping[str, tuple[ir.Value, ...]], place: str, running: bool
    ) -> tuple[ir.Value, ...]:
        """Statistics of the batch, then (``running``) the new running ones."""
        old = node.inputs[3:5] if running else (None, None)
        pairs = [value for pair in own.values() for value in pair]
        how: dict[str, Any] = {"counts": tuple(self.rows[name] for name in own)}
        if running:
            how["momentum"] = float(call_of(node).attribute("momentum", MOMENTUM))
        outputs = 4 if running else 2
        operands = [*old, *pairs]
        return self.emit(place, "JoinStatistics", operands, how, outputs=outputs, domain=COEXEC)

    def backward(
        self, node: ir.Node, xs: ByProcessor, gradients: ByProcessor, found: Statistics, home: str
    ) -> tuple[dict[str, ir.Value], ir.Value | None, ir.Value | None]:
        """Shares of dX; dScale and dB (made on ``home`` if it has a share)."""
        call = call_of(node)
        sums: list[ir.Value] = []
        for place, x in xs.items():
            operands = [x, found.joint[place][0], gradients[place]]
            sums += self.emit(
                place, "BatchNormalizationSums", operands, {}, outputs=2, domain=COEXEC
            )
        kind = call.input(0)
        epsilon = float(call.attribute("epsilon", EPSILON))
        how = {"count": kind.size // kind.shape[1], "epsilon": epsilon}
        home = home if home in xs else next(iter(xs))
        wanted = call.has_output(1) or call.has_output(2)
        results: dict[str, ir.Value] = {}
        parameters: tuple[ir.Value | None, ...] = (None, None)
        for place, x in xs.items():
            scale = node.inputs[1]
            assert scale is not None  # an operand of every gradient
            operands = [x, scale, gradients[place], *found.joint[place], *sums]
            outputs = 3 if wanted and place == home else 1
            made = self.emit(
                place, "BatchNormalizationFlow", operands, how, outputs=outputs, domain=COEXEC
            )
            results[place] = made[0]
            parameters = made[1:] if len(made) > 1 else parameters
        return results, parameters[0], parameters[1]
