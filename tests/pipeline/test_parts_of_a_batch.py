"""Parts of a batch are trained by the loss of the whole one, whatever labels each of them has."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import Loss, SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import DataError, NonFiniteLoss
from coexec.core.plan import Plan
from coexec.core.types import Array
from coexec.session import legalise
from tests.runtimes import DRIVERS, THOROUGH

SAMPLES, FEATURES, CLASSES, IGNORED = 12, 5, 3, -100
WEIGHTS = (0.2, 3.0, 1.0)
LABELS = np.array([0, 0, 0, 1, IGNORED, 1, IGNORED, IGNORED, IGNORED, 2, 0, IGNORED])
"""By threes: of one class, of which most count little; some; none that counts; few."""
NO_LABEL: Array = np.full(SAMPLES, IGNORED)
LOSSES = [
    SoftmaxCrossEntropy(ignore_index=IGNORED),
    SoftmaxCrossEntropy(ignore_index=IGNORED, class_weights=WEIGHTS),
    SoftmaxCrossEntropy(0.1, ignore_index=IGNORED, class_weights=WEIGHTS),
]


def learner(loss: Loss, processors: list[str], **options: Any) -> coexec.Trainer:
    model = coexec.load(zoo.build("mlp", classes=CLASSES, sizes=(FEATURES, 8)))
    return coexec.Trainer(model, loss, SGD(0.3, momentum=0.9), processors, **options)


def inputs(rng: np.random.Generator) -> dict[str, Array]:
    return {"x": rng.standard_normal((SAMPLES, FEATURES), np.float32)}


def assert_same_training(
    one: coexec.Trainer, other: coexec.Trainer, labels: Array, rng: np.random.Generator
) -> None:
    x = inputs(rng)
    for _ in range(4):
        assert other.step(x, labels) == pytest.approx(one.step(x, labels), rel=1e-5)
    for name, value in one.state().items():
        np.testing.assert_allclose(other.state()[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("updates", ["together", "early"])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("runtime", DRIVERS)
def test_the_loss_is_the_mean_over_all_labels_that_count(
    runtime: str, loss: Loss, updates: Any, rng: np.random.Generator
) -> None:
    """By a formula of the whole batch, and so are the gradients."""
    whole = learner(loss, [runtime], clip_norm=None if updates == "early" else 0.5)
    parts = learner(
        loss, [runtime], clip_norm=whole.recipe.clip_norm, micro_batches=4, updates=updates
    )
    assert_same_training(whole, parts, LABELS, rng)


def test_class_weights_alone_make_parts_unequal(rng: np.random.Generator) -> None:
    loss = SoftmaxCrossEntropy(class_weights=WEIGHTS)
    labels = np.where(LABELS == IGNORED, 0, LABELS)
    whole, parts = learner(loss, ["reference"]), learner(loss, ["reference"], micro_batches=3)
    assert_same_training(whole, parts, labels, rng)


def test_a_batch_in_which_no_label_counts_changes_nothing(rng: np.random.Generator) -> None:
    """As PyTorch, which has no mean of nothing; parameters stay, and the next step is as usual."""
    whole, parts = (learner(LOSSES[0], ["reference"], micro_batches=n) for n in (1, 4))
    x = inputs(rng)
    for each in (whole, parts):
        with pytest.raises(NonFiniteLoss):
            each.step(x, NO_LABEL)
    assert_same_training(whole, parts, LABELS, rng)


@pytest.mark.parametrize("count", [1, 4])
def test_labels_out_of_range_are_refused_before_any_part_is_run(
    count: int, rng: np.random.Generator
) -> None:
    trainer = learner(LOSSES[1], ["reference"], micro_batches=count)
    labels = LABELS.copy()
    labels[-1] = CLASSES
    with pytest.raises(DataError, match="labels range from 0 to 3"):
        trainer.step(inputs(rng), labels)


@pytest.mark.parametrize("weights", [(), (*WEIGHTS, 1.0)])
def test_a_budget_may_divide_the_batch_whatever_counts(
    weights: tuple[float, ...], rng: np.random.Generator
) -> None:
    loss = SoftmaxCrossEntropy(ignore_index=IGNORED, class_weights=weights)
    how: dict[str, Any] = {"batch_statistics": "frozen"}
    x = {"x": rng.standard_normal((SAMPLES, 6, 100), np.float32)}
    plain, within = (
        coexec.Trainer(
            coexec.load(zoo.build("sensor_cnn")), loss, SGD(0.1), THOROUGH[:1], memory=memory, **how
        )
        for memory in (None, 704 << 10)
    )
    plain.step(x, LABELS)
    within.step(x, LABELS)
    assert within.memory_plan is not None
    assert within.memory_plan.setting.recipe.micro_batches > 1
    for name, value in plain.state().items():
        np.testing.assert_allclose(within.state()[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_samples_divided_among_processors_have_the_loss_of_the_batch(
    loss: Loss, rng: np.random.Generator
) -> None:
    specs = [THOROUGH[0], "reference"]
    alone = learner(loss, specs[:1])
    divided = learner(loss, specs, plan=shared_batch(alone, specs))
    assert_same_training(alone, divided, LABELS, rng)
    assert set(divided.plan.processors.values()) == set(specs)


def shared_batch(trainer: coexec.Trainer, names: list[str]) -> Plan:
    """A quarter of the samples, of which all count, on the first processor."""
    step = trainer.build_step({"x": np.zeros((SAMPLES, FEATURES), np.float32)})
    graph: ir.Graph = legalise(step.model, trainer.processors).graph
    homes = {str(node.name): names[0] for node in graph}
    return Plan(homes, batch={names[0]: SAMPLES // 4, names[1]: SAMPLES - SAMPLES // 4})


def test_a_smaller_last_batch_is_a_step_by_its_own_mean(rng: np.random.Generator) -> None:
    """As PyTorch's: each batch of a loader is one, whatever counts in others."""
    trainer, same = (learner(LOSSES[1], ["reference"], micro_batches=n) for n in (1, 2))
    x, labels = inputs(rng)["x"], LABELS
    for rows in (slice(0, 8), slice(8, 12)):
        found = same.step({"x": x[rows]}, labels[rows])
        assert found == pytest.approx(trainer.step({"x": x[rows]}, labels[rows]), rel=1e-5)
