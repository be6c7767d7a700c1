"""Operators with weights of low rank become two cheaper ones that compute the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.frontend import load
from coexec.ops.node import is_parameter
from coexec.passes.low_rank import Factorised, by_cost, by_energy, factorise
from tests.graphs import parse

EXACT = by_energy(1 - 1e-9)
CASES = {
    "conv": (
        "float[2,6,7,7] x",
        "float[2,16,3,3] y",
        "float[16,6,3,3] w, float[16] c",
        "[n] y = Conv<strides = [2, 2], pads = [1, 0, 0, 1], dilations = [1, 2]>(x, w, c)",
    ),
    "conv with open batch": (
        "float[N,6,9] x",
        "float[N,16,M] y",
        "float[16,6,3] w",
        '[n] y = Conv<auto_pad = "SAME_UPPER">(x, w)',
    ),
    "product": (
        "float[12,3] x",
        "float[3,10] y",
        "float[12,10] w, float[10] c",
        "[n] y = Gemm<alpha = 2.0, beta = 0.5, transA = 1>(x, w, c)",
    ),
    "transposed product": (
        "float[3,12] x",
        "float[3,10] y",
        "float[10,12] w, float[10] c",
        "[n] y = Gemm<alpha = 2.0, transB = 1>(x, w, c)",
    ),
    "product of rank 3": (
        "float[2,3,12] x",
        "float[2,3,10] y",
        "float[12,10] w",
        "[n] y = MatMul(x, w)",
    ),
}
SHAPES = {"conv with open batch": (2, 6, 9)}


def network(case: str) -> ir.Model:
    x, y, weights, node = CASES[case]
    return with_weights(f"g ({x}, {weights}) => ({y}) {{ {node} }}")


def with_weights(text: str, rank: int = 2) -> ir.Model:
    """A model whose inputs but the first are initializers, all matrices of them of this rank."""
    model = load(parse(text))
    rng = np.random.default_rng(0)
    for value in list(model.graph.inputs)[1:]:
        assert value.shape is not None
        shape = tuple(value.shape.numpy())
        array = rng.standard_normal(shape)
        if len(shape) > 1:
            left = rng.standard_normal((shape[0], rank))
            array = (left @ rng.standard_normal((rank, array[0].size))).reshape(shape)
        value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def outputs(model: ir.Model, x: Array) -> Array:
    """What ONNX Runtime makes of the model."""
    text = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def data(model: ir.Model, case: str) -> Array:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    sizes = SHAPES.get(case) or tuple(shape.numpy())
    return np.random.default_rng(1).standard_normal(sizes).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_weights_of_low_rank_give_the_same_result_with_less_work(case: str) -> None:
    model = network(case)
    x = data(model, case)
    expected = outputs(model, x)
    before = elements(model)
    (done,) = factorise(model, EXACT)
    assert (done.node, done.rank) == ("n", 2)
    assert done.energy == pytest.approx(1)
    assert [node.op_type for node in model.graph] == [done.op_type] * 2
    assert list(model.graph)[1].name == "n"
    assert elements(model) == pytest.approx(before * done.share)
    np.testing.assert_allclose(outputs(model, x), expected, rtol=1e-4, atol=1e-4)
    # The result is a model like any other: its shapes fit.
    load(ir.to_proto(model), {"x": x.shape})


def elements(model: ir.Model) -> int:
    """Elements of all weights with more than one axis."""
    values = [v for v in model.graph.initializers.values() if is_parameter(v)]
    arrays = [v.const_value.numpy() for v in values if v.const_value is not None]
    return sum(array.size for array in arrays if array.ndim > 1)


def test_the_rank_follows_the_share_of_the_work() -> None:
    model = with_weights("g (float[1,64] x, float[64,64] w) => (float[1,64] y) "
                         "{ [n] y = MatMul(x, w) }", rank=64)  # fmt: skip
    x = np.random.default_rng(1).standard_normal((1, 64)).astype(np.float32)
    expected = outputs(model, x)
    (done,) = factorise(model, by_cost(0.5))
    assert (done.rank, done.share, done.full_rank) == (16, 0.5, 64)
    # The error is the energy that was left out.
    error = np.linalg.norm(outputs(model, x) - expected) / np.linalg.norm(expected)
    assert error == pytest.approx(np.sqrt(1 - done.energy), rel=0.3)


def test_less_energy_means_lower_rank() -> None:
    ranks = []
    for share in (0.5, 0.9, 0.999):
        model = with_weights("g (float[1,64] x, float[64,64] w) => (float[1,64] y) "
                             "{ y = MatMul(x, w) }", rank=20)  # fmt: skip
        (done,) = factorise(model, by_energy(share))
        assert done.energy >= share
        ranks.append(done.rank)
    assert ranks == sorted(set(ranks))
    assert ranks[-1] <= 20


LEFT_ALONE = {
    "grouped convolution": (
        "g (float[1,8,5,5] x, float[16,4,3,3] w) => (float[1,16,3,3] y) "
        "{ y = Conv<group = 2>(x, w) }"
    ),
    "weights read twice": (
        "g (float[3,12] x, float[12,12] w) => (float[3,12] y) { h = MatMul(x, w) y = MatMul(h, w) }"
    ),
    "no work to save": (
        "g (float[1,2,5,5] x, float[2,2,1,1] w) => (float[1,2,5,5] y) { y = Conv(x, w) }"
    ),
    "batches of matrices": (
        "g (float[4,3,12] x, float[4,12,10] w) => (float[4,3,10] y) { y = MatMul(x, w) }"
    ),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_cannot_be_divided_or_saves_nothing_stays(case: str) -> None:
    model = with_weights(LEFT_ALONE[case])
    before = [node.op_type for node in model.graph]
    nothing: list[Factorised] = []
    assert factorise(model, EXACT) == nothing
    assert [node.op_type for node in model.graph] == before


def test_weights_of_zero_become_zeros_of_rank_one() -> None:
    model = network("product of rank 3")
    model.graph.initializers["w"].const_value = ir.tensor(np.zeros((12, 10), np.float32))
    (done,) = factorise(model, EXACT)
    assert (done.rank, done.energy) == (1, 1.0)
    assert not outputs(model, data(model, "product of rank 3")).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_outside_its_bounds_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        by_cost(share)
    with pytest.raises(UsageError, match="between 0 and 1"):
        by_energy(share)
