"""Networks of the pytorchcv collection by their names alone.

A name says family and options: ``sepreresnetbc26b`` is a residual network 26 layers deep with
bottlenecks, squeeze and excitation and activations in front; ``_w3d4`` has three quarters of the
channels. Families are the zoo's; what a name means is that of the collection's code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from coexec.base.errors import UsageError
from coexec.cost.calibration.converted import converted_layers, converted_operators
from coexec.cost.calibration.zoo_networks import Options
from coexec.cost.soc.workload import Workload
from coexec.zoo.catalog import CATALOG

WIDTH = r"(?:_w(?P<times>[1-9]\d*)?(?:d(?P<parts>[1-9]\d*))?)?"
"""``_w1``, ``_wd2``, ``_w3d4``."""
SIDE = 224
ALONE = {
    "ghostnet": "ghostnet",
    "peleenet": "peleenet",
    "spnasnet": "spnasnet",
    "fbnet_cb": "fbnet_c",
    "proxylessnas_cpu": "proxyless_cpu",
    "proxylessnas_gpu": "proxyless_gpu",
    "proxylessnas_mobile": "proxyless_mobile",
    "proxylessnas_mobile14": "proxyless_mobile_14",
}
"""Networks without relatives, by the collection's name."""
EFFICIENTNET_SIDES = (224, 240, 260, 300, 380, 456, 528, 600, 672)
"""Height and width of images of EfficientNet-B0 to B8."""


@dataclass(frozen=True)
class Member:
    """A network of the zoo with its options, and how the converter leaves it."""

    network: str
    options: Options = ()
    padded: bool = False
    pooled: bool = False


def member(name: str) -> Member | None:
    """The network that a name means; ``None`` if no family has it."""
    for pattern, meaning in RULES.items():
        match = re.fullmatch(pattern, name)
        if match:
            return meaning(match)
    return None


@cache
def collection_layers(name: str) -> tuple[Workload, ...]:
    """Layers for one image of 224 x 224; none if no family has the name, or not this member."""
    return _converted(name, converted_layers)


@cache
def collection_operators(name: str) -> tuple[Workload, ...]:
    """The same one operator after the other, as CPUs run them."""
    return _converted(name, converted_operators)


def _converted(name: str, convert: Callable[..., tuple[Workload, ...]]) -> tuple[Workload, ...]:
    found = member(name)
    if found is None:
        return ()
    entry = CATALOG[found.network]
    try:
        model = entry.builder(1, entry.classes, **dict(found.options))
    except UsageError:
        return ()  # a size or depth that the family does not come in
    return convert(model, padded=found.padded, pooled=found.pooled)


def _width(match: re.Match[str]) -> tuple[str, float]:
    return "width", int(match["times"] or 1) / int(match["parts"] or 1)


def _residual(match: re.Match[str]) -> Member:
    groups, each = match["groups"], match["each"]
    grouped: Options = (("groups", int(groups)), ("group_width", int(each))) if groups else ()
    bottleneck = bool(match["bottleneck"]) or int(match["depth"]) >= 50
    options: Options = (
        ("depth", int(match["depth"])),
        ("bottleneck", bool(match["bottleneck"])),
        ("early_stride", bottleneck and not match["late"] and not groups),
        ("excited", bool(match["se"])),
        ("preactivated", bool(match["pre"])),
        *grouped,
        _width(match),
    )
    return Member("residual_network", options, padded=bool(match["pre"]))


def _regnet(match: re.Match[str]) -> Member:
    millions = 100 * int(match["size"])
    return Member("regnet", (("millions", millions), ("excited", match["kind"] == "y")))


def _mobilenet(match: re.Match[str]) -> Member:
    options = (_width(match), ("fast", bool(match["fast"])), ("bare", bool(match["bare"])))
    return Member("mobilenet_v1", options)


def _mobilenet_v2(match: re.Match[str]) -> Member:
    options = (_width(match), ("divisor", 1), ("expand_first", not match["shorter"]))
    return Member("mobilenetv2", options, pooled=True)


def _mobilenet_v3(match: re.Match[str]) -> Member:
    options = (_width(match), ("wide_head", True))
    return Member(f"mobilenet_v3_{match['size']}", options, pooled=True)


def _squeezenet(match: re.Match[str]) -> Member:
    network = "squeezenet_v1_0" if match["minor"] == "0" else "squeezenet"
    return Member(network, (("residual", bool(match["residual"])),), padded=True)


def _efficientnet(match: re.Match[str]) -> Member:
    number = int(match["number"])
    side = EFFICIENTNET_SIDES[number] if number < len(EFFICIENTNET_SIDES) else SIDE
    return Member("efficientnet", (("number", number), ("image_size", side)))


