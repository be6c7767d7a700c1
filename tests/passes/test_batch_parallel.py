"""A batch divided among processors gives what the whole batch gives, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.api import open_all
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import ModelError
from coexec.core.plan import Plan
from coexec.core.types import Array
from coexec.ops.builder import PHASE
from coexec.ops.node import call_of, type_of
from coexec.ops.table import opdef
from coexec.passes.batch_parallel import divide_batch, rows_of
from coexec.passes.rematerialise import rematerialise
from coexec.runtime.partition import Partitioning, partition
from coexec.session import legalise
from tests.graphs import evaluate, parse
from tests.pipeline.small import network

REFERENCE = open_all(["reference"])


def step_graph(model: ir.Model, batch: int, **options: Any) -> tuple[ir.Model, dict[str, Array]]:
    """A training step of ``model`` on ``batch`` samples, and values for all of its inputs."""
    how = (SoftmaxCrossEntropy(), SGD(0.1, momentum=0.9), ["reference"])
    trainer = coexec.Trainer(model, *how, **options)
    rng = np.random.default_rng(0)
    (x,) = (value for value in model.graph.inputs if value.name == "x")
    assert x.shape is not None
    shape = (batch, *(int(dim) for dim in list(x.shape.dims)[1:]))  # type: ignore[arg-type]
    step = trainer.build_step({"x": rng.standard_normal(shape).astype(np.float32)})
    feeds = dict(step.initial)
    for value in step.model.graph.inputs:
        name, kind = str(value.name), type_of(value)
        if name in (step.labels, step.step):
            feeds[name] = rng.integers(0, 4, kind.shape)
        elif name not in feeds:
            feeds[name] = rng.standard_normal(kind.shape).astype(kind.dtype)
    return legalise(step.model, REFERENCE), feeds


def divided(model: ir.Model, batch: Mapping[str, int]) -> Plan:
    """Divide ``model`` in place; nodes that stay whole alternate between the processors."""
    names = list(batch)
    homes = {str(n.name): names[i % len(names)] for i, n in enumerate(model.graph)}
    return divide_batch(model.graph, Plan(homes, batch=batch))


def agrees(model: ir.Model, feeds: Mapping[str, Array], batch: Mapping[str, int]) -> Plan:
    expected = evaluate(model, feeds)
    plan = divided(model, batch)
    found = evaluate(model, feeds)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        # A bias in front of a normalisation has no gradient but rounding.
        limit = 5e-5 * np.abs(array).max() + 1e-6
        assert np.abs(found[name] - array).max() <= limit, name
    return plan


@pytest.mark.parametrize("batch", [{"a": 4, "b": 3}, {"a": 1, "b": 2, "c": 2}], ids=str)
@pytest.mark.parametrize("dropout", [False, True])
def test_statistics_masks_and_odd_shares(batch: dict[str, int], dropout: bool) -> None:
    model, feeds = step_graph(coexec.load(network(dropout=dropout)), sum(batch.values()))
    agrees(model, feeds, batch)


def test_averages_of_parameters_live_where_they_are_updated() -> None:
    model, feeds = step_graph(coexec.load(zoo.build("lenet5", batch=5)), 5, ema=0.9)
    agrees(model, feeds, {"a": 3, "b": 2})


def test_stored_statistics_are_not_exchanged() -> None:
    model, feeds = step_graph(
        coexec.load(zoo.build("sensor_cnn", batch=5)), 5, batch_statistics="frozen"
    )
    agrees(model, feeds, {"a": 3, "b": 2})
    norms = [node for node in model.graph if node.op_type == "BatchNormalization"]
    assert len(norms) == 2 * 4
    assert not any(node.op_type == "BatchStatistics" for node in model.graph)
    sums = [node for node in model.graph if node.op_type == "BatchNormalizationSums"]
    assert sorted(type_of(n.inputs[0]).shape[0] for n in sums if n.inputs[0]) == [2] * 4 + [3] * 4
    # Activations are added up over the samples where they are: none is joined for that.
    assert not any(v is not None and v in _joined(model) for n in sums for v in n.inputs)


def _joined(model: ir.Model) -> set[ir.Value]:
    return {node.outputs[0] for node in model.graph if node.op_type == "Concat"}


@pytest.mark.parametrize(("name", "batch"), [("lenet5", 5), ("sensor_cnn", 3)])
def test_training_steps_of_networks(name: str, batch: int) -> None:
    model, feeds = step_graph(coexec.load(zoo.build(name, batch=batch)), batch)
    plan = agrees(model, feeds, {"a": batch - batch // 2, "b": batch // 2})
    assert len(plan.processors) == len(list(model.graph))  # by name: each node has its own
    work = {"a": 0.0, "b": 0.0}
    whole = 0.0
    for node in model.graph:
        call = call_of(node)
        flop = float(opdef(call).work(call).flop)
        work[plan.processors[str(node.name)]] += flop
        whole += flop if node.metadata_props[PHASE] == "optimizer" else 0.0
    # Nothing that computes much stays whole: the larger share has little more than its part.
    assert max(work.values()) - whole < 1.15 * sum(work.values()) * (batch - batch // 2) / batch


def test_what_is_recomputed_is_divided_and_sends_no_statistics_again() -> None:
    model, feeds = step_graph(coexec.load(zoo.build("sensor_cnn", batch=4)), 4)
    forward = [n for n in model.graph if n.metadata_props[PHASE] == "forward"]
    late = [n for n in forward if n.op_type in ("Conv", "BatchNormalization", "Relu")]
    whole, twice = model.clone(), model.clone()
    rematerialise(twice.graph, [str(n.outputs[0].name) for n in late])
    again = [n for n in twice.graph if n.metadata_props[PHASE] == "recompute"]
    assert {n.op_type for n in again} >= {"Conv", "BatchNormalization"}
    agrees(twice, feeds, {"a": 2, "b": 2})
    divided(whole, {"a": 2, "b": 2})

    def sent(of: ir.Model) -> int:
        return sum(node.op_type == "BatchStatistics" for node in of.graph)

    assert sent(twice) == sent(whole)
    gradients = [node for node in twice.graph if node.op_type == "BatchNormalizationGrad"]
    assert not gradients


def test_processors_wait_for_each_other_at_statistics_and_losses_only() -> None:
    model, _ = step_graph(coexec.load(zoo.build("lenet5", batch=4)), 4)
    plan = divided(model, {"a": 2, "b": 2})
    parts = partition(model.graph, Partitioning(plan, "optimizer"))
    assert len(list(model.graph)) > 60
    # Forward, loss, backward, update; a part ends with each of the gradients that others add.
    assert len(parts) <= 24
    assert [part.processor for part in parts if part.gated] in (["a", "b"], ["b", "a"])


def test_another_batch_is_divided_in_the_same_ratio() -> None:
    assert rows_of({"a": 24, "b": 8}, 32) == {"a": 24, "b": 8}
    assert rows_of({"a": 24, "b": 8}, 12) == {"a": 9, "b": 3}
    model = coexec.load(parse("g (float[1,4] x) => (float[1,4] y) { [one] y = Neg(x) }"))
    with pytest.raises(ModelError, match="1 samples cannot be divided among 2"):
        divided(model, {"a": 1, "b": 1})
