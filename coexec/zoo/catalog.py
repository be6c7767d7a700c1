"""The zoo's models by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import onnx_ir as ir

from coexec.base.errors import UsageError
from coexec.base.names import known_names, meant_among_many
from coexec.zoo import (
    cnn3d,
    densenet,
    detector,
    gpt,
    inception,
    lenet,
    mlp,
    mobilenet,
    recurrent,
    resnet,
    sensor,
    squeezenet,
    vgg,
    vit,
)
from coexec.zoo.entry import ZooEntry
from coexec.zoo.families import FAMILIES
from coexec.zoo.published import PUBLISHED

CATALOG: Mapping[str, ZooEntry] = MappingProxyType(
    {
        "mlp": ZooEntry("multilayer perceptron 784-256-128", (784,), mlp.mlp),
        "digits_cnn": ZooEntry("small CNN for 8 x 8 digits", (1, 8, 8), lenet.digits_cnn),
        "lenet5": ZooEntry("LeNet: conv 20, conv 50, fc 500", (1, 28, 28), lenet.lenet5),
        "lenet5_classic": ZooEntry("LeNet-5 of 1998", (1, 28, 28), lenet.lenet5_classic),
        "sensor_cnn": ZooEntry(
            "1-D dilated CNN for accelerometer data", (6, 100), sensor.sensor_cnn
        ),
        "lstm_har": ZooEntry("LSTM on windows of phone sensors", (128, 9), recurrent.lstm_har),
        "gru_kws": ZooEntry("GRU keyword spotter", (25, 10), recurrent.gru_kws),
        "cnn3d": ZooEntry("small 3-D CNN for clips", (3, 16, 32, 32), cnn3d.cnn3d),
        "resnet18": ZooEntry("ResNet-18, stem for small images", (3, 32, 32), resnet.resnet18),
        "resnet18_224": ZooEntry("ResNet-18, ImageNet", (3, 224, 224), resnet.resnet18_224),
        "resnet50": ZooEntry("ResNet-50, ImageNet", (3, 224, 224), resnet.resnet50),
        "densenet121": ZooEntry("DenseNet-121", (3, 224, 224), densenet.densenet121),
        "inception_v2": ZooEntry(
            "Inception v2 (BN-Inception)", (3, 224, 224), inception.inception_v2
        ),
        "mobilenetv2": ZooEntry("MobileNetV2, any size", (3, 224, 224), mobilenet.mobilenetv2),
        "detector": ZooEntry(
            "single-shot detector with four heads", (3, 256, 256), detector.detector
        ),
        "squeezenet": ZooEntry("SqueezeNet 1.1", (3, 224, 224), squeezenet.squeezenet),
        "vgg11": ZooEntry("VGG-11 for small images", (3, 32, 32), vgg.vgg11),
        "vgg16": ZooEntry("VGG-16 for small images", (3, 32, 32), vgg.vgg16),
        "vgg16_224": ZooEntry("VGG-16, ImageNet (553 MB)", (3, 224, 224), vgg.vgg16_224),
        "vit_tiny": ZooEntry("ViT-tiny on 4 x 4 patches", (3, 32, 32), vit.vit_tiny),
        "gpt_tiny": ZooEntry("GPT-like decoder on bytes", (64,), gpt.gpt_tiny),
    }
    | PUBLISHED
    | FAMILIES
)


def entry_of(name: str) -> ZooEntry:
    """What the catalog says of a model.

    Raises:
        UsageError: there is none of that name; close ones are named.
    """
    if name not in CATALOG:
        meant = meant_among_many(name, CATALOG, "coexec zoo")
        raise UsageError(f"no model {name!r} in the zoo; {meant}")
    return CATALOG[name]


def build(
    name: str, batch: int | None = None, classes: int | None = None, **options: Any
) -> ir.Model:
    """A model of the zoo, seeded, as a graph with input ``x`` and logits ``y``.

    Args:
        name: a key of :data:`CATALOG`.
        batch: size of the first axis; ``None`` leaves it symbolic (``N``).
        classes: size of the last axis of ``y``; ``None`` takes the model's own default.
        **options: the builder's keyword options, ``seed`` among them.

    Raises:
        UsageError: unknown name or option (close or known ones are named), or a value that fits no
            network.
    """
    entry = entry_of(name)
    unknown = sorted(set(options) - set(entry.options))
    if unknown:
        raise UsageError(
            f"{name} has no option {unknown[0]!r}; {known_names(unknown[0], entry.options)}"
        )
    classes = entry.classes if classes is None else classes
    for what, value in (("batch", batch), ("classes", classes)):
        if value is not None and value < 1:
            raise UsageError(f"{what} must be at least 1, not {value}")
    model = entry.builder(batch, classes, **options)
    for parameter in model.graph.initializers.values():
        tensor = parameter.const_value
        if isinstance(tensor, ir.LazyTensor):
            parameter.const_value = ir.tensor(tensor.numpy(), name=tensor.name)
    return model
