"""Which layers of a quantised model a plan computes in floats, where, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coexec.cost.predicted import PredictedCosts
from coexec.ops.quantised_layers import quantised_layers
from coexec.ops.region import region_of
from coexec.planning.planner import Planning


@dataclass(frozen=True)
class QuantisedLayers:
    """``layers`` counts those of a plan's model; ``in_floats`` are those that fall back to floats.

    A divided layer falls back on each processor by itself.
    """

    layers: int
    in_floats: tuple[InFloats, ...]

    @property
    def on_bytes(self) -> int:
        """Layers that no processor computes in floats."""
        return self.layers - len({each.node for each in self.in_floats})


@dataclass(frozen=True)
class InFloats:
    """A quantised layer ``node`` that ``processor`` computes in floats, and why."""

    node: str
    operator: str
    processor: str
    reason: str


def layers_of(planning: Planning) -> QuantisedLayers:
    """Quantised layers of the planned model; of simulated processors it is not known how.

    Asked is what a processor makes of the whole model: where a plan cuts between a layer and its
    conversions, more of it may be in floats.
    """
    region = region_of(planning.model.graph)
    layers = quantised_layers(region)
    return QuantisedLayers(len(layers), tuple(_in_floats(planning, layers)) if layers else ())


def _in_floats(planning: Planning, layers: dict[str, str]) -> Iterator[InFloats]:
    region = region_of(planning.model.graph)
    operators = {node.call.name: node.call.identifier for node in region.nodes}
    named = {
        name: costs.processor
        for name, costs in planning.costs.items()
        if not isinstance(costs, PredictedCosts)
    }
    own = {name: each.in_floats(region, layers) for name, each in named.items()}
    for layer in layers:
        split = planning.plan.splits.get(layer)
        places = [planning.plan.processors[layer]] if split is None else [*split.sizes]
        for name in places:
            if layer in own.get(name, {}):
                yield InFloats(layer, operators[layer], name, own[name][layer])
