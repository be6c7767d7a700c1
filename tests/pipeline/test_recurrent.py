"""Recurrent networks of the zoo meet what all others do: phones, budgets, kept activations."""

from __future__ import annotations

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.core.types import Array
from coexec.steps.builder import Recipe, StepBuilder
from tests.runtimes import THOROUGH

BATCH, LENGTH = 16, 24
SHAPES = {"lstm_har": (BATCH, LENGTH, 9), "gru_kws": (BATCH, LENGTH, 10)}


def data(name: str) -> tuple[dict[str, Array], Array]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal(SHAPES[name], np.float32)}, rng.integers(0, 6, BATCH)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_simulated_phone_runs_it(name: str, kind: str) -> None:
    model = coexec.load(zoo.build(name, length=LENGTH))
    feeds, _ = data(name)
    expected = coexec.compile(model, ["reference"]).run(feeds)["y"]
    found = coexec.compile(model, [f"sim:snapdragon-865/{kind}"]).run(feeds)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_gates_are_activations_that_a_step_keeps(name: str) -> None:
    model = coexec.load(zoo.build(name, length=LENGTH))
    builder = StepBuilder(model, Recipe(SoftmaxCrossEntropy(), SGD(0.1)))
    step = builder.build("step", data(name)[0])
    saved = next(node for node in step.model.graph if node.op_type.endswith("Steps"))
    gates = next(value for value in saved.outputs[2:] if len(value.shape or ()) == 3)
    assert gates.shape is not None
    assert step.uncompressed_bytes > 4 * np.prod(gates.shape.numpy())


@pytest.mark.parametrize("processor", ["reference", THOROUGH[0], "ort:cpu"])
@pytest.mark.parametrize("name", SHAPES)
def test_budgets_and_processors_change_no_loss(name: str, processor: str) -> None:
    model = coexec.load(zoo.build(name, length=LENGTH))
    feeds, labels = data(name)

    def losses(processor: str, memory: str | None) -> list[float]:
        trainer = coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.1), [processor], memory=memory)
        return [float(trainer.step(feeds, labels)) for _ in range(3)]

    expected = losses("reference", None)
    np.testing.assert_allclose(losses(processor, None), expected, rtol=1e-4)
    if processor == THOROUGH[0]:
        np.testing.assert_allclose(losses(processor, "1700KiB"), expected, rtol=1e-4)
