"""Products of a backward pass read transposed matrices where they lie."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coexec.core.processor import Support
from coexec.core.types import OpCall
from coexec.frontend import load
from coexec.frontend.specialise import specialise
from coexec.ops.builder import PHASE
from coexec.ops.node import type_of
from coexec.passes.kept import BACKWARD
from coexec.passes.transposed_products import read_transposed
from tests.graphs import evaluate, parse

BOTH = (
    "g (float[2,3,7,5] a, float[2,3,4,7] b) => (float[2,3,5,4] y)"
    " { s = Transpose<perm = [0, 1, 3, 2]>(a) t = Transpose<perm = [0, 1, 3, 2]>(b)"
    " y = MatMul(s, t) }"
)
TWICE = (
    "g (float[2,7,5] a, float[2,7,4] b) => (float[2,5,4] y, float[2,5,7] z)"
    " { s = Transpose<perm = [0, 2, 1]>(a) y = MatMul(s, b) z = Abs(s) }"
)


def yes(_call: OpCall) -> Support:
    return Support(True)


def backward(text: str) -> ir.Model:
    model = specialise(load(parse(text)), {}, {})
    for node in model.graph:
        node.metadata_props[PHASE] = BACKWARD
    return model


@pytest.mark.parametrize(
    ("text", "left"),
    [(BOTH, ["TransposedMatMul"]), (TWICE, ["Transpose", "TransposedMatMul", "Abs"])],
)
def test_copies_go_that_nobody_else_reads(text: str, left: list[str]) -> None:
    model = backward(text)
    rng = np.random.default_rng(0)
    feeds = {
        str(value.name): rng.standard_normal(type_of(value).shape).astype(np.float32)
        for value in model.graph.inputs
    }
    expected = evaluate(model, feeds)
    assert read_transposed(model.graph, yes) == 1
    assert [node.op_type for node in model.graph] == left
    for name, value in evaluate(model, feeds).items():
        np.testing.assert_array_equal(value, expected[name])


def test_what_is_not_supported_stays() -> None:
    model = backward(BOTH)
    assert read_transposed(model.graph, lambda call: Support(False, "no kernel")) == 0
    assert [node.op_type for node in model.graph] == ["Transpose", "Transpose", "MatMul"]
    assert all(len(value.uses()) == 1 for value in model.graph.inputs)


OTHER_AXES = (
    "g (float[5,7,2] a, float[2,7,4] b) => (float[2,7,4] y)"
    " { s = Transpose<perm = [2, 1, 0]>(a) t = Transpose<perm = [0, 2, 1]>(s) u = Relu(t)"
    " v = Transpose<perm = [2, 1, 0]>(a) w = MatMul(u, b) y = MatMul(v, w) }"
)
ONE_MATRIX = TWICE.replace("float[2,7,4] b", "float[7,4] b")


@pytest.mark.parametrize("text", [OTHER_AXES, ONE_MATRIX])
def test_other_products_stay(text: str) -> None:
    model = backward(text)
    before = [node.op_type for node in model.graph]
    assert read_transposed(model.graph, yes) == 0
    assert [node.op_type for node in model.graph] == before


def test_products_of_other_phases_stay() -> None:
    model = specialise(load(parse(BOTH)), {}, {})
    assert read_transposed(model.graph, yes) == 0
