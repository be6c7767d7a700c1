"""Caches of one length for all runs: where past and present share a buffer, nothing is padded.

GroupQueryAttention writes new keys and values into a cache, which it makes longer first where the
total length says so. A cache that is carried from run to run has the length that it has.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

SCATTER, PAD = "TensorScatter", "Pad"


def fix_caches(model: ir.Model, carried: Mapping[str, str]) -> ir.Model:
    """A copy of a model in which no cache is padded whose output (key) is its input again."""
    result = model.clone()
    for value in result.graph.outputs:
        writer, name = value.producer(), carried.get(str(value.name))
        if name is None or writer is None or writer.op_type != SCATTER:
            continue
        cache = writer.inputs[0]
        padded = None if cache is None else cache.producer()
        if padded is None or padded.op_type != PAD:
            continue
        past = padded.inputs[0]
        if past is not None and past.is_graph_input() and past.name == name:
            writer.replace_input_with(0, past)
    return result
