"""Training a part of a model: gradients are those of full training, and the rest costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec.autodiff.optimizers import SGD, Adam
from coexec.core.types import Array
from coexec.ops.node import type_of
from tests.gradient.test_zoo_gradients import (
    CASES,
    Case,
    assert_same,
    batch,
    build,
    gradients,
    reference_gradients,
)
from tests.runtimes import THOROUGH

BY_NAME = {case.name: case for case in CASES}


def channels_of(case: Case) -> dict[str, tuple[int, int]]:
    """Ranges of channels for a parameter of each kind: product, depthwise filter, vector."""
    found: dict[str, tuple[int, int]] = {}
    kinds: set[tuple[int, bool]] = set()
    for name, gradient in reversed(reference_gradients(case).items()):
        kind = (gradient.ndim, gradient.ndim > 1 and gradient.shape[1] == 1)
        if gradient.shape[0] > 3 and kind not in kinds:
            kinds.add(kind)
            found[name] = (1, gradient.shape[0] - 1)
    return found


@pytest.mark.parametrize(
    ("name", "processor"),
    [
        *((name, "reference") for name in ("digits_cnn", "mobilenetv2", "vit_tiny")),
        *(("digits_cnn", runtime) for runtime in THOROUGH),
    ],
)
def test_gradients_of_channels_are_those_of_full_training(name: str, processor: str) -> None:
    case = BY_NAME[name]
    chosen = channels_of(case)
    assert len(chosen) >= 2
    items = [f"{key}[{begin}:{end}]" for key, (begin, end) in chosen.items()]
    exact = processor == "reference"
    actual = gradients(case, processor, "float64" if exact else "float32", trainable=items)
    full = reference_gradients(case)
    expected = {key: full[key][begin:end] for key, (begin, end) in chosen.items()}
    assert_same(actual, expected, 1e-12 if exact else 1e-3)


def test_only_the_channels_are_computed_and_move() -> None:
    case = BY_NAME["digits_cnn"]
    trained = {"conv2.weight": (1, 4), "fc2.weight": (2, 4), "bn1.bias": (0, 2)}
    items = tuple(f"{name}[{begin}:{end}]" for name, (begin, end) in trained.items())
    trainer = trainer_of(case, items)
    feeds, labels = batch(case)
    before = weights(trainer.model)
    for _ in range(2):
        trainer.step(feeds, labels)
    nodes = [n for n in trainer.step_graph.model.graph if n.op_type == "ConvWeightGrad"]
    assert [type_of(n.outputs[0]).shape[0] for n in nodes] == [3]
    state = trainer.state()
    assert state["conv2.weight#momentum"].shape == (3, *before["conv2.weight"].shape[1:])
    after = weights(trainer.trained_model())
    for name, (begin, end) in trained.items():
        moved = np.any(after[name] != before[name], axis=tuple(range(1, before[name].ndim)))
        assert moved.tolist() == [begin <= i < end for i in range(len(moved))], name


def test_channels_train_alike_with_micro_batches() -> None:
    case = BY_NAME["vit_tiny"]
    items = ("head.weight[1:3]", "blocks.1.*.weight[2:9]")
    states = []
    for count in (1, 2):
        trainer = trainer_of(case, items, micro_batches=count)
        feeds, labels = batch(case)
        trainer.step(feeds, labels)
        states.append({n: v for n, v in trainer.state().items() if not n.endswith("#gradient")})
    assert_same(states[1], states[0], 1e-12)


def test_biases_need_no_weight_gradient() -> None:
    """Neither the gradients of weights nor the inputs that only they would read."""
    case = BY_NAME["digits_cnn"]
    graph = step_graph(case, ("bias",))
    assert not [n for n in graph if n.op_type == "ConvWeightGrad"]
    full, biased = kept_bytes(step_graph(case, ())), kept_bytes(graph)
    assert biased < full


@pytest.mark.parametrize("name", ["mobilenetv2", "vit_tiny"])
def test_nothing_of_frozen_early_layers_is_kept(name: str) -> None:
    case = BY_NAME[name]
    graph = step_graph(case, ("last:2",))
    assert kept_bytes(graph) < 0.2 * kept_bytes(step_graph(case, ()))
    backward = [n for n in graph if n.metadata_props.get("coexec.phase") == "backward"]
    assert len(backward) < 25


@pytest.mark.parametrize("runtime", THOROUGH)
def test_the_planned_peak_falls(runtime: str) -> None:
    """With fewer parameters; and frozen ones are not kept in a kernel's layout beside their own."""
    case = BY_NAME["digits_cnn"]
    feeds, labels = batch(case, "float32")
    peaks = []
    for items in ((), ("last:4",), ("last:1",)):
        trainer = trainer_of(case, items, runtime, "float32", optimizer=Adam())
        planned = trainer.planned_bytes(feeds)
        trainer.step(feeds, labels)
        assert trainer.peak_bytes == planned
        frozen = weights(trainer.model).keys() - set(trainer.step_graph.parameters)
        kept = sum(weights(trainer.model)[name].nbytes for name in frozen)
        assert sum(e.constant_bytes for e in trainer.program.executables) <= kept + 100
        peaks.append(planned)
    assert peaks[0] > peaks[1] > peaks[2]


def trainer_of(
    case: Case,
    trainable: tuple[str, ...],
    processor: str = "reference",
    dtype: str = "float64",
    optimizer: coexec.optim.Optimizer | None = None,
    **options: Any,
) -> coexec.Trainer:
    chosen = optimizer or SGD(0.1, momentum=0.9)
    return coexec.Trainer(
        build(case, dtype), case.loss, chosen, [processor], trainable=trainable, **options
    )


def weights(model: ir.Model) -> dict[str, Array]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def step_graph(case: Case, trainable: tuple[str, ...]) -> ir.Graph:
    arrays: dict[str, Array] = batch(case)[0]
    return trainer_of(case, trainable).build_step(arrays).model.graph


def kept_bytes(graph: ir.Graph) -> int:
    """Bytes of forward results that backward nodes read."""
    read = {
        value
        for node in graph
        if node.metadata_props.get("coexec.phase") == "backward"
        for value in node.inputs
        if value is not None
    }
    forward = [n for n in graph if n.metadata_props.get("coexec.phase") == "forward"]
    return sum(type_of(v).nbytes for node in forward for v in node.outputs if v in read)
