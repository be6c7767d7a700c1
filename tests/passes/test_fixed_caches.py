"""A cache that is its own input again is not padded."""

from __future__ import annotations

import onnx_ir as ir

from coexec.frontend import load
from coexec.passes.fixed_caches import fix_caches
from tests.graphs import parse

CACHE = (
    "g (float[1,1,64] q, float[1,2,L,32] pk, float[1,2,L,32] pv, int32[1] last, int32 total)"
    " => (float[1,1,64] y, float[1,2,L,32] k, float[1,2,L,32] v)"
    " { y, k, v = com.microsoft.GroupQueryAttention<num_heads = 2, kv_num_heads = 2>"
    "(q, q, q, pk, pv, last, total) }"
)


def pads(model: ir.Model) -> int:
    return sum(node.op_type == "Pad" and bool(node.outputs[0].uses()) for node in model.graph)


def test_only_caches_that_are_carried_have_one_length() -> None:
    model = load(parse(CACHE, 23, domains='"com.microsoft" : 1'))
    assert pads(model) == 2
    assert pads(fix_caches(model, {"k": "pk"})) == 1
    assert pads(fix_caches(model, {"k": "pk", "v": "pv"})) == 0
    assert pads(fix_caches(model, {"k": "pv", "y": "q"})) == 2
    assert pads(model) == 2
