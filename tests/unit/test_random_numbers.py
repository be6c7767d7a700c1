"""Random numbers: their distributions, their seeds, and a new draw in each step of a training."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from coexec.base.errors import ShapeError
from coexec.core.types import Array
from coexec.frontend import load
from coexec.ops.builder import ROLE, STEP
from coexec.passes.training_mode import training_mode
from tests.graphs import evaluate, parse

SIZE = 200 * 50


def drawn(body: str, kind: str = "float[200,50]", x: float = 0.0) -> Array:
    model = load(parse(f"g (float[200,50] x) => ({kind} y) {{ {body} }}", opset=22))
    return evaluate(model, {"x": np.full((200, 50), x, np.float32)})["y"]


@pytest.mark.parametrize("body", ["RandomNormalLike<{}>(x)", "RandomNormal<shape=[200,50],{}>()"])
def test_normal_numbers_have_their_mean_and_scale(body: str) -> None:
    y = drawn("y = " + body.format("mean=3.0, scale=2.0"))
    assert abs(y.mean() - 3) < 4 * 2 / np.sqrt(SIZE)
    assert abs(y.std() - 2) < 0.1
    assert abs(np.corrcoef(y[:, :-1].ravel(), y[:, 1:].ravel())[0, 1]) < 0.05
    inside = (np.abs(y - 3) < 2).mean()
    assert abs(inside - 0.6827) < 0.02


@pytest.mark.parametrize("body", ["RandomUniformLike<{}>(x)", "RandomUniform<shape=[200,50],{}>()"])
def test_uniform_numbers_fill_their_interval(body: str) -> None:
    y = drawn("y = " + body.format("low=-1.0, high=3.0"))
    assert y.min() >= -1
    assert y.max() < 3
    counts = np.histogram(y, 8, (-1, 3))[0]
    assert np.abs(counts - SIZE / 8).max() < 5 * np.sqrt(SIZE / 8)


def test_trials_succeed_as_often_as_they_should() -> None:
    y = drawn("y = Bernoulli<dtype=9>(x)", "bool[200,50]", x=0.3)
    assert y.dtype == np.bool_
    assert abs(y.mean() - 0.3) < 0.02
    assert not drawn("y = Bernoulli(x)", x=0.0).any()
    assert drawn("y = Bernoulli(x)", x=1.0).all()


def test_classes_are_drawn_by_their_chances() -> None:
    chances = np.array([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0]], np.float32)
    text = "g (float[2,3] x) => (int32[2,4000] y) { y = Multinomial<sample_size = 4000>(x) }"
    with np.errstate(divide="ignore"):
        y = evaluate(load(parse(text, opset=22)), {"x": np.log(chances)})["y"]
    assert np.all(y[1] == 1)
    shares = np.bincount(y[0], minlength=3) / 4000
    np.testing.assert_allclose(shares, chances[0], atol=0.03)


TWO = """g (float[4,5] x) => (float[4,5] a, float[4,5] b) {
    a = RandomNormalLike(x) b = RandomNormalLike%s(x)
}"""
X = np.zeros((4, 5), np.float32)


def test_nodes_without_a_seed_draw_apart_and_again_the_same() -> None:
    text = TWO % ""
    first, again = (evaluate(load(parse(text, opset=22)), {"x": X}) for _ in range(2))
    assert not np.array_equal(first["a"], first["b"])
    np.testing.assert_array_equal(first["a"], again["a"])


def test_a_seed_that_is_given_decides() -> None:
    text = TWO.replace("a = RandomNormalLike", "a = RandomNormalLike<seed = 2.5>")
    found = evaluate(load(parse(text % "<seed = 2.5>", opset=22)), {"x": X})
    np.testing.assert_array_equal(found["a"], found["b"])


def test_steps_of_a_loop_draw_apart() -> None:
    loop = """g (float[4] x) => (float[3,4] y) <int64 n = {3}, bool yes = {1}> {
        y = Loop(n, yes) <body = b (int64 i, bool c) => (bool d, float[4] z) {
            d = Identity(c) z = RandomUniformLike(x)
        }>
    }"""
    y = evaluate(load(parse(loop, opset=22)), {"x": np.zeros(4, np.float32)})["y"]
    assert len(np.unique(y)) == y.size


def trained(text: str, seed: int) -> ir.Model:
    model = load(parse(text, opset=22))
    training_mode(model, seed)
    return model


def of_step(model: ir.Model, step: int, x: Array) -> dict[str, Array]:
    (counter,) = [v for v in model.graph.inputs if v.metadata_props.get(ROLE) == STEP]
    return evaluate(model, {"x": x, str(counter.name): np.array(step, np.int64)})


@pytest.mark.parametrize("node", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_a_training_draws_anew_in_each_step_and_the_same_again(node: str) -> None:
    text = f"g (float[4,50] x) => (float[4,50] y) {{ y = {node}(x) }}"
    x = np.full((4, 50), 0.5, np.float32)
    ys = [of_step(trained(text, 3), step, x)["y"] for step in (0, 1, 1)]
    assert not np.array_equal(ys[0], ys[1])
    np.testing.assert_array_equal(ys[1], ys[2])
    assert not np.array_equal(ys[1], of_step(trained(text, 4), 1, x)["y"])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("RandomUniformLike<low = 2.0>", "low 2.0 above high 1.0"),
        ("RandomNormalLike<dtype = 7>", "random numbers of type int64"),
        ("RandomNormal<shape = [-1]>", "shape"),
    ],
)
def test_what_makes_no_sense_is_refused(node: str, message: str) -> None:
    operand = "x" if "Like" in node else ""
    with pytest.raises(ShapeError, match=message):
        load(parse(f"g (float[2,3] x) => (float[N] y) {{ y = {node}({operand}) }}", opset=22))
