"""Names of classifiers that convolve: MobileNet to RegNet, ResNet, VGG and EfficientNet."""

from __future__ import annotations

from coexec.cost.calibration.collection import EFFICIENTNET_SIDES
from coexec.cost.calibration.name_parts import (
    SIZE,
    WIDTH,
    Network,
    Parts,
    Rules,
    named,
    numbered,
    scaled,
    size_of,
    width_of,
)
from coexec.cost.calibration.zoo_networks import Options

LITE_SIDES, V2_SIDES = (224, 240, 260, 280, 300), (224, 240, 260, 300)
"""Height and width of images of EfficientNet-Lite and EfficientNetV2 by their numbers."""
CONVNEXTS = {"tiny": (96, 9), "small": (96, 27), "base": (128, 27), "large": (192, 27)}
"""First channels, and blocks of the third stage."""


def _mobilenet_v3(parts: Parts) -> Network:
    plain: Options = (("minimalistic", True),) if parts["plain"] else ()
    return f"mobilenet_v3_{parts['size']}", (*width_of(parts), *plain)


def _shufflenet_v2(parts: Parts) -> Network:
    width = width_of(parts)
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


def _regnet_of_hundreds(parts: Parts) -> Network:
    kind: Options = (("excited", True),) if parts["kind"] == "y" else ()
    return "regnet", (("millions", 100 * int(parts["number"])), *kind, ("halves_up", True))


def _convnext(parts: Parts) -> Network:
    width, depth = CONVNEXTS[size_of(parts)]
    return "convnext", (("width", width), ("depth", depth))


def _rep_vgg(parts: Parts) -> Network:
    deep: Options = (("deep", True),) if parts["kind"] == "b" else ()
    return "rep_vgg", (("number", int(parts["number"])), *deep)


CONVOLUTIONAL: Rules = {
    r"mobilenet(?:_?v1)?" + WIDTH: scaled("mobilenet_v1"),
    r"mobilenet_?v2" + WIDTH: scaled("mobilenetv2"),
    r"mobilenet_?v3_?(?P<size>large|small)(?P<plain>_minimalistic)?" + WIDTH: _mobilenet_v3,
    r"mobilenet_?v4(?:_conv)?_?(?:small|s)": named("mobilenet_v4_small"),
    r"mobilenet_?v4(?:_conv)?_?(?:medium|m)": named("mobilenet_v4_medium"),
    r"mobilenet_?edge_?tpu(?:_1.0)?": named("mobilenet_edgetpu"),
    r"mnasnet(?:_?b1)?" + WIDTH: scaled("mnasnet"),
    r"mnasnet_?a1": named("mnasnet_a1"),
    r"mnasnet_?small": named("mnasnet_small"),
    r"shufflenet_?v2" + WIDTH: _shufflenet_v2,
    r"efficientnet_?(?:b|(?P<lite>lite_?))(?P<number>\d)": _efficientnet,
    r"efficientnet_?v2_?b(?P<number>\d)": _efficientnet_v2,
    r"efficientnet_?v2_?(?P<size>[sml])": lambda parts: (f"efficientnet_v2_{parts['size']}", ()),
    r"(?P<se>se_?)?resnet_?(?P<depth>\d+)(?:_?v1(?:[._]5)?)?": _resnet,
    r"resnet_?v2_?(?P<depth>\d+)|resnet_?(?P<number>\d+)_?v2": _resnet_v2,
    r"resnext_?(?P<depth>\d+)_(?P<groups>\d+)x(?P<each>\d+)d?": _resnext,
    r"resnext_?50": named("resnext50"),
    r"resnext_?101": named("resnext101"),
    r"wide_?resnet_?50(?:_2)?": named("wide_resnet50"),
    r"densenet_?(?P<depth>\d+)": lambda parts: ("densenet", (("depth", int(parts["depth"])),)),
    r"vgg_?(?P<depth>\d+)(?P<norm>_bn)?": _vgg,
    r"regnet_?(?P<kind>[xy])_?(?P<number>\d+(?:[._]\d)?)_?(?P<unit>[mg]f)": _regnet,
    r"regnet_?(?P<kind>[xy])_(?P<number>\d{3})": _regnet_of_hundreds,
    r"convnext_?" + SIZE: _convnext,
    r"mobile_?one_?s(?P<number>\d)": numbered("mobile_one"),
    r"rep_?vgg_?(?P<kind>[ab])(?P<number>\d)": _rep_vgg,
    r"(?:pp_?)?lc_?net" + WIDTH: scaled("lcnet"),
    r"squeezenet_?1[._]0": named("squeezenet_v1_0"),
    r"squeezenet_?1[._]1": named("squeezenet"),
    r"alexnet": named("alexnet", (("later", True),)),
    r"inception_?v1": named("googlenet"),
    r"inception_?v2": named("inception_v2"),
}
