"""Layers with large filters are divided by channels: the same results, and no filter twice."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec.core.plan import Plan
from coexec.ops.node import type_of
from coexec.passes.batch_parallel import divide_batch
from coexec.passes.channel_shares import channel_bounds
from coexec.passes.kept import FORWARD, phase_of
from coexec.passes.rematerialise import rematerialise
from coexec.zoo.builder import Net, batch_norm, conv, flatten, linear, max_pool, relu
from tests.graphs import evaluate
from tests.passes.test_batch_parallel import agrees, divided, step_graph

FEW, MANY = 16, 192


def wide(batch: int) -> ir.Model:
    """A residual network whose deeper half has more filters than activations."""
    net = Net("wide", (batch, 3, 8, 8), seed=0)
    x = relu(net, conv(net, net.x, "stem", (3, FEW), (3, 3), pad=1), "r1")
    x = relu(net, batch_norm(net, x, "n1", FEW), "r2")
    y = conv(net, x, "a", (FEW, MANY), (3, 3), stride=2, pad=1)
    y = relu(net, batch_norm(net, y, "n2", MANY), "r3")
    y = batch_norm(net, conv(net, y, "b", (MANY, MANY), (3, 3), pad=1), "n3", MANY)
    short = conv(net, x, "short", (FEW, MANY), (1, 1), stride=2)
    y = relu(net, net.op("Add", "join", [y, short]), "r4")
    y = flatten(net, max_pool(net, y, "pool", (2, 2), stride=2))
    y = relu(net, linear(net, y, "hidden", (4 * MANY, 400), rectified=True), "r5")
    return coexec.load(net.finish(linear(net, y, "head", (400, 4)), 4))


@pytest.mark.parametrize("batch", [{"a": 4, "b": 3}, {"a": 1, "b": 2, "c": 2}], ids=str)
def test_what_is_divided_by_channels_gives_what_the_whole_gives(batch: dict[str, int]) -> None:
    model, feeds = step_graph(wide(sum(batch.values())), sum(batch.values()))
    agrees(model, feeds, batch)


def test_no_processor_computes_a_whole_gradient_of_large_filters() -> None:
    model, _ = step_graph(wide(4), 4)
    divided(model, {"a": 2, "b": 2})
    gradients = [n for n in model.graph if n.op_type == "ConvWeightGrad"]
    found = {tuple(type_of(n.outputs[0]).shape) for n in gradients}
    half = (MANY // 2, MANY, 3, 3)
    assert half in found
    assert (MANY, MANY, 3, 3) not in found
    added = [n for n in model.graph if n.op_type == "Add" and n.domain == ""]
    assert not [n for n in added if type_of(n.outputs[0]).shape == (MANY, MANY, 3, 3)]
    # Its normalisation sends nothing; those of both layers with few filters do.
    assert sum(n.op_type == "BatchStatistics" for n in model.graph) == 4
    assert sum(n.op_type == "BatchNormalizationGrad" for n in model.graph) == 2


def test_sums_by_stored_statistics_are_those_of_each_processors_channels() -> None:
    model, feeds = step_graph(wide(4), 4, batch_statistics="frozen")
    agrees(model, feeds, {"a": 2, "b": 2})
    sums = [n for n in model.graph if n.op_type == "BatchNormalizationSums"]
    shapes = [type_of(n.inputs[0]).shape[:2] for n in sums if n.inputs[0]]
    assert shapes.count((4, MANY // 2)) == 2
    assert all(shape[0] == 2 for shape in shapes if shape != (4, MANY // 2))


def test_gradients_of_filters_between_layers_by_channels_are_divided_alike() -> None:
    """Both operands are in the same shares of channels: one of them is read whole."""
    net = Net("deep", (4, 3, 8, 8), seed=0)
    x = relu(net, batch_norm(net, conv(net, net.x, "a", (3, MANY), (3, 3)), "n1", MANY), "r1")
    for name in ("b", "c"):
        y = conv(net, x, name, (MANY, MANY), (3, 3), stride=2, pad=1)
        x = relu(net, batch_norm(net, y, f"n{name}", MANY), f"r{name}")
    model, feeds = step_graph(
        coexec.load(net.finish(linear(net, flatten(net, x), "head", (4 * MANY, 4)), 4)), 4
    )
    agrees(model, feeds, {"a": 2, "b": 2})
    shapes = [type_of(n.outputs[0]).shape for n in model.graph if n.op_type == "ConvWeightGrad"]
    assert (MANY // 2, MANY, 3, 3) in shapes
    assert (MANY, MANY, 3, 3) not in shapes


def test_what_is_recomputed_is_divided_by_channels_again() -> None:
    model, feeds = step_graph(wide(4), 4)
    late = [n for n in model.graph if n.op_type in ("Conv", "BatchNormalization", "Relu")]
    rematerialise(model.graph, [str(n.outputs[0].name) for n in late])
    agrees(model, feeds, {"a": 3, "b": 1})


@pytest.mark.parametrize("early", [False, True], ids=["together", "early"])
def test_cuts_of_filters_wait_for_the_backward_pass_only_where_memory_is_not_saved(
    early: bool,
) -> None:
    model, feeds = step_graph(wide(4), 4)
    expected = evaluate(model, feeds)
    homes = {str(n.name): "ab"[i % 2] for i, n in enumerate(model.graph)}
    divide_batch(model.graph, Plan(homes, batch={"a": 2, "b": 2}, early=early))
    half = (MANY // 2, MANY, 3, 3)
    cuts = [n for n in model.graph if n.op_type == "Slice" and type_of(n.outputs[0]).shape == half]
    readers = [{phase_of(r) == FORWARD for r in n.outputs[0].consumers()} for n in cuts]
    both = {True, False}
    assert readers == ([{True}] * 2 + [{False}] * 2 if early else [both, both])
    found = evaluate(model, feeds)
    for name, array in expected.items():
        limit = 5e-5 * np.abs(array).max() + 1e-6
        assert np.abs(found[name] - array).max() <= limit, name


@pytest.mark.parametrize(
    ("channels", "rows", "ends"),
    [
        (512, {"a": 15, "b": 17}, [240, 512]),
        (512, {"a": 31, "b": 1}, [496, 512]),
        (100, {"a": 16, "b": 16}, [48, 100]),
        (1024, {"a": 1, "b": 2, "c": 5}, [128, 384, 1024]),
        (10, {"a": 7, "b": 1}, [9, 10]),
        (3, {"a": 30, "b": 1, "c": 1}, [1, 2, 3]),
    ],
)
def test_channels_are_divided_as_samples_in_whole_vectors(
    channels: int, rows: dict[str, int], ends: list[int]
) -> None:
    found = list(channel_bounds(channels, rows).values())
    assert [stop for _, stop in found] == ends
    assert [start for start, _ in found] == [0, *ends[:-1]]
