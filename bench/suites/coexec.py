"""Co-execution: two processors of one core each together, beside each of them alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from bench.case import Case, Suite
from coexec import zoo
from coexec.frontend.export import save_model
from coexec.ops.node import type_of
from coexec.zoo.builder import Net, conv, linear

CPU_ENGINE = "ort:cpu?threads=1&cores=0"
"""ONNX Runtime on the first core; the OpenCL runtime has the last one."""
LAYER, MODEL = "layer", "model"
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
QUICK = ("Conv 3x3 64-64 56, batch 1", "Linear 32 x 4096 -> 4096", "MobileNetV2")
RUNTIMES = ("intel", "pocl")


def processors_of(runtime: str) -> list[str]:
    """The two processors, one core each."""
    return [CPU_ENGINE, f"opencl:{runtime}?cores=1"]


def kind_of(runtime: str, what: str) -> str:
    """The kind of the cases of a runtime."""
    return f"coexec.{runtime}.{what}"


def write_files(case: Case, folder: Path) -> Mapping[str, str]:
    """The model as ONNX (path ``onnx``) and random data for its input (path ``data``)."""
    onnx_file, data_file = folder / "model.onnx", folder / "data.npz"
    spec = case.spec
    if "model" in spec:
        model = zoo.build(spec["model"], batch=1, **spec["options"])
    else:
        model = _layer(spec)
    save_model(model, onnx_file)
    shape = type_of(model.graph.inputs[0]).shape
    np.savez(data_file, x=np.random.default_rng(0).standard_normal(shape, np.float32))
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


def _layers(runtime: str) -> list[Case]:
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
    return [_case(runtime, LAYER, name, flop, spec) for name, flop, spec in found]


def _models(runtime: str) -> list[Case]:
    return [
        _case(runtime, MODEL, title, 0, {"model": name, "options": dict(options)})
        for title, (name, options) in MODELS.items()
    ]


def _case(runtime: str, what: str, name: str, flop: int, spec: dict[str, Any]) -> Case:
    quick = name in QUICK and runtime == RUNTIMES[0]
    spec |= {"processors": processors_of(runtime)}
    group = f"{what}s, {runtime}"
    return Case(f"{name}, {runtime}", kind_of(runtime, what), spec, group, flop, quick=quick)


SUITE = Suite(
    "coexec",
    "Co-execution on two processors of one core each",
    tuple(case for r in RUNTIMES for case in (*_layers(r), *_models(r))),
    seconds=0.1,
    pause=0.02,
    turns=9,
    minutes=12.0,
    fresh=True,
    files=write_files,
    alone=True,
)
