"""Training form: batch statistics come out of BatchNormalization, Dropout draws a mask."""

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

NORM = (
    "g (float[4,2] x) => (float[4,2] y) "
    "<float[2] s = {1, 1}, float[2] b = {0, 0}, float[2] m = {0, 0}, float[2] v = {1, 1}> "
    "{ y = BatchNormalization<momentum = 0.9>(x, s, b, m, v) }"
)
X = np.array([[1, 10], [2, 20], [3, 30], [6, 60]], np.float32)
SIZE = (200, 50)


def test_batch_norm_uses_the_batch_and_gives_new_statistics() -> None:
    model = load(parse(NORM))
    np.testing.assert_allclose(evaluate(model, {"x": X})["y"], X, rtol=1e-4)  # inference form
    training_mode(model, seed=0)
    (node,) = list(model.graph)
    assert node.attributes["training_mode"].as_int() == 1
    assert len(node.outputs) == 3
    model.graph.outputs.extend(node.outputs[1:])
    y, mean, variance = evaluate(model, {"x": X}).values()
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(mean, 0.1 * X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * X.var(0), rtol=1e-5)


def test_a_batch_norm_in_training_form_is_left_alone() -> None:
    model = load(parse(NORM))
    training_mode(model, seed=0)
    names = [value.name for node in model.graph for value in node.outputs]
    training_mode(model, seed=0)
    assert [value.name for node in model.graph for value in node.outputs] == names


def dropout(ratio: float, seed: int = 0, node_seed: str = "") -> ir.Model:
    model = load(
        parse(
            f"g (float[200,50] x) => (float[200,50] y, bool[200,50] m) <float r = {{{ratio}}}> "
            f"{{ y, m = Dropout{node_seed}(x, r) }}"
        )
    )
    training_mode(model, seed)
    return model


def drawn(model: ir.Model, step: int) -> tuple[Array, Array]:
    (counter,) = [v for v in model.graph.inputs if v.metadata_props.get(ROLE) == STEP]
    feeds = {"x": np.full(SIZE, 3, np.float32), str(counter.name): np.array(step)}
    y, mask = evaluate(model, feeds).values()
    return y, mask


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.9])
def test_dropout_keeps_the_expected_share_and_scales_it(ratio: float) -> None:
    y, mask = drawn(dropout(ratio), 0)
    assert mask.dtype == bool
    np.testing.assert_allclose(y[mask], 3 / (1 - ratio), rtol=1e-6)
    assert not y[~mask].any()
    # Five standard deviations of a binomial share.
    assert abs(mask.mean() - (1 - ratio)) <= 5 * np.sqrt(ratio * (1 - ratio) / mask.size)


def test_a_ratio_out_of_range_is_refused_at_load() -> None:
    with pytest.raises(ShapeError, match=r"ratio must be in \[0, 1\), got 1.0"):
        dropout(1.0)


def test_masks_depend_on_seed_node_and_step_and_on_nothing_else() -> None:
    base = drawn(dropout(0.5), 3)[1]
    np.testing.assert_array_equal(drawn(dropout(0.5), 3)[1], base)
    others = [
        drawn(dropout(0.5), 4)[1],
        drawn(dropout(0.5, seed=1), 3)[1],
        drawn(dropout(0.5, node_seed="<seed = 77>"), 3)[1],
    ]
    for other in others:
        agreement = (other == base).mean()
        assert 0.45 < agreement < 0.55  # independent fair coins


def test_two_dropouts_of_a_model_draw_different_masks() -> None:
    model = load(
        parse(
            "g (float[200,50] x) => (float[200,50] y, float[200,50] z) <float r = {0.5}> "
            "{ y = Dropout(x, r) z = Dropout(x, r) }"
        )
    )
    training_mode(model, seed=0)
    assert len([v for v in model.graph.inputs if v.metadata_props.get(ROLE) == STEP]) == 1
    y, z = (array != 0 for array in drawn(model, 0))
    assert 0.45 < (y == z).mean() < 0.55


def test_models_without_either_stay_as_they_are() -> None:
    model = load(parse("g (float[2] x) => (float[2] y) { a = Exp(x) y = Neg(a) }"))
    training_mode(model, seed=0)
    assert [node.op_type for node in model.graph] == ["Exp", "Neg"]
    assert [value.name for value in model.graph.inputs] == ["x"]
