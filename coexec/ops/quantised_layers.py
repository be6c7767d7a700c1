"""Layers of a quantised model: what multiplies dequantised values by known weights."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import Region, RegionNode

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
BETWEEN = frozenset({"Relu", "Clip"})
"""Activations that a quantisation behind them takes into its bounds."""
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
NOT_KNOWN = "its weights are not known ahead"
NOT_QUANTISED = "its result is not quantised"


def quantised_layers(region: Region) -> dict[str, str]:
    """Names of the layers of ``region``, each with why nobody can compute it on bytes, or "".

    A layer is what reads dequantised values beside weights.
    """
    makers = {name: node for node in region.nodes for name in node.outputs}
    readers: dict[str, list[RegionNode]] = {}
    for node in region.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    found: dict[str, str] = {}
    for node in region.nodes:
        maker = makers.get(node.inputs[0]) if node.inputs else None
        quantised = maker is not None and maker.call.identifier == DEQUANTIZE
        if node.call.identifier not in WEIGHTED or not quantised:
            continue
        known = node.inputs[1] in region.constants
        whole = _is_quantised(node.outputs[0], region, readers)
        found[node.call.name] = NOT_KNOWN if not known else "" if whole else NOT_QUANTISED
    return found


def _is_quantised(name: str, region: Region, readers: Mapping[str, list[RegionNode]]) -> bool:
    """Whether all that reads a value quantises it, or does so behind an activation."""
    after = readers.get(name, [])
    return (
        bool(after)
        and name not in region.outputs
        and all(
            node.call.identifier == QUANTIZE
            or (
                node.call.identifier in BETWEEN
                and node.inputs[0] == name
                and _is_quantised(node.outputs[0], region, readers)
            )
            for node in after
        )
    )
