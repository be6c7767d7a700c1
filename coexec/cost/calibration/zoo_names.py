"""Which network of the zoo, with which options, a public name means, whoever measured it.

Names are those of papers and of torchvision, timm, Keras, Ultralytics and TensorFlow's hosted
models, in any case and with any signs between their parts. A network has the size that it was
published at, unless its name ends in another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

from coexec.base.errors import UsageError
from coexec.cost.calibration.collection import ALONE, EFFICIENTNET_SIDES
from coexec.cost.calibration.zoo_networks import Options
from coexec.zoo.catalog import CATALOG
from coexec.zoo.published import PUBLISHED

Network = tuple[str, Options]
Parts = re.Match[str]
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
LITE_SIDES, V2_SIDES = (224, 240, 260, 280, 300), (224, 240, 260, 300)
"""Height and width of images of EfficientNet-Lite and EfficientNetV2 by their numbers."""
YOLO = {
    "n": (1 / 3, 0.25),
    "s": (1 / 3, 0.5),
    "m": (2 / 3, 0.75),
    "l": (1.0, 1.0),
    "x": (4 / 3, 1.25),
}
"""Times of the large network's blocks and channels, by the size's letter."""
YOLO_V8_WIDEST, YOLO_11_WIDTHS = {"n": 1024, "s": 1024, "m": 768}, {"m": 1.0, "l": 1.0, "x": 1.5}
"""Where YOLOv8 stops to widen and YOLO11's channels, where they are not as for the others."""
YOLOX_SMALL = {"nano": (0.25, True), "tiny": (0.375, False)}
"""Times of the large network's channels, and whether convolutions are separable."""
FORMERS, FAST = ("s0", "s1", "s2", "l"), ("t8", "t12", "s12", "sa12", "sa24", "sa36")
NEXTS = ("xx_?small|xxs", "x_?small|xs", "small|s", "base|b")
"""Sizes of EfficientFormerV2, FastViT and EdgeNeXt, the smallest first."""
BERTS = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "large": (24, 1024),
}
"""Blocks and features; heads have 64."""
VITS = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}
"""Features and blocks."""
CONVNEXTS = {"tiny": (96, 9), "small": (96, 27), "base": (128, 27), "large": (192, 27)}
"""First channels, and blocks of the third stage."""
LETTERS = {"t": "tiny", "s": "small", "b": "base", "l": "large"}
SIZE = r"(?P<size>tiny|small|base|large|[tsbl])"
WIDTH = r"(?:_?x?(?P<width>\d[._]\d+|0\d\d?|1\d\d|1))?x?"
"""``_0.25``, ``_x0_5``, ``_025``, ``_100``, ``_1.0x``."""


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


def _size(parts: Parts) -> str:
    return LETTERS.get(parts["size"], parts["size"])


def _width(parts: Parts) -> Options:
    """``0.25``, ``0_5``, ``025``, ``05`` and ``100`` as numbers; nothing for the full width."""
    text = parts["width"]
    if text is None:
        return ()
    signed = re.sub(r"[._]", ".", text)
    if "." in signed or len(signed) == 1:
        number = float(signed)
    elif signed.startswith("0"):
        number = float(f"0.{signed[1:]}")
    else:
        number = int(signed) / 100
    return () if number == 1 else (("width", number),)


def _scaled(network: str) -> Callable[[Parts], Network]:
    """A network that comes at several widths."""
    return lambda parts: (network, _width(parts))


def _mobilenet_v3(parts: Parts) -> Network:
    plain: Options = (("minimalistic", True),) if parts["plain"] else ()
    return f"mobilenet_v3_{parts['size']}", (*_width(parts), *plain)


def _shufflenet_v2(parts: Parts) -> Network:
    width = _width(parts)
    if not width:
        return "shufflenet_v2", ()
    return "shufflenet_v2_of_width", (*width, ("stepped", True))


def _efficientnet(parts: Parts) -> Network:
    number = int(parts["number"])
    lite = bool(parts["lite"])
    sides = LITE_SIDES if lite else EFFICIENTNET_SIDES
    if number >= len(sides):
        return "efficientnet", (("number", number), ("lite", lite))
    kind: Options = (("lite", True),) if lite else ()
    return "efficientnet", (("number", number), ("image_size", sides[number]), *kind)


def _efficientnet_v2(parts: Parts) -> Network:
    number = int(parts["number"])
    side = V2_SIDES[min(number, len(V2_SIDES) - 1)]
    return "efficientnet_v2", (("number", number), ("image_size", side))


def _resnet(parts: Parts) -> Network:
    depth, excited = int(parts["depth"]), bool(parts["se"])
    kind: Options = (("excited", True),) if excited else ()
    return "residual_network", (("depth", depth), *kind)