def _mnasnet(match: re.Match[str]) -> Member:
    return Member("mnasnet" if match["form"] == "b1" else f"mnasnet_{match['form']}")


def _vgg(match: re.Match[str]) -> Member:
    norm = bool(match["norm"])
    bias = not norm or bool(match["bias"])
    return Member("vgg", (("depth", int(match["depth"])), ("norm", norm), ("bias", bias)))


def _densenet(match: re.Match[str]) -> Member:
    return Member("densenet", (("depth", int(match["depth"])),), padded=True)


def _alexnet(match: re.Match[str]) -> Member:
    return Member("alexnet", (("later", bool(match["later"])),))


def _darknet(match: re.Match[str]) -> Member:
    if match["form"] == "53":
        return Member("darknet53")
    return Member("darknet", (("tiny", match["form"] == "_tiny"),))


def _shufflenet(match: re.Match[str]) -> Member:
    return Member("shufflenet", (("groups", int(match["groups"])), _width(match)))


def _shufflenet_v2(match: re.Match[str]) -> Member:
    return Member("shufflenet_v2_of_width", (_width(match),))


def _squeezenext(match: re.Match[str]) -> Member:
    return Member("squeezenext", (_width(match), ("later", bool(match["later"]))))


def _igcv3(match: re.Match[str]) -> Member:
    return Member("igcv3", (_width(match),))


def _menet(match: re.Match[str]) -> Member:
    sizes = {name: int(match[name]) for name in ("first", "side", "groups")}
    return Member("menet", tuple(sizes.items()))


def _mixnet(match: re.Match[str]) -> Member:
    width = 1.3 if match["form"] == "l" else 1.0
    return Member("mixnet", (("medium", match["form"] != "s"), ("width", width)))


def _hardnet(match: re.Match[str]) -> Member:
    options = ("depth", int(match["depth"])), ("separable", bool(match["separable"]))
    return Member("hardnet", options)


def _senet(match: re.Match[str]) -> Member:
    return Member("senet", (("depth", int(match["depth"])),))


def _dpn(match: re.Match[str]) -> Member:
    options = ("depth", int(match["depth"])), ("apart", bool(match["apart"]))
    return Member("dpn", options, padded=True)


def _alone(match: re.Match[str]) -> Member:
    """A family of one: its name in the zoo."""
    return Member(ALONE[match[0]])


RULES: Mapping[str, Callable[[re.Match[str]], Member | None]] = {
    r"(?P<se>se)?(?P<pre>pre)?resne(?:t|xt)(?P<bottleneck>bc)?(?P<depth>\d+)(?P<late>b)?"
    r"(?:_(?P<groups>\d+)x(?P<each>\d+)d)?" + WIDTH: _residual,
    r"regnet(?P<kind>[xy])(?P<size>\d{3})": _regnet,
    r"(?P<fast>fd)?mobilenet(?P<bare>b)?" + WIDTH: _mobilenet,
    r"mobilenetv2(?P<shorter>b)?" + WIDTH: _mobilenet_v2,
    r"mobilenetv3_(?P<size>large|small)" + WIDTH: _mobilenet_v3,
    r"squeeze(?P<residual>res)?net_v1_(?P<minor>[01])": _squeezenet,
    r"efficientnet_b(?P<number>\d)[bc]?": _efficientnet,
    r"mnasnet_(?P<form>b1|a1|small)": _mnasnet,
    r"(?P<norm>bn_)?vgg(?P<depth>\d+)(?P<bias>b)?": _vgg,
    r"densenet(?P<depth>\d+)": _densenet,
    r"alexnet(?P<later>b)?": _alexnet,
    r"darknet(?P<form>_ref|_tiny|53)": _darknet,
    r"shufflenet_g(?P<groups>\d)" + WIDTH: _shufflenet,
    r"shufflenetv2b?" + WIDTH: _shufflenet_v2,
    r"sqnxt23(?P<later>v5)?" + WIDTH: _squeezenext,
    r"igcv3" + WIDTH: _igcv3,
    r"menet(?P<first>\d+)_(?P<side>\d+)x1_g(?P<groups>\d)": _menet,
    r"mixnet_(?P<form>[sml])": _mixnet,
    r"hardnet(?P<depth>\d+)(?P<separable>ds)?": _hardnet,
    r"senet(?P<depth>\d+)": _senet,
    r"dpn(?P<depth>\d+)(?P<apart>b)?": _dpn,
    "|".join(ALONE): _alone,
}
"""What names of a form mean."""
