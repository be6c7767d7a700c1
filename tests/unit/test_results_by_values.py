"""Results as large as data say: known ahead, found while a session runs, or refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import coexec
from coexec.autodiff.losses import MeanSquaredError
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import ModelError
from coexec.core.types import Array
from coexec.frontend import load
from tests.graphs import parse

BOXES = np.array([[[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3]]], np.float32)
SUPPRESSION = """g (float[1,3,4] boxes, float[1,1,3] scores) => (int64[N,3] y)
    <int64[1] most = {3}, float[1] limit = {0.5}>
    { y = NonMaxSuppression(boxes, scores, most, limit) }"""


def test_places_of_constants_are_constants() -> None:
    model = load(
        parse(
            """g (float[2,3] x) => (float[2,3] y) <int64[2] s = {2, 1}> {
            ones = ConstantOfShape<value = int64[1] {1}>(s) at = NonZero(ones)
            kept = Gather<axis = 1>(at, zero) z = Cast<to = 1>(kept) y = Add(x, z)
        }""".replace("<int64[2] s = {2, 1}>", "<int64[2] s = {2, 1}, int64[3] zero = {1, 0, 1}>")
        )
    )
    assert [node.op_type for node in model.graph] == ["Add"]


def run_suppression(session: coexec.Session, scores: Array) -> list[int]:
    y = session.run({"boxes": BOXES, "scores": scores.reshape(1, 1, 3)})["y"]
    assert y.dtype == np.int64
    return [int(box) for box in y[:, 2]]


def test_a_session_follows_the_values_of_inputs() -> None:
    session = coexec.compile(coexec.load(parse(SUPPRESSION)), processors=["reference"])
    assert run_suppression(session, np.array([0.9, 0.8, 0.7], np.float32)) == [0, 2]
    assert run_suppression(session, np.array([0.1, 0.2, 0.7], np.float32)) == [2, 1]


def network(channels: int) -> onnx.ModelProto:
    """Boxes of a chain of convolutions; the wider, the more there is to compute."""
    body = " ".join(f"x{i + 1} = Conv<pads = [1, 1, 1, 1]>(x{i}, w{i % 2})" for i in range(2))
    model = parse(f"""g (float[1,3,64,64] x0) => (int64[4,N] y) {{ {body} y = NonZero(x2) }}""")
    rng = np.random.default_rng(0)
    for name, shape in (("w0", (channels, 3, 3, 3)), ("w1", (8, channels, 3, 3))):
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def test_a_training_refuses_shapes_that_the_network_decides() -> None:
    model = load(network(2048))
    with pytest.raises(ModelError, match=r"2 nodes compute it from 'x0'.*extract_model"):
        coexec.Trainer(model, MeanSquaredError(), SGD(0.1), ["reference"]).step(
            {"x0": np.ones((1, 3, 64, 64), np.float32)}, np.zeros(4, np.float32)
        )
