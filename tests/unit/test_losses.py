"""Losses and their gradients against PyTorch's formulas, written out in NumPy and in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from coexec.autodiff.loss_value import loss_value
from coexec.autodiff.losses import (
    L1,
    BinaryCrossEntropyWithLogits,
    Huber,
    Loss,
    MeanSquaredError,
    SoftmaxCrossEntropy,
)
from coexec.autodiff.reverse import gradients
from coexec.base.errors import DataError, UsageError
from coexec.core.types import Array, TensorType
from coexec.ops.builder import GraphBuilder
from tests.graphs import evaluate

Formula = Callable[[Array, Array], float]
SHAPES = [(4, 5), (3, 7, 2), (2, 3, 4, 5)]


def loss_and_gradient(loss: Loss, prediction: Array, labels: Array) -> tuple[float, Array]:
    """The loss as coexec builds it, and its derivative by the prediction."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="loss")
    builder = GraphBuilder(graph, "forward")
    x = builder.input("x", TensorType.of(prediction))
    wanted = loss.labels_type(TensorType.of(prediction))
    assert (wanted.shape, wanted.dtype) == (labels.shape, labels.dtype)
    value = loss.build(builder, x, builder.input("labels", wanted))
    gradient = gradients(graph, value, [x], builder)[x]
    assert gradient is not None
    graph.outputs.extend([value, gradient])
    results = evaluate(ir.Model(graph, ir_version=10), {"x": prediction, "labels": labels})
    total, slope = results.values()
    assert total.shape == ()
    return float(total), slope


def check(loss: Loss, formula: Formula, prediction: Array, labels: Array) -> None:
    """Value by the formula, gradient by the formula's central differences."""
    value, gradient = loss_and_gradient(loss, prediction, labels)
    assert value == pytest.approx(formula(prediction, labels), rel=1e-12)
    slope = np.zeros_like(prediction)
    for index in np.ndindex(*prediction.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = prediction.copy()
            moved[index] += step
            ends.append(formula(moved, labels))
        slope[index] = (ends[0] - ends[1]) / 2e-6
    assert np.abs(slope).max() > 1e-4
    np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-9)


def log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis, keepdims=True)))


def one_hot(labels: Array, classes: int) -> Array:
    """Axis 1 is the axis of classes; a label outside of them is all zeros."""
    return np.stack([labels == c for c in range(classes)], 1).astype(np.float64)


def cross_entropy(smoothing: float = 0.0, ignore: int | None = None) -> Formula:
    """torch.nn.functional.cross_entropy(x, labels, ignore_index=..., label_smoothing=...)."""

    def formula(x: Array, labels: Array) -> float:
        classes = x.shape[1]
        target = one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
        losses = -(target * log_softmax(x, 1)).sum(1)
        return float(losses[labels != ignore].mean())

    return formula


def soft_cross_entropy(smoothing: float = 0.0) -> Formula:
    """The same with probabilities for labels."""

    def formula(x: Array, target: Array) -> float:
        smoothed = target * (1 - smoothing) + smoothing / x.shape[1]
        return float(-(smoothed * log_softmax(x, 1)).sum(1).mean())

    return formula


def huber(delta: float) -> Formula:
    """torch.nn.functional.huber_loss(x, labels, delta=...)."""

    def formula(x: Array, labels: Array) -> float:
        error = np.abs(x - labels)
        near = error <= delta
        return float(np.where(near, error**2 / 2, delta * (error - delta / 2)).mean())

    return formula


def binary_cross_entropy(x: Array, labels: Array) -> float:
    """torch.nn.functional.binary_cross_entropy(sigmoid(x), labels)."""
    p = 1 / (1 + np.exp(-x))
    return float(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())


def squared_error(x: Array, labels: Array) -> float:
    """torch.nn.functional.mse_loss(x, labels)."""
    return float(((x - labels) ** 2).mean())


def absolute_error(x: Array, labels: Array) -> float:
    """torch.nn.functional.l1_loss(x, labels)."""
    return float(np.abs(x - labels).mean())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore", [None, 1, -100])
