"""A backward pass in parts of the batch gives what the whole one gives, with smaller tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.settings import MemoryPlan, Setting
from coexec.core.types import Array
from coexec.ops.node import type_of
from coexec.passes.clean import clean
from coexec.passes.divide_backward import divide_backward
from coexec.passes.kept import FORWARD, phase_of
from tests.graphs import evaluate, parse
from tests.passes.test_batch_parallel import step_graph
from tests.runtimes import DRIVERS

WIDENED = """
    g (float[4, 3, 8, 8] x, float[4, 3, 1, 1] w0, float[16, 4, 1, 1] w1, float[16, 1, 3, 3] w2,
       float[4, 16, 1, 1] w3, float[16] s1, float[16] b1, float[16] m1, float[16] v1,
       float[4] s2, float[4] b2, float[4] m2, float[4] v2) => (float[4, 4] y)
    {
        a = Conv(x, w0)
        e = Conv(a, w1)
        n = BatchNormalization(e, s1, b1, m1, v1)
        r = Relu(n)
        d = Conv <group = 16, strides = [2, 2], pads = [1, 1, 1, 1]> (r, w2)
        p = Conv(d, w3)
        k = BatchNormalization(p, s2, b2, m2, v2)
        g = GlobalAveragePool(k)
        y = Flatten(g)
    }
"""
"""A block that widens 4 channels to 16 and narrows them again."""
BIASED = """
    g (float[4, 6, 8] x, float[8, 32] w1, float[32] b1, float[32, 8] w2) => (float[4, 6] y)
    {
        a = MatMul(x, w1)
        c = Add(a, b1)
        r = Gelu(c)
        d = MatMul(r, w2)
        g = GlobalAveragePool(d)
        y = Flatten(g)
    }
"""
"""Of the first product, the gradient of the bias is asked for before that of the weights."""
SUMS = "BatchNormalizationSums"
X = np.random.default_rng(2).standard_normal((4, 3, 8, 8)).astype(np.float32)
LABELS = np.array([0, 3, 1, 2])


def weighted(text: str) -> onnx.ModelProto:
    model = parse(text)
    rng = np.random.default_rng(1)
    for value in list(model.graph.input)[1:]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        numbers = 0.3 * rng.standard_normal(shape) + (value.name[0] in "sv")
        array = np.abs(numbers) if len(shape) == 1 else numbers
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(array.astype(np.float32), value.name)
        )
        model.graph.input.remove(value)
    return model


def divided_agrees(model: ir.Model, feeds: dict[str, Array], share: float) -> int:
    """Nodes that were divided; all results are what they were."""
    expected = evaluate(model, feeds)
    count = divide_backward(model.graph, share)
    clean(model)
    found = evaluate(model, feeds)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        limit = 5e-5 * np.abs(array).max() + 1e-6
        assert np.abs(found[name] - array).max() <= limit, name
    return count


def test_layers_without_statistics_go_back_in_one_round() -> None:
    model, feeds = step_graph(coexec.load(zoo.build("lenet5", batch=2)), 2)
    assert divided_agrees(model, feeds, 0.2)


def test_a_wide_layer_with_statistics_of_the_batch_is_never_there_as_a_whole() -> None:
    model, feeds = step_graph(coexec.load(weighted(WIDENED)), 4)
    widest = 4 * 16 * 8 * 8
    behind = [n for n in model.graph if phase_of(n) != FORWARD]
    assert any(type_of(v).size == widest for n in behind for v in n.outputs if v.name)
    assert divided_agrees(model, feeds, 0.8)
    behind = [n for n in model.graph if phase_of(n) != FORWARD]
    used = {v for n in behind for v in (*n.inputs, *n.outputs) if v is not None and v.name}
    assert max(type_of(value).size for value in used) == widest // 4
    # Sums over the batch come first, then gradients: two rounds make the layer again.
    again = [n for n in behind if n.op_type == "BatchNormalization"]
    assert len(again) == 8


def test_a_wide_layer_with_stored_statistics_goes_back_in_one_round() -> None:
    """Both sums of a normalisation grow from part to part; no gradient of it waits for them."""
    model, feeds = step_graph(coexec.load(weighted(WIDENED)), 4, batch_statistics="frozen")
    widest = 4 * 16 * 8 * 8
    assert divided_agrees(model, feeds, 0.8)
    behind = [n for n in model.graph if phase_of(n) != FORWARD]
    used = {v for n in behind for v in (*n.inputs, *n.outputs) if v is not None and v.name}
    assert max(type_of(value).size for value in used) == widest // 4
    sizes = [type_of(v).size for n in behind if n.op_type == SUMS for v in n.inputs[:1] if v]
    assert sizes.count(widest // 4) == 4


def test_what_reads_a_sum_over_parts_does_not_draw_them_apart() -> None:
    model, _ = step_graph(coexec.load(weighted(BIASED)), 4)
    assert divide_backward(model.graph, 0.8)
    nodes = list(model.graph)
    place = {node: number for number, node in enumerate(nodes)}
    for number, node in enumerate(nodes):
        for value in node.inputs:
            assert value is None or value.producer() is None or place[value.producer()] < number  # type: ignore[index]
    parts = [part for node in nodes if (part := _part(node, 4)) is not None]
    assert set(parts) == {0, 1, 2, 3}
    assert parts == sorted(parts)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_what_several_layers_put_in_one_place_has_an_order(share: float) -> None:
    model, _ = step_graph(coexec.load(zoo.build("digits_cnn", batch=4)), 4)
    assert divide_backward(model.graph, share)


def _part(node: ir.Node, count: int) -> int | None:
    """Which of so many parts of the batch a node cuts; none: it cuts nothing."""
    if node.op_type != "Slice":
        return None
    value, *bounds = (each for each in node.inputs if each is not None)
    start, _, axis = (int(v.const_value.numpy()[0]) for v in bounds if v.const_value is not None)
    return start * count // type_of(value).shape[axis]


def test_what_would_be_repeated_too_often_stays_whole() -> None:
    """Four layers of one width: each normalisation would have all in front of it made again."""
    model, _ = step_graph(coexec.load(zoo.build("sensor_cnn", batch=4)), 4)
    before = [str(node.name) for node in model.graph]
    assert divide_backward(model.graph, 0.9) == 0
    assert [str(node.name) for node in model.graph] == before


def trained(processor: str, divided: float, monkeypatch: pytest.MonkeyPatch) -> coexec.Trainer:
    """Two steps of the block, with the layers at a share of the widest divided."""
    learner = coexec.Trainer(
        coexec.load(weighted(WIDENED)),
        SoftmaxCrossEntropy(),
        SGD(0.1, momentum=0.9),
        [processor],
        memory="1GiB",
    )

    def planned(steps: BudgetedSteps, _arrays: dict[str, Array]) -> MemoryPlan:
        recipe = replace(steps.recipe, divided=divided, updates="early")
        return MemoryPlan(Setting(recipe), 2**30, 0, 0, 0.0, 0.0)

    monkeypatch.setattr(BudgetedSteps, "plan", planned)
    for _ in range(2):
        learner.step({"x": X}, LABELS)
    return learner


@pytest.mark.parametrize("processor", DRIVERS)
def test_a_device_trains_a_divided_layer_as_a_whole_one(
    processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(processor, 0.0, monkeypatch)
    parts = trained(processor, 0.8, monkeypatch)
    assert parts.peak_bytes != whole.peak_bytes
    for name, array in whole.state().items():
        np.testing.assert_allclose(parts.state()[name], array, atol=2e-5, err_msg=name)
