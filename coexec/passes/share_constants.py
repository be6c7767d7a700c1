"""Equal small constants become one, so that nodes which compute the same from them are merged.

Operators that are written out in others (GroupQueryAttention in each layer of a language model)
bring constants of their own: places of rows, masks and rotations would be made for every layer.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.ops.node import CONSTANT_MARK, constant_of

LARGEST = 1 << 16
"""Bytes; larger ones are tables, which few nodes have."""


def share_constants(graph: ir.Graph) -> None:
    """Let readers of equal constants read the first of them; in place. Weights stay as they are."""
    first: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        array = constant_of(value)
        if array is None or array.nbytes > LARGEST or CONSTANT_MARK not in value.metadata_props:
            continue
        if value.is_graph_output() or value.is_graph_input():
            continue
        kept = first.setdefault((array.dtype.name, array.shape, array.tobytes()), value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            del graph.initializers[name]