def test_cross_entropy_of_class_labels(
    shape: tuple[int, ...], smoothing: float, ignore: int | None, rng: np.random.Generator
) -> None:
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    if ignore is not None:
        labels.flat[::3] = ignore
    loss = SoftmaxCrossEntropy(label_smoothing=smoothing, ignore_index=ignore)
    check(loss, cross_entropy(smoothing, ignore), 3 * rng.standard_normal(shape), labels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore", [None, 1, -100])
def test_class_weights_weigh_labels(
    shape: tuple[int, ...], smoothing: float, ignore: int | None, rng: np.random.Generator
) -> None:
    """torch.nn.functional.cross_entropy(x, labels, weight, ignore_index=..., label_smoothing=...).

    What smoothing adds is weighed by each class, the mean by the labels' own.
    """
    classes = shape[1]
    weights = tuple(rng.uniform(0.5, 2, classes))
    labels = rng.integers(0, classes, (shape[0], *shape[2:]))
    if ignore is not None:
        labels.flat[::3] = ignore

    def formula(x: Array, labels: Array) -> float:
        hard = one_hot(labels, classes)
        w = np.reshape(weights, (-1, *[1] * (x.ndim - 2)))
        target = hard * (1 - smoothing) + smoothing / classes
        counted = labels != ignore
        losses = -(w * target * log_softmax(x, 1)).sum(1)
        return float(losses[counted].sum() / (w * hard).sum(1)[counted].sum())

    loss = SoftmaxCrossEntropy(smoothing, ignore, class_weights=weights)
    check(loss, formula, 3 * rng.standard_normal(shape), labels)


def test_class_weights_of_distributions_divide_by_samples(rng: np.random.Generator) -> None:
    weights = (0.5, 2.0, 1.0)
    target = rng.dirichlet(np.ones(3), 4)

    def formula(x: Array, target: Array) -> float:
        return float(-(np.array(weights) * target * log_softmax(x, 1)).sum(1).mean())

    loss = SoftmaxCrossEntropy(soft_targets=True, class_weights=weights)
    check(loss, formula, rng.standard_normal((4, 3)), target)


@pytest.mark.parametrize(
    ("shape", "weight"),
    [((4, 3), 2.5), ((4, 3), (0.5, 1.0, 3.0)), ((2, 3, 4, 5), (0.5, 1.0, 3.0)), ((6,), (2.0,))],
)
def test_pos_weight_weighs_labels_of_one(
    shape: tuple[int, ...], weight: float | tuple[float, ...], rng: np.random.Generator
) -> None:
    """torch.nn.functional.binary_cross_entropy_with_logits(x, labels, pos_weight=...)."""
    w = np.reshape(weight, (-1, *[1] * (len(shape) - 2)))

    def formula(x: Array, labels: Array) -> float:
        p = 1 / (1 + np.exp(-x))
        return float(-(w * labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())

    loss = BinaryCrossEntropyWithLogits(pos_weight=weight)
    check(loss, formula, 3 * rng.standard_normal(shape), rng.uniform(0, 1, shape))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftmaxCrossEntropy(class_weights=(1, -1)), "class_weights is -1"),
        (lambda: SoftmaxCrossEntropy(class_weights=(0.0, 0.0)), "class_weights are all 0"),
        (
            lambda: SoftmaxCrossEntropy(class_weights=[1.0]),  # type: ignore[arg-type]
            "has to be a tuple of numbers",
        ),
        (lambda: BinaryCrossEntropyWithLogits(pos_weight=-2.0), "pos_weight is -2.0"),
    ],
    ids=["negative", "zero", "a list", "negative label weight"],
)
def test_weights_that_are_none_are_refused(make: Callable[[], Loss], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        (
            SoftmaxCrossEntropy(class_weights=(1.0, 2.0)),
            np.zeros(4, np.int64),
            "there are 2 class weights, but the model has 3 classes",
        ),
        (
            BinaryCrossEntropyWithLogits(pos_weight=(1.0, 2.0)),
            np.zeros((4, 3)),
            "pos_weight has 2 numbers, but axis 1 of the prediction 3",
        ),
    ],
    ids=["classes", "labels"],
)
def test_weights_of_other_classes_are_refused(loss: Loss, labels: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loss_and_gradient(loss, np.zeros((4, 3)), labels)


@pytest.mark.parametrize(
    "loss",
    [
        SoftmaxCrossEntropy(),
        SoftmaxCrossEntropy(ignore_index=0),
        SoftmaxCrossEntropy(0.1, 0, class_weights=(1.0, 2.0, 0.5)),
    ],
    ids=["plain", "ignored labels", "weights"],
)
def test_batches_weigh_as_much_as_what_counts_in_them(
    loss: SoftmaxCrossEntropy, rng: np.random.Generator
) -> None:
    """So a mean over batches of any sizes is that over all samples."""
    x, labels = rng.standard_normal((10, 3)), rng.integers(0, 3, 10)
    parts = [slice(0, 4), slice(4, 8), slice(8, 10)]
    total = sum(loss.weight(labels[part]) for part in parts)
    mean = sum(loss.weight(labels[p]) * loss_value(loss, x[p], labels[p]) for p in parts) / total
    assert mean == pytest.approx(loss_value(loss, x, labels), rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_distributions(
    shape: tuple[int, ...], smoothing: float, rng: np.random.Generator
) -> None:
    target = rng.uniform(0.1, 1, shape)
    target /= target.sum(1, keepdims=True)
    loss = SoftmaxCrossEntropy(label_smoothing=smoothing, soft_targets=True)
    check(loss, soft_cross_entropy(smoothing), rng.standard_normal(shape), target)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore", [None, 0])
def test_a_language_model_has_its_classes_last(
    smoothing: float, ignore: int | None, rng: np.random.Generator
) -> None:
    logits, labels = rng.standard_normal((2, 3, 5)), rng.integers(0, 5, (2, 3))
    labels[0, 0] = 0
    loss = SoftmaxCrossEntropy(smoothing, ignore, class_axis=-1)

    def formula(x: Array, y: Array) -> float:
        return cross_entropy(smoothing, ignore)(x.reshape(6, 5), y.reshape(6))

    check(loss, formula, logits, labels)


def test_distributions_with_classes_last(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((2, 3, 5)), rng.dirichlet(np.ones(5), (2, 3))
    loss = SoftmaxCrossEntropy(soft_targets=True, class_axis=-1)

    def formula(x: Array, y: Array) -> float:
        return soft_cross_entropy()(x.reshape(6, 5), y.reshape(6, 5))

    check(loss, formula, logits, target)


def test_hard_and_one_hot_labels_give_the_same_loss(rng: np.random.Generator) -> None:
    logits, labels = rng.standard_normal((4, 5)), rng.integers(0, 5, 4)
    hard = loss_and_gradient(SoftmaxCrossEntropy(0.1), logits, labels)
    soft = loss_and_gradient(
        SoftmaxCrossEntropy(0.1, soft_targets=True), logits, one_hot(labels, 5)
    )
    assert hard[0] == pytest.approx(soft[0], rel=1e-12)
    np.testing.assert_allclose(hard[1], soft[1], rtol=1e-12, atol=1e-15)


def test_ignored_labels_get_no_gradient(rng: np.random.Generator) -> None:
    labels = np.array([0, 3, 3, 2])
    for smoothing in (0.0, 0.1):
        loss = SoftmaxCrossEntropy(smoothing, ignore_index=3)
        _, gradient = loss_and_gradient(loss, rng.standard_normal((4, 5)), labels)
        assert (gradient[1:3] == 0).all()
        assert (gradient[[0, 3]] != 0).all()


@pytest.mark.parametrize("magnitude", [1e3, 1e30])
def test_cross_entropy_survives_large_logits(magnitude: float) -> None:
    logits = np.array([[magnitude, 0.0], [0.0, magnitude]])
    value, gradient = loss_and_gradient(SoftmaxCrossEntropy(), logits, np.array([0, 0]))
    assert value == magnitude / 2
    np.testing.assert_array_equal(gradient, [[0, 0], [-0.5, 0.5]])


ELEMENTWISE: list[tuple[Loss, Formula]] = [
    (MeanSquaredError(), squared_error),
    (L1(), absolute_error),
    (Huber(), huber(1.0)),
    (Huber(delta=0.3), huber(0.3)),
]


@pytest.mark.parametrize(("loss", "formula"), ELEMENTWISE)
@pytest.mark.parametrize("shape", [(7,), (4, 5), (2, 3, 4)])
def test_elementwise_losses(
    loss: Loss, formula: Formula, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    check(loss, formula, 2 * rng.standard_normal(shape), rng.standard_normal(shape))


@pytest.mark.parametrize("shape", [(7,), (4, 5), (2, 3, 4)])
def test_binary_cross_entropy(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    loss = BinaryCrossEntropyWithLogits()
    check(loss, binary_cross_entropy, 3 * rng.standard_normal(shape), rng.uniform(0, 1, shape))


def test_binary_cross_entropy_survives_large_logits() -> None:
    logits, labels = np.array([1e3, -1e3, 1e3, -1e3]), np.array([1.0, 0.0, 0.0, 1.0])
    value, gradient = loss_and_gradient(BinaryCrossEntropyWithLogits(), logits, labels)
    assert value == 500
    np.testing.assert_array_equal(gradient, [0, 0, 0.25, -0.25])


def test_absolute_errors_of_zero_get_no_gradient() -> None:
    """As in PyTorch: the derivative of |x| at 0 is taken to be 0."""
    _, gradient = loss_and_gradient(L1(), np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    np.testing.assert_array_equal(gradient, [0, 0.5])


CLASSES = TensorType((4, 10), np.dtype(np.float32))


@pytest.mark.parametrize("bad", [-1, 10, 255])
def test_labels_out_of_range_are_refused(bad: int) -> None:
    with pytest.raises(DataError, match=rf"{bad}.*10 classes \(0 to 9\)"):
        SoftmaxCrossEntropy().check_labels(np.array([0, 1, bad, 9]), CLASSES)


def test_only_the_ignored_label_may_be_out_of_range() -> None:
    loss = SoftmaxCrossEntropy(ignore_index=-100)
    loss.check_labels(np.array([0, -100, 9, -100]), CLASSES)
    loss.check_labels(np.full(4, -100), CLASSES)
    with pytest.raises(DataError, match="range from -1 to 9"):
        loss.check_labels(np.array([0, -1, 9, -100]), CLASSES)


@pytest.mark.parametrize("bad", [-0.1, 1.1])
def test_binary_labels_lie_in_the_unit_interval(bad: float) -> None:
    with pytest.raises(DataError, match=r"wants \[0, 1\]"):
        BinaryCrossEntropyWithLogits().check_labels(np.array([0.5, bad]), CLASSES)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("loss", [MeanSquaredError(), SoftmaxCrossEntropy(soft_targets=True)])
def test_labels_must_be_finite(loss: Loss, bad: float) -> None:
    with pytest.raises(DataError, match="NaN or infinity"):
        loss.check_labels(np.array([0.5, bad]), CLASSES)


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(UsageError, match=r"label_smoothing is .* below 1"):
        SoftmaxCrossEntropy(label_smoothing=1.0)
    for delta in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(UsageError, match="delta is"):
            Huber(delta)
    with pytest.raises(UsageError, match="no meaning with soft_targets"):
        SoftmaxCrossEntropy(ignore_index=0, soft_targets=True)
    with pytest.raises(DataError, match="class_axis 2 does not exist"):
        SoftmaxCrossEntropy(class_axis=2).labels_type(CLASSES)


def test_accuracy_counts_right_answers() -> None:
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 2.0, 1.0], [1.0, 0.0, 0.0]])
    labels = np.array([0, 2, 0, 0])
    assert SoftmaxCrossEntropy().accuracy(logits, labels) == 0.75
    assert SoftmaxCrossEntropy(ignore_index=2).accuracy(logits, labels) == pytest.approx(2 / 3)
    soft = SoftmaxCrossEntropy(soft_targets=True)
    assert soft.accuracy(logits, one_hot(labels, 3)) == 0.75
    assert SoftmaxCrossEntropy(ignore_index=0).accuracy(logits, np.zeros(4, np.int64)) is None
    assert MeanSquaredError().accuracy(logits, logits) is None
