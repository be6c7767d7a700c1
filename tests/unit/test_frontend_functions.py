"""Functions of the model and of ONNX, inlined; subgraphs; names."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from coexec.core.types import Array
from coexec.frontend import functions, load, unsupported
from coexec.ops.table import OPERATORS
from tests.graphs import evaluate, parse


def test_function_with_attribute_and_older_opset(rng: np.random.Generator) -> None:
    """The body is written in opset 11 with its axes as a parameter; the model is in opset 21."""
    body = (
        '<domain: "f", opset_import: ["": 11]> Center <axes> (a) => (b) '
        "{ m = ReduceMean<axes: ints = @axes, keepdims = 1>(a) b = Sub(a, m) }"
    )
    graph = (
        "g (float[2,3] x) => (float[2,3] y) "
        "{ c = f.Center<axes = [0]>(x) y = f.Center<axes = [1]>(c) }"
    )
    model = load(parse(graph, domains='"f": 1', functions=body))
    assert [node.op_type for node in model.graph] == ["ReduceMean", "Sub"] * 2
    x = rng.normal(size=(2, 3)).astype(np.float32)
    centred = x - x.mean(axis=0, keepdims=True)
    expected = centred - centred.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(evaluate(model, {"x": x})["y"], expected, atol=1e-6)


def test_nested_functions_and_unique_names(rng: np.random.Generator) -> None:
    bodies = (
        '<domain: "f", opset_import: ["": 21, "f": 1]> Outer (a) => (b) '
        "{ t = f.Inner(a) b = f.Inner(t) } "
        '<domain: "f", opset_import: ["": 21]> Inner (a) => (b) { t = Exp(a) b = Neg(t) }'
    )
    graph = "g (float[3] x) => (float[3] y) { t = f.Outer(x) y = f.Outer(t) }"
    model = load(parse(graph, domains='"f": 1', functions=bodies))
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names) == 8
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    x = rng.normal(size=3).astype(np.float32)
    expected = x
    for _ in range(4):
        expected = -np.exp(expected)
    np.testing.assert_allclose(evaluate(model, {"x": x})["y"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("Celu<alpha = 2.0>(x)", lambda x: np.maximum(x, 0) + np.minimum(0, 2 * np.expm1(x / 2))),
        (
            "Shrink<lambd = 0.5, bias = 0.1>(x)",
            lambda x: np.where(x < -0.5, x + 0.1, np.where(x > 0.5, x - 0.1, 0)),
        ),
        (
            "LayerNormalization(x, s)",
            lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
        ),
        (
            'Gelu<approximate = "tanh">(x)',
            lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        ),
    ],
)
def test_operators_without_opdef_are_expanded_from_their_schema(
    operator: str,
    expected: Callable[[Array], Array],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fixed bodies (Shrink) and bodies that depend on types and attributes alike."""
    name = operator[: min(operator.index(c) for c in "<(" if c in operator)]
    fewer = MappingProxyType({key: op for key, op in OPERATORS.items() if key != name})
    monkeypatch.setattr(functions, "OPERATORS", fewer)
    monkeypatch.setattr(unsupported, "OPERATORS", fewer)
    graph = f"g (float[2,4] x) => (float[2,4] y) <float[4] s = {{1, 1, 1, 1}}> {{ y = {operator} }}"
    model = load(parse(graph, 28 if name == "Celu" else 21))
    assert name not in {node.op_type for node in model.graph}
    x = rng.normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(model, {"x": x})["y"], expected(x), rtol=1e-4, atol=1e-5)


def test_absent_optional_outputs_stay_absent(rng: np.random.Generator) -> None:
    graph = (
        "g (float[2,3] x) => (float[2,3] y) <float[3] s = {1, 1, 1}> "
        "{ y, , inv = LayerNormalization(x, s) }"
    )
    (node,) = load(parse(graph)).graph
    assert [value.name for value in node.outputs if value.name] == ["y"]


def test_unsorted_nodes_are_sorted() -> None:
    proto = parse("g (float[3] x) => (float[3] y) { a = Exp(x) y = Neg(a) }")
    proto.graph.node.reverse()
    assert [node.op_type for node in load(proto).graph] == ["Exp", "Neg"]


def test_dead_nodes_do_not_count() -> None:
    """An operator nobody reads may be unsupported."""
    graph = "g (float[3] x) => (float[3] y) { unused = NonZero(x) y = Neg(x) }"
    assert [node.op_type for node in load(parse(graph)).graph] == ["Neg"]
