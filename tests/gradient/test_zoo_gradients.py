"""Gradients of whole networks: against differences of the loss, and by several ways to the same.

After the first step of SGD with momentum from zero, the momentum *is* the gradient: what a step
really used is read from the trainer's state.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import Loss, SoftmaxCrossEntropy
from coexec.autodiff.step import StepGraph, build_accumulation
from coexec.core.types import Array
from coexec.frontend.specialise import specialise
from coexec.ops.node import call_of
from coexec.ops.table import OPERATORS
from coexec.steps.builder import in_training_form
from tests.runtimes import THOROUGH


@dataclass(frozen=True, eq=False)
class Case:
    """A zoo model made small; ``statistics`` tells whether samples of a batch see each other."""

    name: str
    shape: tuple[int, ...]
    options: Mapping[str, Any]
    loss: Loss = field(default_factory=SoftmaxCrossEntropy)
    statistics: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def tokens(self) -> bool:
        return len(self.shape) == 2


CASES = (
    Case("digits_cnn", (4, 1, 8, 8), {"width": 6}, statistics=True),
    Case("lenet5", (4, 1, 28, 28), {}, SoftmaxCrossEntropy(label_smoothing=0.1)),
    Case("mobilenetv2", (4, 3, 48, 48), {"image_size": 48, "width": 0.25}, statistics=True),
    Case("sensor_cnn", (4, 6, 40), {"length": 40, "width": 8}, statistics=True),
    Case("lstm_har", (4, 6, 3), {"length": 6, "channels": 3, "hidden": 5}),
    Case("gru_kws", (4, 5, 4), {"length": 5, "channels": 4, "hidden": 6}),
    Case(
        "cnn3d",
        (4, 2, 5, 9, 9),
        {"channels": 2, "frames": 5, "image_size": 9, "width": 4},
        statistics=True,
    ),
    Case("vit_tiny", (4, 3, 16, 16), {"image_size": 16, "features": 24, "depth": 2}),
    Case(
        "gpt_tiny",
        (4, 12),
        {"tokens": 12, "features": 16, "depth": 2},
        SoftmaxCrossEntropy(ignore_index=0, class_axis=-1),
    ),
)
INDEPENDENT = tuple(case for case in CASES if not case.statistics)


def build(case: Case, dtype: str = "float64") -> ir.Model:
    """The model with every parameter moved away from its initial zeros and ones, in ``dtype``."""
    model = zoo.build(case.name, classes=classes(case), **case.options)
    rng = np.random.default_rng(7)
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        array = value.const_value.numpy()
        if not name.endswith(("running_mean", "running_var")):
            array = array + np.float32(0.05) * rng.standard_normal(array.shape, np.float32)
        value.const_value = ir.tensor(array.astype(dtype), name=name)
        value.type = ir.TensorType(value.const_value.dtype)
    _convert_the_rest(model, dtype)
    return coexec.load(model)


def classes(case: Case) -> int:
    return 11 if case.tokens else 5


def batch(case: Case, dtype: str = "float64") -> tuple[dict[str, Array], Array]:
    """Inputs and labels, the same ones in every element type."""
    rng = np.random.default_rng(3)
    if case.tokens:
        x = rng.integers(0, classes(case), case.shape)
        labels = np.roll(x, -1, 1)
        labels[labels == 0] = 1
        labels[:, -1] = 0  # ignored: one in every sample, so that micro-batches weigh equally
        return {"x": x}, labels
    x = rng.standard_normal(case.shape).astype(np.float32).astype(dtype)
    return {"x": x}, rng.integers(0, classes(case), case.shape[0])


@functools.cache
def reference_gradients(case: Case) -> dict[str, Array]:
    """Gradients of the full batch in float64 on the reference."""
    return gradients(case, "reference", "float64")


def gradients(
    case: Case,
    processor: str,
    dtype: str,
    data: tuple[dict[str, Array], Array] | None = None,
    **options: Any,
) -> dict[str, Array]:
    """Gradient of each parameter, as the first step on ``processor`` used it."""
    optimizer = coexec.optim.SGD(0.01, momentum=0.9)
    trainer = coexec.Trainer(build(case, dtype), case.loss, optimizer, [processor], **options)
    feeds, labels = batch(case, dtype) if data is None else data
    trainer.step(feeds, labels)
    if processor != "reference":
        assert not trainer.plan.table()
    suffix = "#momentum"
    state = trainer.state()
    return {n.removesuffix(suffix): a for n, a in state.items() if n.endswith(suffix)}


def assert_same(
    actual: Mapping[str, Array], expected: Mapping[str, Array], relative: float
) -> None:
    """Each tensor to within ``relative`` of its own largest entry and of the whole's thousandth.

    A gradient that is zero but for rounding (a bias in front of a normalisation) has no scale of
    its own.
    """
    assert actual.keys() == expected.keys()
    floor = 1e-3 * max(np.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        scale = max(float(np.abs(value).max()), floor)
        error = np.abs(actual[name].astype(np.float64) - value).max() / scale
        assert error <= relative, f"{name}: {error:.1e} of its largest entry"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_directional_derivatives_are_differences_of_the_loss(
    case: Case, rng: np.random.Generator
) -> None:
    """In random directions of all parameters at once, in float64."""
    graph = training_graph(case)
    feeds = feeds_of(graph, case)
    outputs = evaluate(graph, feeds, [graph.loss, *graph.gradients.values()])
    slopes = {name: outputs[value] for name, value in graph.gradients.items()}
    assert set(slopes) == set(graph.trainable)
    for _ in range(3):
        direction = {n: rng.standard_normal(g.shape) for n, g in slopes.items()}
        expected = sum(float((slopes[n] * d).sum()) for n, d in direction.items())
        # So short that hardly any ReLU changes sides, and still far above float64's rounding.
        measured = central_difference(graph, feeds, direction, 1e-8)
        scale = sum(float((g**2).sum()) for g in slopes.values()) ** 0.5
        assert abs(measured - expected) <= 1e-5 * max(scale, abs(expected))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_parameter_has_a_gradient_of_its_own(case: Case) -> None:
    """A direction along one parameter alone: a gradient lost or given twice cannot hide."""
    graph = training_graph(case)
    feeds = feeds_of(graph, case)
    outputs = evaluate(graph, feeds, list(graph.gradients.values()))
    slopes = {name: outputs[value] for name, value in graph.gradients.items()}
    joint = sum(float((g**2).sum()) for g in slopes.values()) ** 0.5
    names = sorted(slopes)
    chosen = names[:: max(len(names) // 12, 1)]
    for name in chosen:
        norm = float(np.sqrt((slopes[name] ** 2).sum()))
        direction = {
            name: slopes[name] / norm if norm > 1e-9 * joint else np.ones_like(slopes[name])
        }
        expected = float((slopes[name] * direction[name]).sum())
        measured = central_difference(graph, feeds, direction, 1e-7)
        assert abs(measured - expected) <= 1e-5 * max(norm, 1e-2 * joint), name


@pytest.mark.parametrize("case", INDEPENDENT, ids=str)
@pytest.mark.parametrize("count", [2, 4])
def test_micro_batches_add_up_to_the_full_batch(case: Case, count: int) -> None:
    actual = gradients(case, "reference", "float64", micro_batches=count)
    assert_same(actual, reference_gradients(case), 1e-12)


@pytest.mark.parametrize("case", INDEPENDENT, ids=str)
def test_the_order_of_samples_does_not_matter(case: Case) -> None:
    feeds, labels = batch(case)
    order = np.array([2, 0, 3, 1])
    shuffled = {name: array[order] for name, array in feeds.items()}, labels[order]
    actual = gradients(case, "reference", "float64", shuffled)
    assert_same(actual, reference_gradients(case), 1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_freezing_others_changes_no_gradient(case: Case) -> None:
    """Pruning the backward graph leaves what is left as it was, bit for bit."""
    full = reference_gradients(case)
    chosen = sorted(full)[:: max(len(full) // 3, 1)]
    actual = gradients(case, "reference", "float64", trainable=chosen)
    assert sorted(actual) == chosen
    assert all((actual[name] == full[name]).all() for name in chosen)


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_opencl_in_float32_agrees_with_the_reference_in_float64(case: Case, runtime: str) -> None:
    assert_same(gradients(case, runtime, "float32"), reference_gradients(case), 1e-3)


@pytest.mark.parametrize("runtime", THOROUGH)
@pytest.mark.parametrize("case", INDEPENDENT, ids=str)
def test_micro_batches_add_up_on_opencl(case: Case, runtime: str) -> None:
    actual = gradients(case, runtime, "float32", micro_batches=2)
    assert_same(actual, reference_gradients(case), 1e-3)


def training_graph(case: Case) -> StepGraph:
    """Forward, loss and gradients as one graph with the parameters as inputs."""
    model = specialise(build(case), {"x": case.shape}, {})
    return build_accumulation(in_training_form(model, seed=0), case.loss)


def feeds_of(graph: StepGraph, case: Case) -> dict[str, Array]:
    feeds, labels = batch(case)
    return {**feeds, **graph.initial, **graph.scalars(0.0, 0, 1.0), graph.labels: labels}


def central_difference(
    graph: StepGraph, feeds: Mapping[str, Array], direction: Mapping[str, Array], step: float
) -> float:
    ends = []
    for sign in (1, -1):
        moved = {name: feeds[name] + sign * step * d for name, d in direction.items()}
        outputs = evaluate(graph, {**feeds, **moved}, [graph.loss])
        ends.append(float(outputs[graph.loss]))
    return (ends[0] - ends[1]) / (2 * step)


def evaluate(graph: StepGraph, feeds: Mapping[str, Array], wanted: list[str]) -> dict[str, Array]:
    """Values by name through the operators' references; nothing else is computed."""
    nodes = list(graph.model.graph)
    needed, path = set(wanted), []
    for node in reversed(nodes):
        if any(value.name in needed for value in node.outputs):
            path.append(node)
            needed.update(str(value.name) for value in node.inputs if value is not None)
    values: dict[str, Array] = dict(feeds)
    for name, value in graph.model.graph.initializers.items():
        assert value.const_value is not None
        values[name] = value.const_value.numpy()
    for node in reversed(path):
        call = call_of(node)
        operands = [None if v is None else values[str(v.name)] for v in node.inputs]
        results = OPERATORS[call.identifier].reference(call, operands)
        values |= {str(v.name): np.asarray(r) for v, r in zip(node.outputs, results, strict=False)}
    return {name: values[name] for name in wanted}


def _convert_the_rest(model: ir.Model, dtype: str) -> None:
    """Float inputs, outputs and constants, where initializers are in ``dtype`` already."""
    wide = ir.DataType.from_numpy(np.dtype(dtype))
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(wide)
    for node in model.graph:
        attribute = node.attributes.get("value")
        if node.op_type == "Constant" and attribute is not None:
            array = attribute.as_tensor().numpy()
            if array.dtype == np.float32:
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array.astype(dtype)))