def _resnet_v2(parts: Parts) -> Network:
    depth = int(parts["depth"] or parts["number"])
    return "residual_network", (("depth", depth), ("preactivated", True))


def _resnext(parts: Parts) -> Network:
    groups, each = int(parts["groups"]), int(parts["each"])
    return "residual_network", (
        ("depth", int(parts["depth"])),
        ("groups", groups),
        ("group_width", each),
    )


def _vgg(parts: Parts) -> Network:
    return "vgg", (("depth", int(parts["depth"])), ("norm", bool(parts["norm"])))


def _regnet(parts: Parts) -> Network:
    number = float(parts["number"].replace("_", "."))
    millions = round(number * (1000 if parts["unit"] == "gf" else 1))
    kind: Options = (("excited", True),) if parts["kind"] == "y" else ()
    return "regnet", (("millions", millions), *kind, ("halves_up", True))


def _convnext(parts: Parts) -> Network:
    width, depth = CONVNEXTS[_size(parts)]
    return "convnext", (("width", width), ("depth", depth))


def _vit(parts: Parts) -> Network:
    features, depth = VITS[_size(parts)]
    patch = int(parts["patch"] or 16)
    return "vision_transformer", (("patch", patch), ("features", features), ("depth", depth))


def _dino(parts: Parts) -> Network:
    features, depth = VITS[_size(parts)]
    return "vision_transformer", (
        ("patch", 14),
        ("features", features),
        ("depth", depth),
        ("scaled", True),
    )


