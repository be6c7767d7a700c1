"""Which network of the zoo, with which options, a public name means, whoever measured it.

Names are those of papers and of torchvision, timm, Keras, Ultralytics and TensorFlow's hosted
models, in any case and with any signs between their parts. A network has the size that it was
published at, unless its name ends in another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from coexec.base.errors import UsageError
from coexec.cost.calibration.collection import ALONE
from coexec.cost.calibration.convolution_names import CONVOLUTIONAL
from coexec.cost.calibration.detector_names import DETECTORS
from coexec.cost.calibration.name_parts import Network, Rules
from coexec.cost.calibration.transformer_names import TRANSFORMERS
from coexec.cost.calibration.zoo_networks import Options
from coexec.zoo.catalog import CATALOG
from coexec.zoo.published import PUBLISHED

ENDINGS = re.compile(
    r"_(int8|uint8|quant|quantized|fp16|fp32|float|float16|float32|w8a8|w8a16|qat|det|coco|voc|"
    r"imagenet|hf|in1k|1k)$"
)
"""What element types and data sets add to a name."""
SIDE = re.compile(
    r"_(?P<side>96|112|128|160|192|224|240|256|260|280|288|299|300|320|331|352|380|384|416|448|"
    r"456|480|512|518|528|560|576|600|640|672|768|1024|1280)(?:x(?P=side))?$"
)
"""A square size behind a name."""
SIDE_224: Options = (("image_size", 224),)
RULES: Rules = {**CONVOLUTIONAL, **TRANSFORMERS, **DETECTORS}
"""No name fits two of them."""
VAGUE = frozenset(
    {
        "bert_encoder",
        "face_attributes",
        "face_detection",
        "face_landmarks",
        "face_shape",
        "foot_track",
        "gear_guard",
        "hand_landmarks",
        "hand_pose",
        "openpose",
        "palm_detector",
        "pose_detector",
        "pose_landmarks",
        "selfie_segmentation",
        "unet",
        "yolo11",
        "yolov5",
        "yolov8",
        "yolox",
    }
)
"""Names of the zoo by which others mean networks of other layers or sizes."""
ZOO: Mapping[str, Network] = {
    name.replace("_", ""): (name, ())
    for name in sorted((PUBLISHED.keys() - VAGUE) | {"xception", *ALONE.values()})
}
"""Other names that are the zoo's own, by letters and digits alone."""
OWN_SIDES = frozenset(
    {
        "efficientnet",
        "efficientnet_v2",
        "efficientnet_v2_l",
        "efficientnet_v2_m",
        "efficientnet_v2_s",
        "inception_resnet_v2",
        "inception_v3",
        "inception_v4",
        "edgenext",
        "fastvit",
        "mobilenet_v4_medium",
        "nasnet_large",
        "xception",
    }
)
"""Classifiers that were published at another size than 224 x 224."""


def plain_name(name: str) -> str:
    """In small letters, with ``_`` between parts and without what element types add."""
    found = re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")
    while (shorter := ENDINGS.sub("", found)) != found:
        found = shorter
    return found


@cache
def zoo_network(name: str) -> Network | None:
    """The network that a name means; ``None`` if that is not known."""
    plain = plain_name(name)
    found = _by_rule(plain)
    if found is None and (sized := SIDE.search(plain)):
        found = _by_rule(plain[: sized.start()])
        if found is None or "image_size" not in CATALOG[found[0]].options:
            return None
        others = tuple(each for each in found[1] if each[0] != "image_size")
        found = found[0], (*others, ("image_size", int(sized["side"])))
    return found if found is not None and _exists(found) else None


def _exists(network: Network) -> bool:
    """Whether the family has this member."""
    name, options = network
    try:
        CATALOG[name].builder(1, CATALOG[name].classes, **dict(options))
    except UsageError:
        return False
    return True


def _by_rule(plain: str) -> Network | None:
    for pattern, meaning in RULES.items():
        if match := re.fullmatch(pattern, plain):
            return meaning(match)
    together = plain.replace("_", "").replace(".", "")
    return ZOO.get(together)


def at_224(network: Network) -> Network:
    """The same network, at 224 x 224 if it is a classifier that was published at another size."""
    name, options = network
    if name not in OWN_SIDES:
        return network
    return name, (*(each for each in options if each[0] != "image_size"), *SIDE_224)
