"""What may compute in float16 does, between casts; the rest stays in float32 and says why."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.frontend import load
from coexec.frontend.specialise import specialise
from coexec.ops.node import type_of
from coexec.ops.table import OPERATORS
from coexec.passes.clean import clean
from coexec.passes.float16 import (
    BEYOND,
    FEW,
    QUANTISED,
    READS_SINGLE,
    TOO_SMALL,
    Conversion,
    as_asked,
    in_precision,
    to_float16,
)
from coexec.passes.fold_for_inference import fold_for_inference
from coexec.passes.half_operators import (
    BOUNDED,
    CUTS,
    FIRST_RESULT,
    FOLLOWERS,
    ONLY_FIRST,
    PRODUCTS,
    STAYS,
    UNKNOWN,
)
from tests.graphs import evaluate, parse

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
WEIGHTS = {"w": np.linspace(-1, 1, 256, dtype=np.float32).reshape(16, 16)}


def static(graph: str, weights: Mapping[str, Array] = WEIGHTS) -> ir.Model:
    proto = parse(graph)
    model = ir.from_proto(proto)
    for name, array in weights.items():
        value = next((v for v in model.graph.inputs if v.name == name), None)
        if value is not None:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(array, name=name)
            model.graph.register_initializer(value)
    found = specialise(load(model), fold_parameters=True)
    fold_for_inference(found)
    return found


def converted(
    graph: str, weights: Mapping[str, Array] = WEIGHTS
) -> tuple[ir.Model, Conversion, dict[str, str]]:
    """The model, what became of it, and why nodes stay, by operator."""
    model = static(graph, weights)
    found = to_float16(model)
    clean(model)
    return model, found, {each.op_type: each.reason for each in found.kept}


def computed_in(model: ir.Model, op_type: str) -> list[np.dtype[np.generic]]:
    return [type_of(n.outputs[0]).dtype for n in model.graph if n.op_type == op_type]


CHAIN = (
    "g (float[4,16] x, float[16,16] w) => (float[4,16] y) "
    "{ h = MatMul(x, w) r = Relu(h) y = MatMul(r, w) }"
)
BEHIND = "g (float[4,16] x, float[16,16] w) => (float[4,16] y) { h = MatMul(x, w) %s }"
"""Something behind a product."""


def test_casts_are_at_the_ends_alone_and_weights_are_converted_once() -> None:
    model, found, kept = converted(CHAIN)
    assert computed_in(model, "MatMul") == [HALF, HALF]
    assert computed_in(model, "Relu") == [HALF]
    assert len(computed_in(model, "Cast")) == found.casts == 2
    assert (found.nodes, found.weights, found.weight_bytes, kept) == (3, 1, 512, {})


def test_inputs_and_outputs_keep_names_and_types() -> None:
    model, _, _ = converted(CHAIN)
    assert [(v.name, type_of(v).dtype) for v in model.graph.inputs] == [("x", SINGLE)]
    assert [(v.name, type_of(v).dtype) for v in model.graph.outputs] == [("y", SINGLE)]


def test_a_model_without_float32_says_that_it_stays_as_it_is() -> None:
    model = static("g (float16[4,16] x) => (float16[4,16] y) { y = Relu(x) }")
    assert to_float16(model).lines() == ["no node computes in float32: the model stays as it is"]


def test_results_agree_within_float16() -> None:
    x = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    expected = evaluate(static(CHAIN), {"x": x})["y"]
    found = evaluate(converted(CHAIN)[0], {"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)
    assert np.any(found != expected)


def test_a_value_that_is_an_output_and_read_in_float16_is_both() -> None:
    model, _, _ = converted(
        "g (float[4,16] x, float[16,16] w) => (float[4,16] h, float[4,16] y) "
        "{ h = MatMul(x, w) y = MatMul(h, w) }"
    )
    assert [type_of(v).dtype for v in model.graph.outputs] == [SINGLE, SINGLE]
    assert computed_in(model, "MatMul") == [HALF, HALF]
    feeds = {"x": np.ones((4, 16), np.float32)}
    found = evaluate(model, feeds)
    np.testing.assert_allclose(found["h"], feeds["x"] @ WEIGHTS["w"], rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize(
    ("behind", "op_type", "reason"),
    [
        ("y = Exp(h)", "Exp", STAYS["Exp"]),
        ("a = ReduceSum<keepdims=1>(h) y = Add(h, a)", "ReduceSum", STAYS["ReduceSum"]),
        ("c = Constant<value = float {1e9}>() y = Sub(h, c)", "Sub", BEYOND),
        ("c = Constant<value = float {1e-9}>() y = Add(h, c)", "Add", TOO_SMALL),
        ("y = Hardmax(h)", "Hardmax", UNKNOWN),
    ],
)
def test_what_float16_cannot_hold_stays_in_float32(behind: str, op_type: str, reason: str) -> None:
    model, _, kept = converted(BEHIND % behind)
    assert kept[op_type].endswith(reason)
    assert set(computed_in(model, op_type)) == {SINGLE}


def test_numbers_that_mask_scores_are_never_rounded_to_infinity() -> None:
    """The softmax of a row of infinities is no number."""
    model, _, kept = converted(
        "g (float[4,16] x, float[4,16] m, float[16,16] w) => (float[4,16] y) "
        "{ h = MatMul(x, w) c = Constant<value = float {-3e38}>() b = Mul(m, c) a = Add(h, b) "
        "s = Softmax(a) y = MatMul(s, w) }"
    )
    assert kept["Add"].endswith(BEYOND)
    assert kept["Softmax"].endswith(BEYOND)
    assert computed_in(model, "MatMul") == [HALF, HALF]
    x = np.zeros((4, 16), np.float32)
    found = evaluate(model, {"x": x, "m": np.ones_like(x)})["y"]
    np.testing.assert_allclose(found, np.full((4, 16), WEIGHTS["w"].mean(0)), atol=1e-3)


def test_a_bound_that_nothing_reaches_may_become_infinite() -> None:
    model, _, kept = converted(
        BEHIND % "a = Constant<value = float {0}>() b = Constant<value = float {3e38}>() "
        "y = Clip(h, a, b)"
    )
    assert not kept
    assert computed_in(model, "Clip") == [HALF]


def test_infinities_of_a_mask_are_kept() -> None:
    mask = np.where(np.tri(4, 16), 0.0, -np.inf).astype(np.float32)
    model, _, kept = converted(
        "g (float[4,16] x, float[16,16] w, float[4,16] m) => (float[4,16] y) "
        "{ h = MatMul(x, w) a = Add(h, m) y = Softmax(a) }",
        {**WEIGHTS, "m": mask},
    )
    assert not kept
    found = evaluate(model, {"x": np.zeros((4, 16), np.float32)})["y"]
    np.testing.assert_allclose(found, np.tri(4, 16) / np.arange(1, 5)[:, None], atol=1e-3)


def test_weights_beyond_float16_keep_their_product_in_float32() -> None:
    _, found, kept = converted(CHAIN, {"w": WEIGHTS["w"] * 1e6})
    assert found.nodes == 0
    assert kept["MatMul"].endswith(BEYOND)


def test_a_product_of_little_arithmetic_is_not_worth_its_casts() -> None:
    """Angles of rotary embeddings are an outer product: positions need all of their bits."""
    model, found, kept = converted(
        "g (float[64,1] x, float[1,32] f) => (float[64,32] y) { h = MatMul(x, f) y = Cos(h) }",
        {"f": np.ones((1, 32), np.float32)},
    )
    assert (found.nodes, found.casts) == (0, 0)
    assert kept == {"MatMul": FEW, "Cos": STAYS["Cos"]}
    assert not computed_in(model, "Cast")


def test_what_mostly_reads_float32_stays_in_it() -> None:
    _, _, kept = converted(
        "g (float[4,16] x, float[8,4,16] z, float[16,16] w) => (float[8,4,16] y) "
        "{ h = MatMul(x, w) y = Add(h, z) }"
    )
    assert kept == {"Add": READS_SINGLE}


def test_what_is_in_8_bits_stays_so() -> None:
    q = np.arange(256, dtype=np.int8).reshape(16, 16)
    _, found, kept = converted(
        "g (float[4,16] x, int8[16,16] q) => (float[4,16] y) "
        "{ s = Constant<value = float {0.01}>() w = DequantizeLinear(q, s) "
        "u = QuantizeLinear(x, s) d = DequantizeLinear(u, s) y = MatMul(d, w) }",
        {"q": q},
    )
    assert found.nodes == 0
    assert kept["MatMul"] == QUANTISED


def test_statistics_of_a_normalisation_stay_in_float32() -> None:
    four = np.ones(4, np.float32)
    model, _, _ = converted(
        "g (float[1,4,8] x, float[4,4,3] w, float[4] s) => (float[1,4,6] y) "
        "{ h = Conv(x, w) r = Relu(h) y = BatchNormalization(r, s, s, s, s) }",
        {"w": np.ones((4, 4, 3), np.float32), "s": four},
    )
    (norm,) = [node for node in model.graph if node.op_type == "BatchNormalization"]
    kinds = [type_of(value).dtype for value in norm.inputs if value is not None]
    assert kinds == [HALF, *[SINGLE] * 4]


def test_batch_norm_is_folded_in_float32_first() -> None:
    model, found, _ = converted(
        "g (float[1,4,8] x, float[4,4,3] w, float[4] s) => (float[1,4,6] y) "
        "{ h = Conv(x, w) y = BatchNormalization(h, s, s, s, s) }",
        {"w": np.full((4, 4, 3), 1e5, np.float32), "s": np.full(4, 1e-3, np.float32)},
    )
    assert [node.op_type for node in model.graph] == ["Cast", "Conv", "Cast"]
    assert (found.nodes, found.kept) == (1, ())


def test_rows_of_a_table_are_read_in_float16() -> None:
    model, found, _ = converted(
        "g (int64[4] i, float[16,16] w) => (float[4,16] y) { h = Gather(w, i) y = MatMul(h, w) }"
    )
    assert computed_in(model, "Gather") == [HALF]
    assert found.weights == 1


def test_a_second_conversion_changes_nothing() -> None:
    model, _, _ = converted(BEHIND % "y = Exp(h)")
    before = [(node.name, node.op_type) for node in model.graph]
    found = to_float16(model)
    assert (found.nodes, found.casts) == (0, 0)
    assert [(node.name, node.op_type) for node in model.graph] == before


def test_a_model_is_converted_where_that_was_asked_for() -> None:
    model = static(CHAIN)
    assert as_asked(in_precision(model, "float32")) is None
    asked = in_precision(model, "float16")
    found = as_asked(asked)
    assert found is not None
    assert found.nodes == 3
    assert computed_in(model, "MatMul") == [SINGLE, SINGLE]


def test_another_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="'float8' is unknown for inference; known: float32"):
        in_precision(static(CHAIN), "float8")


@pytest.mark.parametrize("name", sorted(PRODUCTS | FOLLOWERS))
def test_operators_on_the_list_take_float16(name: str) -> None:
    """What they make is of float16, or of no float."""
    op = OPERATORS[name]
    made = []
    for example in op.examples:
        operands = example.draw(np.random.default_rng(0))
        if operands[0] is None or all(o is None or o.dtype != SINGLE for o in operands[:2]):
            continue
        last = 1 if op.op_type in ONLY_FIRST else len(operands)
        halves = [
            o.astype(HALF) if o is not None and o.dtype == SINGLE and i < last else o
            for i, o in enumerate(operands)
        ]
        kinds = example.call(op, halves).outputs
        made += [kind.dtype for kind in kinds[: 1 if op.op_type in FIRST_RESULT else 9] if kind]
    assert made
    assert not any(kind.kind == "f" and kind != HALF for kind in made)


def test_the_list_names_operators() -> None:
    assert PRODUCTS | FOLLOWERS | STAYS.keys() | BOUNDED | CUTS <= OPERATORS.keys()


def test_no_operator_both_computes_in_float16_and_does_not() -> None:
    assert not (PRODUCTS | FOLLOWERS) & STAYS.keys()
    assert not PRODUCTS & FOLLOWERS
