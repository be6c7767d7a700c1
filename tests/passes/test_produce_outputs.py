"""After the pass every graph output has a node of its own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coexec.frontend import load
from coexec.ops.node import type_of
from coexec.passes.produce_outputs import produce_outputs
from tests.graphs import evaluate, parse

X = np.array([1, -2, 3], np.float32)
CASES = {
    "a node's result": "g (float[3] x) => (float[3] y) { y = Neg(x) }",
    "an input": "g (float[3] x) => (float[3] y, float[3] x) { y = Neg(x) }",
    "a weight": "g (float[3] x) => (float[3] y, float[3] w) <float[3] w = {4, 5, 6}> "
    "{ y = Mul(x, w) }",
    "an unread weight": "g (float[3] x) => (float[3] y, float[3] w) <float[3] w = {4, 5, 6}> "
    "{ y = Neg(x) }",
}


def loaded(text: str) -> ir.Model:
    return load(parse(text))


@pytest.mark.parametrize("case", CASES)
def test_every_output_has_its_own_node_and_its_value(case: str) -> None:
    model = loaded(CASES[case])
    before = evaluate(loaded(CASES[case]), {"x": X})
    kinds = [type_of(value) for value in model.graph.outputs]
    produce_outputs(model.graph)
    values = list(model.graph.outputs)
    producers = [value.producer() for value in values]
    assert None not in producers
    assert len(set(values)) == len(values)
    assert [type_of(value) for value in values] == kinds
    after = list(evaluate(model, {"x": X}).values())
    for expected, found in zip(before.values(), after, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_one_value_that_stands_twice() -> None:
    model = loaded(CASES["a node's result"])
    model.graph.outputs.append(model.graph.outputs[0])
    produce_outputs(model.graph)
    first, second = model.graph.outputs
    assert first is not second
    assert first.name == "y"
    results = evaluate(model, {"x": X})
    assert len(results) == 2
    for found in results.values():
        np.testing.assert_array_equal(found, -X)


def test_names_of_weights_stay_with_the_output() -> None:
    model = loaded(CASES["a weight"])
    produce_outputs(model.graph)
    assert [value.name for value in model.graph.outputs] == ["y", "w"]
    names = [v.name for n in model.graph for v in n.outputs] + list(model.graph.initializers)
    assert len(names) == len(set(names))


def test_nothing_changes_where_nothing_is_missing() -> None:
    model = loaded(CASES["a node's result"])
    produce_outputs(model.graph)
    produce_outputs(model.graph)
    assert [node.op_type for node in model.graph] == ["Neg"]
