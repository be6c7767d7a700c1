"""Which layers of a quantised model a plan computes in floats, where, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.types import Region
from coexec.ops.quantised_layers import DEQUANTIZE, quantised_layers
from coexec.ops.region import region_of


@dataclass(frozen=True)
class QuantisedLayers:
    """``layers`` counts those of a plan's model; ``in_floats`` are those that fall back to floats.

    A divided layer falls back on each processor by itself.
    """

    layers: int = 0
    in_floats: tuple[InFloats, ...] = ()

    @property
    def on_bytes(self) -> int:
        """Layers that no processor computes in floats."""
        return self.layers - len({each.node for each in self.in_floats})

    def table(self) -> str:
        """Those in floats as text, a line per operator, processor and reason; empty if none is."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for each in self.in_floats:
            groups.setdefault((each.processor, each.operator, each.reason), []).append(each.node)
        return "\n".join(
            f"{operator} x{len(nodes)} on {processor}: {reason} ({', '.join(nodes[:3])}"
            f"{', ...' if len(nodes) > 3 else ''})"
            for (processor, operator, reason), nodes in sorted(groups.items())
        )


NO_LAYERS = QuantisedLayers()
"""Of a model that is not quantised."""


@dataclass(frozen=True)
class InFloats:
    """A quantised layer ``node`` that ``processor`` computes in floats, and why."""

    node: str
    operator: str
    processor: str
    reason: str


def quantised_region(graph: ir.Graph) -> Region | None:
    """The whole graph, before a plan divides any of it, if it has layers that may be on bytes."""
    quantised = any(node.op_type == DEQUANTIZE for node in graph)
    return region_of(graph) if quantised else None


def layers_of(region: Region, plan: Plan, processors: Mapping[str, Processor]) -> QuantisedLayers:
    """Quantised layers of the whole model ``region`` that ``plan`` is of.

    Asked is what a processor makes of the whole model: where a plan cuts between a layer and its
    conversions, more of it may be in floats. Of those that are not in ``processors`` it is not
    known.
    """
    layers = quantised_layers(region)
    found = tuple(_in_floats(region, layers, plan, processors)) if layers else ()
    return QuantisedLayers(len(layers), found)


def _in_floats(
    region: Region, layers: dict[str, str], plan: Plan, processors: Mapping[str, Processor]
) -> Iterator[InFloats]:
    operators = {node.call.name: node.call.identifier for node in region.nodes}
    own = {n: processors[n].in_floats(region, layers) for n in plan.named if n in processors}
    for layer in layers:
        split = plan.splits.get(layer)
        places = [plan.processors[layer]] if split is None else [*split.sizes]
        for name in places:
            if layer in own.get(name, {}):
                yield InFloats(layer, operators[layer], name, own[name][layer])
