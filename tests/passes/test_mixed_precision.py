"""Casts go around products and what follows them; the rest of the graph keeps float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.frontend import load
from coexec.ops.node import type_of
from coexec.passes.clean import clean
from coexec.passes.mixed_precision import HALF, SINGLE, mixed_precision
from tests.graphs import evaluate, parse


def mixed(graph: str) -> ir.Model:
    model = load(parse(graph))
    mixed_precision(model)
    clean(model)
    return model


def computed_in(model: ir.Model, op_type: str) -> list[np.dtype[np.generic]]:
    return [type_of(n.outputs[0]).dtype for n in model.graph if n.op_type == op_type]


CHAIN = (
    "g (float[2,3] x, float[3,4] w, float[4,2] v) => (float[2,2] y) "
    "{ h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
)


def test_what_lies_between_products_stays_in_float16() -> None:
    model = mixed(CHAIN)
    assert computed_in(model, "MatMul") == [HALF, HALF]
    assert computed_in(model, "Relu") == [HALF]
    # x, w and v are cast once each, and the output back: nothing in between.
    assert len(computed_in(model, "Cast")) == 4


def test_outputs_keep_their_name_and_type() -> None:
    model = mixed(CHAIN)
    (output,) = model.graph.outputs
    assert (output.name, type_of(output).dtype) == ("y", SINGLE)


def test_results_agree_within_float16() -> None:
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 3), "w": (3, 4), "v": (4, 2)}
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    expected = evaluate(load(parse(CHAIN)), feeds)["y"]
    found = evaluate(mixed(CHAIN), feeds)["y"]
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)
    assert np.any(found != expected)


def test_losses_and_what_has_a_float32_operand_stay_in_float32() -> None:
    model = mixed(
        "g (float[2,3] x, float[3,3] w) => (float[2,3] y) "
        "{ h = MatMul(x, w) s = LogSoftmax(h) a = Add(s, h) y = Relu(a) }"
    )
    assert computed_in(model, "MatMul") == [HALF]
    for op_type in ("LogSoftmax", "Add", "Relu"):
        assert computed_in(model, op_type) == [SINGLE]


def test_attention_and_normalised_rows_stay_in_float16() -> None:
    """Kernels take their sums in float32 whatever they read."""
    model = mixed(
        "g (float[2,3] x, float[3,3] w) => (float[2,3] y) "
        "{ h = MatMul(x, w) p = Softmax(h) q = MatMul(p, w) "
        "s = Constant<value = float[3] {1, 2, 3}>() "
        "n = LayerNormalization(q, s) y = MatMul(n, w) }"
    )
    for op_type in ("MatMul", "Softmax", "LayerNormalization"):
        assert set(computed_in(model, op_type)) == {HALF}
    # x and w are cast once each, and the output back: nothing in between.
    assert len(computed_in(model, "Cast")) == 3


def test_batch_norm_keeps_its_parameters_in_float32() -> None:
    model = mixed(
        "g (float[2,3,4] x, float[4,3,1] w, float[4] s, float[4] b, float[4] m, float[4] v) "
        "=> (float[2,4,4] y) { h = Conv(x, w) y = BatchNormalization(h, s, b, m, v) }"
    )
    (norm,) = [node for node in model.graph if node.op_type == "BatchNormalization"]
    kinds = [type_of(value).dtype for value in norm.inputs if value is not None]
    assert kinds == [HALF, *[SINGLE] * 4]


def test_numbers_are_converted_ahead_of_time() -> None:
    model = mixed(
        "g (float[2,3] x, float[3,3] w) => (float[2,3] y) "
        "{ h = MatMul(x, w) low = Constant<value = float {0}>() y = Clip(h, low) }"
    )
    assert computed_in(model, "Clip") == [HALF]
    assert len(computed_in(model, "Cast")) == 3
