"""Cleaning removes what does no work and nothing else."""

from __future__ import annotations

import numpy as np

from coexec.frontend import load
from coexec.passes.clean import clean
from coexec.passes.training_mode import training_mode
from tests.graphs import evaluate, parse

X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)


def test_equal_nodes_are_merged_and_results_stay() -> None:
    model = load(
        parse(
            "g (float[2,3] x) => (float[2,3] y) "
            "{ a = Exp(x) b = Exp(x) c = Neg(a) d = Neg(b) y = Sub(c, d) }"
        )
    )
    expected = evaluate(model, {"x": X})["y"]
    clean(model)
    assert sorted(node.op_type for node in model.graph) == ["Exp", "Neg", "Sub"]
    np.testing.assert_array_equal(evaluate(model, {"x": X})["y"], expected)


def test_nodes_with_other_attributes_are_kept_apart() -> None:
    model = load(
        parse(
            "g (float[2,3] x) => (float[2,3] y) "
            "{ a = Softmax<axis = 0>(x) b = Softmax<axis = 1>(x) y = Sub(a, b) }"
        )
    )
    clean(model)
    assert [node.op_type for node in model.graph].count("Softmax") == 2


def test_unused_nodes_and_initializers_go() -> None:
    model = load(
        parse(
            "g (float[2,3] x) => (float[2,3] y) <float[3] w = {1, 2, 3}> "
            "{ a = Mul(x, w) b = Add(a, w) y = Relu(x) }"
        )
    )
    clean(model)
    assert [node.op_type for node in model.graph] == ["Relu"]
    assert list(model.graph.initializers) == []


def test_outputs_are_never_merged_away() -> None:
    model = load(
        parse("g (float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Exp(x) z = Exp(x) }")
    )
    clean(model)
    assert [value.name for value in model.graph.outputs] == ["y", "z"]


def test_two_masks_of_equal_shape_stay_two() -> None:
    """Merged, both dropouts would switch off the same elements."""
    model = load(
        parse(
            "g (float[2,3] x) => (float[2,3] y, float[2,3] z) <float r = {0.5}> "
            "{ y = Dropout(x, r) z = Dropout(x, r) }"
        )
    )
    training_mode(model, seed=0)
    clean(model)
    masks = [node for node in model.graph if node.op_type == "BernoulliMask"]
    assert len({node.attributes["seed"].as_int() for node in masks}) == 2
