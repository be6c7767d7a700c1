"""Co-execution: two processors of one core each together, beside each of them alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from bench.case import Case, Suite
from bench.contenders import LAYER, LOADED, MODEL, REMOVED, STREAM, TRAIN
from coexec import zoo
from coexec.frontend.export import save_model
from coexec.ops.node import type_of
from coexec.zoo.builder import Net, conv, linear

CPU_ENGINE = "ort:cpu?threads=1&cores=0"
"""ONNX Runtime on the first core; an OpenCL runtime has the last one."""
PAIRS: Mapping[str, tuple[str, str]] = {
    "intel": (CPU_ENGINE, "opencl:intel?cores=1"),
    "pocl": (CPU_ENGINE, "opencl:pocl?cores=1"),
    "equal": ("opencl:pocl?cores=1&first=0", "opencl:intel?cores=1"),
}
"""Two processors of one core each, by a name for them. Those of ``equal`` have the same kernels and
about the same rate, and both can train."""
BOTH_CORES: Mapping[str, str] = {
    CPU_ENGINE: "ort:cpu?cores=0-1",
    "opencl:intel?cores=1": "opencl:intel?cores=2",
    "opencl:pocl?cores=1": "opencl:pocl?cores=2",
    "opencl:pocl?cores=1&first=0": "opencl:pocl?cores=2",
}
"""The same runtime on the cores of both."""
CONVOLUTIONS = (
    ("Conv 7x7/2 3-64 224, batch 1", (1, 3, 224), 64, 7, 2),
    ("Conv 3x3 64-64 56, batch 1", (1, 64, 56), 64, 3, 1),
    ("Conv 3x3 128-128 28, batch 8", (8, 128, 28), 128, 3, 1),
    ("Conv 3x3 256-256 14, batch 8", (8, 256, 14), 256, 3, 1),
    ("Conv 3x3 512-512 7, batch 8", (8, 512, 7), 512, 3, 1),
    ("Conv 1x1 64-256 56, batch 8", (8, 64, 56), 256, 1, 1),
    ("Conv 1x1 1024-256 14, batch 8", (8, 1024, 14), 256, 1, 1),
)
"""Name, (batch, channels, side) of the input, output channels, side of the kernel, stride."""
LINEAR = ((32, 4096, 4096), (64, 4096, 1000), (32, 2048, 1000))
"""Rows, inputs, outputs; like the convolutions, at least a millisecond on one core."""
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ResNet-50": ("resnet50", {}),
    "VGG-16": ("vgg16_224", {"dropout_ratio": 0.0}),
    "MobileNetV2": ("mobilenetv2", {"dropout_ratio": 0.0}),
    "Inception v2": ("inception_v2", {}),
    "DenseNet-121": ("densenet121", {}),
    "ViT-tiny": ("vit_tiny", {"image_size": 224, "patch": 16, "classes": 1000}),
}
"""Models on one image of 224 x 224: the zoo's name and options."""
TRAININGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ResNet-18 32x32, step, batch 32": ("resnet18", {}),
    "VGG-11 32x32, step, batch 32": ("vgg11", {"dropout_ratio": 0.0}),
    "MobileNetV2 96x96, step, batch 32": ("mobilenetv2", {"image_size": 96, "dropout_ratio": 0.0}),
}
BATCH, CLASSES = 32, 10
STREAMS = ("MobileNetV2", "ResNet-50")
LOADS: Mapping[str, str] = {"equal": "ResNet-18 32x32, step, batch 32", "intel": "ResNet-50"}
"""What runs when a core gets a load, by pair: a training where both can train."""
TAKEN = "ResNet-18 32x32, step, batch 32"
QUICK = ("Conv 3x3 64-64 56, batch 1", "Linear 32 x 4096 -> 4096", "MobileNetV2")


def kind_of(pair: str, what: str) -> str:
    """The kind of the cases of a pair of processors."""
    return f"coexec.{pair}.{what}"


def write_files(case: Case, folder: Path) -> Mapping[str, str]:
    """The model as ONNX (path ``onnx``) and random data for it (path ``data``)."""
    onnx_file, data_file = folder / "model.onnx", folder / "data.npz"
    spec = case.spec
    if "model" in spec:
        model = zoo.build(spec["model"], batch=spec["batch"], **spec["options"])
    else:
        model = _layer(spec)
    save_model(model, onnx_file)
    shape = type_of(model.graph.inputs[0]).shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32)
    np.savez(data_file, x=x, labels=rng.integers(0, CLASSES, shape[0]))
    return {"onnx": str(onnx_file), "data": str(data_file)}


