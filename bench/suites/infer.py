"""Inference on one image: the input is copied, the network computed, the output read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from bench import light_models
from bench.case import Case, Suite
from coexec import zoo
from coexec.frontend.export import save_model

TITLES = {
    "bvlc_alexnet": "AlexNet",
    "densenet121": "DenseNet-121",
    "inception_v1": "Inception v1",
    "inception_v2": "Inception v2",
    "resnet50": "ResNet-50",
    "shufflenet": "ShuffleNet",
    "squeezenet": "SqueezeNet",
    "vgg19": "VGG-19",
    "zfnet512": "ZFNet",
}
QUICK = ("squeezenet", "resnet50", "shufflenet")
MOBILENET = "mobilenetv2"


def write_files(case: Case, folder: Path) -> Mapping[str, str]:
    """The model as ONNX (path ``onnx``) and a random image (path ``data``)."""
    onnx_file, data_file = folder / "model.onnx", folder / "image.npz"
    name: str = case.spec["model"]
    if name == MOBILENET:
        save_model(zoo.build(name, batch=1, dropout_ratio=0.0), onnx_file)
        model = onnx.load(onnx_file)
    else:
        loaded = onnx.load(light_models.model_file(name))
        model = light_models.without_softmax(light_models.with_random_weights(loaded))
        onnx.save(model, onnx_file)
    image = light_models.model_input(model)
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    arrays = {image.name: np.random.default_rng(0).standard_normal(shape, np.float32)}
    np.savez(data_file, **arrays)  # type: ignore[arg-type]  # its stub knows no keywords
    return {"onnx": str(onnx_file), "data": str(data_file)}


def _case(title: str, model: str, quick: bool) -> Case:
    return Case(title, "infer", {"model": model}, "batch 1", quick=quick)


SUITE = Suite(
    "infer",
    "Inference, one image of 224 x 224",
    (
        *(_case(TITLES[name], name, name in QUICK) for name in light_models.NAMES),
        _case("MobileNetV2", MOBILENET, quick=True),
    ),
    seconds=0.2,
    pause=0.2,
    turns=5,
    minutes=4.0,
    fresh=True,
    files=write_files,
)
