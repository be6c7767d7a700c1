"""Real data, learned from ONNX files on the default OpenCL device: digits and wrist motions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import AdamW, Optimizer
from coexec.autodiff.schedules import Cosine
from coexec.frontend.export import save_model
from coexec.training.data import Dataset
from coexec.training.fit import FitOptions, Result, fit
from examples.prepare_basic_motions import basic_motions
from examples.prepare_digits import Split, digits
from tests.runtimes import THOROUGH

PROCESSOR = THOROUGH[0]


def train(
    name: str,
    data: tuple[Split, Split],
    how: FitOptions,
    optimizer: Optimizer,
    smoothing: float,
    folder: Path,
    clip_norm: float | None = None,
    **options: int,
) -> tuple[coexec.Trainer, Result]:
    """Train the zoo's model of this name, from a file as a user does."""
    (x, labels), (held_x, held_labels) = data
    save_model(zoo.build(name, **options), folder / "untrained.onnx")
    model = coexec.load(folder / "untrained.onnx", {"x": (how.batch_size, *x.shape[1:])})
    loss = SoftmaxCrossEntropy(smoothing)
    trainer = coexec.Trainer(model, loss, optimizer, [PROCESSOR], clip_norm=clip_norm)
    held_out = Dataset({"x": held_x}, held_labels)
    result = fit(trainer, Dataset({"x": x}, labels), held_out, how)
    assert not trainer.plan.table(), "everything runs on the OpenCL device"
    assert result.loss_last < result.loss_first / 2
    return trainer, result


def onnxruntime_accuracy(trainer: coexec.Trainer, split: Split, folder: Path) -> float:
    """Accuracy of the saved model where coexec has no part in it."""
    trainer.save(folder / "trained.onnx")
    session = onnxruntime.InferenceSession(
        folder / "trained.onnx", providers=["CPUExecutionProvider"]
    )
    answers: NDArray[np.int64] = np.concatenate(
        [np.asarray(session.run(["y"], {"x": x})[0]).argmax(1) for x in batches(trainer, split[0])]
    )
    return float((answers == split[1]).mean())


def batches(trainer: coexec.Trainer, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Batches of the size that the model was loaded with."""
    shape = trainer.model.graph.inputs[0].shape
    assert shape is not None
    size = shape.numpy()[0]
    assert len(x) % size == 0
    return np.split(x, len(x) // size)


def test_digits_reach_98_percent(tmp_path: Path) -> None:
    """Over five seeds these settings gave 98.9 to 99.7 %: rounding on another device is no risk."""
    data = digits()
    how = FitOptions(epochs=20, batch_size=30)
    steps = how.epochs * (len(data[0][0]) // how.batch_size)
    optimizer = AdamW(Cosine(3e-3, steps), weight_decay=0.5)
    trainer, result = train("digits_cnn", data, how, optimizer, 0.1, tmp_path)
    assert result.steps == steps
    assert result.accuracy is not None
    assert result.accuracy >= 0.98
    assert onnxruntime_accuracy(trainer, data[1], tmp_path) == result.accuracy


def test_basic_motions_reach_95_percent(tmp_path: Path) -> None:
    data = basic_motions()
    how = FitOptions(epochs=20, batch_size=8)
    trainer, result = train("sensor_cnn", data, how, AdamW(3e-3), 0.0, tmp_path)
    assert result.accuracy is not None
    assert result.accuracy >= 0.95
    assert onnxruntime_accuracy(trainer, data[1], tmp_path) == result.accuracy


def test_a_recurrent_network_learns_basic_motions(tmp_path: Path) -> None:
    """Over three seeds these settings gave 97.5 to 100 %."""
    (x, labels), (held_x, held_labels) = basic_motions()
    data = ((in_time(x), labels), (in_time(held_x), held_labels))
    how = FitOptions(epochs=40, batch_size=8)
    options = {"channels": x.shape[1], "length": x.shape[2], "classes": 4}
    trainer, result = train("lstm_har", data, how, AdamW(1e-2), 0.0, tmp_path, 1.0, **options)
    assert result.accuracy is not None
    assert result.accuracy >= 0.9
    assert onnxruntime_accuracy(trainer, data[1], tmp_path) == result.accuracy


def in_time(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Recordings (N, channels, length) as sequences (N, length, channels)."""
    return np.ascontiguousarray(x.transpose(0, 2, 1))
