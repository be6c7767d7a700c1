"""Which network the tables of inference libraries mean by a name, and its layers.

Sizes are those of the libraries' own benchmarks: 224 x 224 unless a network's paper or file says
otherwise. A folder of measurements may have the layers of a network as an engine ran them; where it
does not, they are the zoo's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from coexec.cost.calibration.collection import collection_layers
from coexec.cost.calibration.zoo_names import plain_name, zoo_network
from coexec.cost.calibration.zoo_networks import Options, fused_layers, product_layers
from coexec.cost.soc.workload import Workload

Shapes = Mapping[str, tuple[Workload, ...]]

ENDINGS = re.compile(r"(int8|quant|quantized|fp16|fp32|float)$")
NETWORKS = {
    "mobilenet": "mobilenet_w1",
    "mobilenetv1": "mobilenet_w1",
    "mobilenetv110224": "mobilenet_w1",
    "mobilenetv2": "mobilenetv2_w1",
    "mobilenetv210224": "mobilenetv2_w1",
    "mobilenetv3": "mobilenetv3_large_w1",
    "mobilenetv3large": "mobilenetv3_large_w1",
    "mobilenetv3largex10": "mobilenetv3_large_w1",
    "mobilenetv3large10": "mobilenetv3_large_w1",
    "mobilenetv3large075": "mobilenetv3_large_w3d4",
    "mobilenetv3largeminimalistic": "mobilenet_v3_large_minimalistic",
    "mobilenetv3small": "mobilenetv3_small_w1",
    "mobilenetv3smallx10": "mobilenetv3_small_w1",
    "mobilenetv3small10": "mobilenetv3_small_w1",
    "mobilenetv3small075": "mobilenetv3_small_w3d4",
    "mobilenetv3smallminimalistic": "mobilenet_v3_small_minimalistic",
    "squeezenet": "squeezenet_v1_1",
    "squeezenetv10": "squeezenet_v1_0",
    "squeezenet10": "squeezenet_v1_0",
    "squeezenetv11": "squeezenet_v1_1",
    "squeezenet11": "squeezenet_v1_1",
    "resnet18": "resnet18",
    "regnety400m": "regnety004",
    "alexnet": "AlexNet",
    "vgg16": "VGG16",
    "resnet34": "ResNet34",
    "resnet50": "ResNet50",
    "resnet50v1": "ResNet50",
    "resnet50v2": "ResNet50",
    "googlenet": "GoogLeNet",
    "shufflenetv2": "ShuffleNetV2",
    "mnasnet": "MnasNet",
    "efficientnetb0": "EfficientNetB0",
    "shufflenet": "shufflenet",
    "proxylessnasnet": "proxyless_mobile",
    "efficientnetv2b0": "efficientnet_v2_b0",
    "blazeface": "blazeface_features",
    "squeezenetssd": "squeezenet_ssd",
    "mobilenetssd": "mobilenet_ssd",
    "ssdmobilenetv1relu300": "mobilenet_ssd",
    "mobilenetyolo": "mobilenet_yolo",
    "mobilenetv2yolov3": "mobilenetv2_yolov3",
    "yolov4tiny": "yolov4_tiny",
    "visiontransformer": "vit_b32",
    "inceptionv3": "inception_v3",
    "inceptionv4": "inception_v4",
    "inceptionresnetv2": "inception_resnet_v2",
    "densenet121": "densenet121",
    "nanodetm": "nanodet_m",
    "yolofastest11": "yolo_fastest",
    "yolofastestv2": "yolo_fastest_v2",
    "fastestdet": "fastest_det",
    "ssdmobilenetv3large": "ssdlite_mobilenet_v3_large",
    "nasnetmobile": "nasnet_mobile",
}
"""By letters and digits alone, without what an element type adds to a name."""
MISLABELLED = {("TNN", "squeezenet10")}
"""Libraries' own names that count as unknown.

TNN 0.3's "SqueezeNet1.0" takes as long as its 1.1, which has 2.4 times less arithmetic, on two CPUs
and two GPUs: one of both is mislabelled.
"""
TFLITE = {"squeezenet": "squeezenet_v1_0"}
"""TFLite's hosted SqueezeNet is the first version, ncnn's benchmark has 1.1."""
BUILT: Mapping[str, tuple[str, Options]] = {
    "ShuffleNetV2": ("shufflenet_v2", ()),
    "MnasNet": ("mnasnet", ()),
    "EfficientNetB0": ("efficientnet_b0", ()),
    "mobilenet_v3_large_minimalistic": ("mobilenet_v3_large", (("minimalistic", True),)),
    "mobilenet_v3_small_minimalistic": ("mobilenet_v3_small", (("minimalistic", True),)),
}
"""Networks of the zoo whose names are others there, or mean options."""
PRODUCTS: Mapping[str, tuple[str, Options]] = {
    "AlexNet": ("alexnet", (("later", True),)),
    "VGG16": ("vgg16_224", ()),
    "ResNet34": ("resnet34", ()),
    "ResNet50": ("resnet50", ()),
    "GoogLeNet": ("googlenet", (("kernel", 5),)),
}
"""Such networks whose convolutions and products are taken to be all of their time."""
WHOLE = 0.99
"""Part of a network's arithmetic that a folder's layers have where none is missing."""


def network_of(name: str, framework: str) -> str:
    """The name that a network goes by in all tables; empty if it is unknown."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    while (shorter := ENDINGS.sub("", plain)) != plain:
        plain = shorter
    if any(framework.startswith(library) and plain == own for library, own in MISLABELLED):
        return ""
    found = TFLITE.get(plain) if framework.startswith("TFLite") else None
    found = found or NETWORKS.get(plain)
    return found or (plain_name(name) if zoo_network(name) else "")


def layers_of_network(network: str, shapes: Shapes) -> tuple[Workload, ...]:
    """Layers of a name of :func:`network_of`, or of a folder; none if nothing is known of it.

    ``shapes`` are those of a folder. They count before what the name says, unless that has more
    arithmetic: a folder may lack some of a network's layers.
    """
    return fuller(shapes.get(network, ()), _named(network))


def fuller(own: tuple[Workload, ...], named: tuple[Workload, ...]) -> tuple[Workload, ...]:
    """A folder's layers, or those that a name stands for if the folder lacks some of them."""
    return own if _flop(own) >= WHOLE * _flop(named) else named


@cache
def _named(network: str) -> tuple[Workload, ...]:
    """By the rules of the pytorchcv collection, or from the zoo."""
    if layers := collection_layers(network):
        return layers
    if network in PRODUCTS:
        return product_layers(*PRODUCTS[network])
    if network in BUILT:
        return fused_layers(*BUILT[network])
    if network in NETWORKS.values():
        return fused_layers(network)
    known = zoo_network(network)
    return fused_layers(*known) if known else ()


def _flop(layers: tuple[Workload, ...]) -> float:
    return sum(layer.flop for layer in layers)
