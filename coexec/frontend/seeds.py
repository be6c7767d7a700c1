"""Seeds for random operators that have none."""

from __future__ import annotations

from zlib import crc32

import onnx_ir as ir

from coexec.ops.random_numbers import DRAWING


def give_seeds(graph: ir.Graph) -> None:
    """A seed of its own for each node that draws and has none, by the name of its result.

    Names are unique, so that two nodes (or two steps of a loop) draw other numbers, and stay, so
    that a model draws the same ones again.
    """
    for node in graph:
        if node.domain == "" and node.op_type in DRAWING and "seed" not in node.attributes:
            seed = crc32(str(node.outputs[0].name).encode()) % 2**24  # as many as a float tells
            node.attributes["seed"] = ir.AttrFloat32("seed", float(seed))
