"""A whole training step: copy the batch, forward, loss, backward, update, read the loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.case import Case, Suite
from coexec import zoo
from coexec.frontend.export import save_model

CLASSES = 10
RATE, SMALL_RATE = 0.01, 0.001
"""Learning rates. A large step on statistics of few images makes of rounding a second loss that
differs in its third digit, even between forms of PyTorch: there the step is small."""


def _case(title: str, model: str, batch: int, **more: Any) -> Case:
    """``options``: the zoo builder's; ``start`` asks for start-up times too; ``rate``: SGD's."""
    spec = {
        "model": model,
        "batch": batch,
        "options": more.get("options", {}),
        "start": more.get("start", False),
        "rate": more.get("rate", RATE),
    }
    return Case(f"{title}, batch {batch}", "train", spec, "fp32", quick=more.get("quick", False))


SMALL = {"image_size": 96, "dropout_ratio": 0.0}


def write_files(case: Case, folder: Path) -> Mapping[str, str]:
    """The model as ONNX (path ``onnx``) and one batch of random data (path ``data``)."""
    name, batch, options = case.spec["model"], case.spec["batch"], dict(case.spec["options"])
    onnx_file, data_file = folder / "model.onnx", folder / "batch.npz"
    save_model(zoo.build(name, batch=batch, classes=CLASSES, **options), onnx_file)
    shape = zoo.CATALOG[name].input_shape
    if "image_size" in options:
        shape = (shape[0], options["image_size"], options["image_size"])
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *shape), np.float32)
    np.savez(data_file, x=x, labels=rng.integers(0, CLASSES, batch))
    return {"onnx": str(onnx_file), "data": str(data_file)}


SUITE = Suite(
    "train",
    "Training steps",
    (
        _case("LeNet 28x28", "lenet5", 32, quick=True, start=True),
        _case("MNN's MNIST net 28x28", "lenet5", 64),
        _case("ResNet-18 32x32", "resnet18", 32, quick=True, start=True),
        _case("MobileNetV2 96x96", "mobilenetv2", 8, options=SMALL, quick=True, rate=SMALL_RATE),
        _case("MobileNetV2 96x96", "mobilenetv2", 32, options=SMALL),
        _case("VGG-11 32x32", "vgg11", 64, options={"dropout_ratio": 0.0}),
        _case("ViT-tiny 32x32", "vit_tiny", 16),
        _case("sensor net 6x100", "sensor_cnn", 64, quick=True),
    ),
    seconds=0.5,
    minutes=5.0,
    pause=0.3,
    fresh=True,
    files=write_files,
)