def _layer(spec: Mapping[str, Any]) -> ir.Model:
    """A convolution or a linear layer with its bias."""
    net = Net("layer", spec["input"], seed=0)
    channels = (spec["input"][1], spec["outputs"])
    if len(spec["input"]) == 2:
        return net.finish(linear(net, net.x, "layer", channels), spec["outputs"])
    kernel, stride = spec["kernel"], spec["stride"]
    y = conv(net, net.x, "layer", channels, (kernel, kernel), stride=stride, pad=kernel // 2)
    side = (spec["input"][2] - 1) // stride + 1
    return net.finish(y, spec["outputs"], side, side)


def _layers(pair: str) -> list[Case]:
    found = []
    for name, (batch, inputs, side), outputs, kernel, stride in CONVOLUTIONS:
        out_side = (side - 1) // stride + 1
        flop = 2 * batch * inputs * outputs * kernel**2 * out_side**2
        shape = {"input": [batch, inputs, side, side], "outputs": outputs}
        found.append((name, flop, shape | {"kernel": kernel, "stride": stride}))
    for rows, inputs, outputs in LINEAR:
        name = f"Linear {rows} x {inputs} -> {outputs}"
        flop = 2 * rows * inputs * outputs
        found.append((name, flop, {"input": [rows, inputs], "outputs": outputs}))
    return [_case(pair, LAYER, name, flop, spec) for name, flop, spec in found]


def _models(pair: str) -> list[Case]:
    return [_case(pair, MODEL, title, 0, _model(title)) for title in MODELS]


def _streams(pair: str) -> list[Case]:
    return [_case(pair, STREAM, f"Stream into {title}", 0, _model(title)) for title in STREAMS]


def _trainings(pair: str) -> list[Case]:
    return [_case(pair, TRAIN, title, 0, _training(title)) for title in TRAININGS]


def _disturbed() -> list[Case]:
    """A load on the core of the second processor, and that processor taken away."""
    loaded = [
        _case(pair, LOADED, f"Load beside {title}", 0, _spec(title))
        for pair, title in LOADS.items()
    ]
    removed = _case("equal", REMOVED, f"Processor taken from {TAKEN}", 0, _spec(TAKEN))
    return [*loaded, removed]


def _spec(title: str) -> dict[str, Any]:
    return _model(title) if title in MODELS else _training(title)


def _model(title: str) -> dict[str, Any]:
    name, options = MODELS[title]
    return {"model": name, "options": dict(options), "batch": 1, "trains": False}


def _training(title: str) -> dict[str, Any]:
    name, options = TRAININGS[title]
    more = {**options, "classes": CLASSES}
    return {"model": name, "options": more, "batch": BATCH, "trains": True}


def _case(pair: str, what: str, name: str, flop: int, spec: dict[str, Any]) -> Case:
    quick = name in QUICK and pair == next(iter(PAIRS))
    spec |= {
        "processors": list(PAIRS[pair]),
        "on_both_cores": [BOTH_CORES[name] for name in PAIRS[pair]],
    }
    group = f"{GROUPS[what]}, {pair}"
    kind, beside = kind_of(pair, what), what == LOADED
    return Case(f"{name}, {pair}", kind, spec, group, flop, quick=quick, beside=beside)


GROUPS = {
    LAYER: "layers",
    MODEL: "models",
    TRAIN: "training",
    STREAM: "streams",
    LOADED: "a core gets a load",
    REMOVED: "a processor is taken away",
}


SUITE = Suite(
    "coexec",
    "Co-execution on two processors of one core each",
    (
        *_trainings("equal"),
        *_disturbed(),
        *(case for pair in PAIRS for case in _streams(pair)),
        *(case for pair in PAIRS for case in _models(pair)),
        *(case for pair in PAIRS for case in _layers(pair)),
    ),
    seconds=0.08,
    pause=0.02,
    turns=9,
    short=2,
    fewest=5,
    repeats=9,
    minutes=35.0,
    fresh=True,
    files=write_files,
    alone=True,
)
"""What tells most comes first: a run whose time is up leaves layers out."""
