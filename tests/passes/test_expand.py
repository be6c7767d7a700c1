"""Operators nobody wants are replaced by their bodies, and the results stay the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coexec.core.types import Array, TensorType
from coexec.frontend import load, specialise
from coexec.ops.builder import PHASE, SOURCE, GraphBuilder
from coexec.ops.opdef import Example, OpDef, Sample
from coexec.ops.table import OPERATORS
from coexec.passes.expand import expand
from tests.graphs import evaluate, parse
from tests.running import assert_close

CASES = [
    pytest.param(op, example, id=f"{op.identifier}-{i}")
    for op in OPERATORS.values()
    if op.body is not None
    for i, example in enumerate(op.examples)
]


def one_node(
    op: OpDef, example: Example, operands: list[Array | None]
) -> tuple[ir.Model, dict[str, Array]]:
    """A model of one node, and the feeds of its inputs; operands known ahead are initializers."""
    version = max(example.version, 21)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": version}, name="g")
    builder = GraphBuilder(graph, "backward")
    builder.source = "origin"
    values: list[ir.Value | None] = []
    feeds = {}
    for number, (spec, array) in enumerate(zip(example.inputs, operands, strict=True)):
        if array is None:
            values.append(None)
        elif isinstance(spec, Sample) and not spec.constant:
            values.append(builder.input(f"x{number}", TensorType.of(array)))
            feeds[f"x{number}"] = array
        else:
            values.append(builder.initializer(f"c{number}", np.asarray(array)))
    outputs = builder.ops(
        op.op_type, values, example.attributes, outputs=example.outputs, domain=op.domain
    )
    graph.outputs.extend(outputs)
    return ir.Model(graph, ir_version=10), feeds


@pytest.mark.parametrize(("op", "example"), CASES)
def test_every_body_computes_what_its_operator_does(
    op: OpDef, example: Example, rng: np.random.Generator
) -> None:
    operands = example.draw(rng)
    model, feeds = one_node(op, example, operands)
    call = example.call(op, operands)
    expected = op.reference(call, operands)
    assert op.body is not None
    if op.body(call) is None:  # a body may leave out special cases, which it says by None
        assert expand(model, lambda call: True) == 0
        return
    while expand(model, lambda call: OPERATORS[call.identifier].body is not None):
        model = specialise(model)
    assert not model.functions
    own = {f"{node.domain}::{node.op_type}" for node in model.graph if node.domain}
    # ONNX leaves open which numbers are drawn: one operator of ours says so for all.
    allowed = {"coexec::RandomNumbers"} if op.random else set()
    assert own <= allowed, f"the body of {op.identifier} is not of standard operators alone"
    found = list(evaluate(model, feeds).values())
    for result, wanted, kind in zip(found, expected, call.outputs, strict=False):
        if kind is not None:
            tolerance = op.tolerance
            assert_close(result, np.asarray(wanted), 4 * tolerance.relative, 4 * tolerance.absolute)


def test_bodies_of_our_own_operators_fit_a_newer_opset(rng: np.random.Generator) -> None:
    op = OPERATORS["coexec::GeluGrad"]
    model, _ = one_node(op, op.examples[0], op.examples[0].draw(rng))
    model.graph.opset_imports[""] = 23
    assert expand(model, lambda call: True) == 1
    assert model.graph.opset_imports[""] == 23


def test_bodies_in_a_model_without_phases_get_none(rng: np.random.Generator) -> None:
    """Differentiation then takes them for nodes of the forward pass."""
    op = OPERATORS["LSTM"]
    model, _ = one_node(op, op.examples[0], op.examples[0].draw(rng))
    for node in model.graph:
        del node.metadata_props[PHASE]
    assert expand(model, lambda call: True) == 1
    assert not any(PHASE in node.metadata_props for node in model.graph)


def test_nodes_of_a_body_keep_phase_and_source(rng: np.random.Generator) -> None:
    op = OPERATORS["coexec::GeluGrad"]
    model, _ = one_node(op, op.examples[0], op.examples[0].draw(rng))
    assert expand(model, lambda call: True) == 1
    nodes = list(model.graph)
    assert len(nodes) > 1
    assert {node.metadata_props[PHASE] for node in nodes} == {"backward"}
    assert {node.metadata_props[SOURCE] for node in nodes} == {"origin"}
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)


def test_calls_of_one_operator_on_other_types_get_bodies_of_their_own() -> None:
    text = (
        "g (float[2,6,4] x, float[1,6,8] z) => (float[2,6,4] y, float[1,6,8] w) "
        "<float[6] s = {1, 2, 3, 4, 5, 6}, float[6] b = {6, 5, 4, 3, 2, 1}> "
        "{ y = GroupNormalization<num_groups = 2>(x, s, b) "
        "w = GroupNormalization<num_groups = 3>(z, s, b) }"
    )
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((2, 6, 4)).astype(np.float32),
        "z": rng.standard_normal((1, 6, 8)).astype(np.float32),
    }
    model = load(parse(text))
    expected = evaluate(model, feeds)
    assert expand(model, lambda call: call.op_type == "GroupNormalization") == 2
    found = evaluate(specialise(model), feeds)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def test_what_is_wanted_or_has_no_body_stays() -> None:
    model = load(parse("g (float[3,4] x) => (float[3,4] y) { a = Relu(x) y = Neg(a) }"))
    before = [node.op_type for node in model.graph]
    assert expand(model, lambda call: False) == 0
    assert expand(model, lambda call: True) == 0
    assert [node.op_type for node in model.graph] == before
