"""Equal constants become one; weights do not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.frontend import load
from coexec.frontend.specialise import specialise
from coexec.passes.clean import clean
from coexec.passes.share_constants import LARGEST, share_constants
from tests.graphs import parse

TWICE = (
    "g (int64[4] x) => (int64[4] y, int64[4] z) {"
    " a = Constant<value_ints = [3]>() b = Constant<value_ints = [3]>()"
    " c = Constant<value_ints = [4]>() p = Add(x, a) q = Add(x, b) y = Mul(p, c) z = Sub(q, c) }"
)


def test_nodes_that_compute_the_same_are_merged() -> None:
    model = specialise(load(parse(TWICE)), {}, {})
    clean(model)
    assert len(model.graph) == 4
    share_constants(model.graph)
    clean(model)
    assert sorted(node.op_type for node in model.graph) == ["Add", "Mul", "Sub"]
    assert len(model.graph.initializers) == 2


def test_weights_tables_and_other_types_stay_apart() -> None:
    graph = specialise(load(parse(TWICE)), {}, {}).graph
    table = np.zeros(LARGEST // 4 + 1, np.float32)
    arrays = {
        **{f"weight{i}": np.ones(3, np.float32) for i in range(2)},
        **{f"table{i}": table for i in range(2)},
        "flag": np.array([3], np.int32),
    }
    for name, array in arrays.items():
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        if not name.startswith("weight"):
            value.metadata_props["coexec.constant"] = "1"
        graph.register_initializer(value)
    share_constants(graph)
    assert arrays.keys() <= graph.initializers.keys()
