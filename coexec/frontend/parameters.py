"""Which initializers are weights, where somebody knows: PyTorch, or a file of its newer exporter.

ONNX itself does not tell parameters from buffers and constants: without such a word, every
floating-point initializer of rank 1 and more is taken for a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx_ir as ir

from coexec.ops.batch_norm import statistics_of
from coexec.ops.node import CONSTANT_MARK, PARAMETER_MARK, is_parameter

KIND = "pkg.torch.export.graph_signature.InputSpec.kind"
"""Where ``torch.onnx.export(dynamo=True)`` says what an initializer was in the module."""

PARAMETER = "PARAMETER"


def tell_by_exporter(graph: ir.Graph) -> None:
    """Mark initializers by what PyTorch's exporter says of them; others stay as they are."""
    _mark(graph, _told)


def tell_by_names(graph: ir.Graph, trained: Collection[str]) -> None:
    """Mark the initializers that are trained, and as constants those that are not."""
    _mark(graph, lambda value: value.name in trained)


def _told(value: ir.Value) -> bool | None:
    kind = value.metadata_props.get(KIND)
    return None if kind is None else kind == PARAMETER


def _mark(graph: ir.Graph, trained: Callable[[ir.Value], bool | None]) -> None:
    """Statistics of normalisations are neither: training replaces them in its own way."""
    statistics = statistics_of(graph)
    for value in graph.initializers.values():
        known = trained(value)
        if known is None or value in statistics or not is_parameter(value):
            continue
        value.metadata_props.pop(PARAMETER_MARK, None)
        value.metadata_props[PARAMETER_MARK if known else CONSTANT_MARK] = "1"