def _bert(parts: Parts) -> Network:
    depth, features = BERTS[parts["size"]]
    return "bert_encoder", (("depth", depth), ("features", features), ("heads", features // 64))


def _yolov5(parts: Parts) -> Network:
    depth, width = YOLO[parts["size"]]
    return "yolov5", (("depth", depth), ("width", width))


def _yolov8(parts: Parts) -> Network:
    size = parts["size"]
    depth, width = YOLO[size]
    # The largest one is wider, not deeper.
    blocks = min(depth, 1.0)
    return "yolov8", (
        ("depth", blocks),
        ("width", width),
        ("widest", YOLO_V8_WIDEST.get(size, 512)),
    )


def _yolo11(parts: Parts) -> Network:
    size = parts["size"]
    width = YOLO_11_WIDTHS.get(size, YOLO[size][1])
    deep, widest = 2 if size in "lx" else 1, 1024 if size in "ns" else 512
    return "yolo11", (("depth", deep), ("width", width), ("widest", widest))


def _yolox(parts: Parts) -> Network:
    size = parts["size"]
    if size in YOLOX_SMALL:
        width, separable = YOLOX_SMALL[size]
        small: Options = (("separable", True),) if separable else ()
        return "yolox", (("depth", 1 / 3), ("width", width), ("image_size", 416), *small)
    depth, width = YOLO[size]
    return "yolox", (("depth", depth), ("width", width))


def _rep_vgg(parts: Parts) -> Network:
    deep: Options = (("deep", True),) if parts["kind"] == "b" else ()
    return "rep_vgg", (("number", int(parts["number"])), *deep)


def _numbered(network: str) -> Callable[[Parts], Network]:
    """A network of a number."""
    return lambda parts: (network, (("number", int(parts["number"])),))


def _ultra_face(parts: Parts) -> Network:
    return "ultra_face", (("slim", True),) if parts["kind"] == "slim" else ()


def _ordered(network: str, sizes: tuple[str, ...]) -> Callable[[Parts], Network]:
    """A network by the place of its size among all."""

    def meaning(parts: Parts) -> Network:
        fits = (number for number, size in enumerate(sizes) if re.fullmatch(size, parts["size"]))
        return network, (("number", next(fits)),)

    return meaning


def _named(network: str, options: Options = ()) -> Callable[[Parts], Network]:
    """A network that is one alone."""
    return lambda parts: (network, options)


RULES: Mapping[str, Callable[[Parts], Network]] = {
    r"mobilenet(?:_?v1)?" + WIDTH: _scaled("mobilenet_v1"),
    r"mobilenet_?v2" + WIDTH: _scaled("mobilenetv2"),
    r"mobilenet_?v3_?(?P<size>large|small)(?P<plain>_minimalistic)?" + WIDTH: _mobilenet_v3,
    r"mobilenet_?v4(?:_conv)?_?(?:small|s)": _named("mobilenet_v4_small"),
    r"mobilenet_?v4(?:_conv)?_?(?:medium|m)": _named("mobilenet_v4_medium"),
    r"mobilenet_?edge_?tpu(?:_1.0)?": _named("mobilenet_edgetpu"),
    r"mnasnet(?:_?b1)?" + WIDTH: _scaled("mnasnet"),
    r"mnasnet_?a1": _named("mnasnet_a1"),
    r"mnasnet_?small": _named("mnasnet_small"),
    r"shufflenet_?v2" + WIDTH: _shufflenet_v2,
    r"efficientnet_?(?:b|(?P<lite>lite_?))(?P<number>\d)": _efficientnet,
    r"efficientnet_?v2_?b(?P<number>\d)": _efficientnet_v2,
    r"efficientnet_?v2_?(?P<size>[sml])": lambda parts: (f"efficientnet_v2_{parts['size']}", ()),
    r"(?P<se>se_?)?resnet_?(?P<depth>\d+)(?:_?v1(?:[._]5)?)?": _resnet,
    r"resnet_?v2_?(?P<depth>\d+)|resnet_?(?P<number>\d+)_?v2": _resnet_v2,
    r"resnext_?(?P<depth>\d+)_(?P<groups>\d+)x(?P<each>\d+)d?": _resnext,
    r"resnext_?50": _named("resnext50"),
    r"resnext_?101": _named("resnext101"),
    r"wide_?resnet_?50(?:_2)?": _named("wide_resnet50"),
    r"densenet_?(?P<depth>\d+)": lambda parts: ("densenet", (("depth", int(parts["depth"])),)),
    r"vgg_?(?P<depth>\d+)(?P<norm>_bn)?": _vgg,
    r"regnet_?(?P<kind>[xy])_?(?P<number>\d+(?:[._]\d)?)_?(?P<unit>[mg]f)": _regnet,
    r"convnext_?" + SIZE: _convnext,
    r"(?:google_)?(?:vit|deit)_?" + SIZE + r"_?(?:patch_?)?(?P<patch>16|32|14)?": _vit,
    r"dino_?v2_?(?:vit_?)?" + SIZE + r"(?:_?14)?": _dino,
    r"swin_?" + SIZE: lambda parts: (f"swin_{_size(parts)}", ()),
    r"bert_?base(?:_(?:un)?cased)?(?:_google)?": _named("bert"),
    r"distil_?bert(?:_base)?(?:_(?:un)?cased)?": _named("distilbert"),
    r"albert(?:_base)?(?:_v\d)?": _named("albert"),
    r"electra(?:_base)?(?:_discriminator)?": _named("electra"),
    r"mobile_?bert(?:_(?:un)?cased)?": _named("mobilebert"),
    r"bert_?(?P<size>tiny|mini|small|medium|large)(?:_(?:un)?cased)?": _bert,
    r"(?:all_)?minilm_?l_?6(?:_h384)?(?:_v2)?(?:_(?:un)?cased)?": _named(
        "bert_encoder", (("depth", 6), ("features", 384))
    ),
    r"yolo_?v5_?(?P<size>[nsmlx])(?:u)?": _yolov5,
    r"yolo_?v8_?(?P<size>[nsmlx])": _yolov8,
    r"yolo_?v?11_?(?P<size>[nsmlx])": _yolo11,
    r"yolo_?x_?(?P<size>nano|tiny|[smlx])": _yolox,
    r"mobile_?one_?s(?P<number>\d)": _numbered("mobile_one"),
    r"rep_?vgg_?(?P<kind>[ab])(?P<number>\d)": _rep_vgg,
    rf"efficient_?former_?v2_?(?P<size>{'|'.join(FORMERS)})": _ordered(
        "efficientformer_v2", FORMERS
    ),
    rf"edge_?next_?(?P<size>{'|'.join(NEXTS)})": _ordered("edgenext", NEXTS),
    rf"fast_?vit_?(?P<size>{'|'.join(FAST)})": _ordered("fastvit", FAST),
    r"mobile_?vit_?(?P<size>x?xs)": lambda parts: (f"mobilevit_{parts['size']}", ()),
    r"efficient_?former_?(?P<size>l[37])": lambda parts: (f"efficientformer_{parts['size']}", ()),
    r"mobile_?face_?net": _named("mobile_face_net"),
    r"(?:ultra_?face|version)_?(?P<kind>rfb|slim)(?:_320)?": _ultra_face,
    r"(?:pp_?)?lc_?net" + WIDTH: _scaled("lcnet"),
    r"alexnet": _named("alexnet", (("later", True),)),
    r"inception_?v1": _named("googlenet"),
    r"inception_?v2": _named("inception_v2"),
    r"ssd_?lite_?320_mobilenet_v3_large": _named("ssdlite_mobilenet_v3_large"),
    r"ssd_?mobilenet_?v1": _named("mobilenet_ssd"),
    r"yolo_?fastest_?(?:v?1\.?1)": _named("yolo_fastest"),
}
"""What names of a form mean."""
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


def at_224(network: Network) -> Network:
    """The same network, at 224 x 224 if it is a classifier that was published at another size."""
    name, options = network
    if name not in OWN_SIDES:
        return network
    return name, (*(each for each in options if each[0] != "image_size"), *SIDE_224)
