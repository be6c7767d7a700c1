"""Which dequantisations readers repeat for themselves, so that integers move and not floats."""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.node import constant_of


def is_repeated(node: ir.Node) -> bool:
    """Whether whoever reads ``node``'s floats may make them of its integers itself.

    So it is where integers that the model computes have one known scale and zero point, and nobody
    outside wants the floats.
    """
    if node.op_type != "DequantizeLinear" or node.outputs[0].is_graph_output():
        return False
    value, *steps = node.inputs
    known = [None if each is None else constant_of(each) for each in steps]
    one = all(array is not None and array.size == 1 for array in known)
    return one and value is not None and constant_of(value) is None


def integers_of(node: ir.Node) -> ir.Value:
    """What a dequantisation reads."""
    value = node.inputs[0]
    assert value is not None
    return value
