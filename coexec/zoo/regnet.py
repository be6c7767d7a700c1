"""RegNet by its rule: a line over blocks, rounded to few widths, says how wide each block is.

Source: Radosavovic et al., "Designing network design spaces", 2020, section 3.3 and the appendix,
whose sizes torchvision and the pytorchcv collection have too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import log

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import NONE, Layers, Map, divisible

STEM, EIGHT = 32, 8


@dataclass(frozen=True)
class Line:
    """Widths grow by ``slope`` from ``start``, in steps of ``ratio``, over ``depth`` blocks.

    They are multiples of ``group``; halves go up with ``halves_up``, else to the even multiple.
    """

    slope: float
    start: int
    ratio: float
    depth: int
    group: int
    halves_up: bool = False

    def stages(self) -> list[tuple[int, int]]:
        """Channels and blocks of each stage."""
        widths: Counter[int] = Counter()
        for place in range(self.depth):
            steps = round(log(1 + place * self.slope / self.start) / log(self.ratio))
            width = round(self.start * self.ratio**steps / EIGHT) * EIGHT
            group = min(self.group, width)
            widths[divisible(width, group) if self.halves_up else round(width / group) * group] += 1
        return list(widths.items())


X = {
    200: Line(36.44, 24, 2.49, 13, 8),
    400: Line(24.48, 24, 2.54, 22, 16),
    600: Line(36.97, 48, 2.24, 16, 24),
    800: Line(35.73, 56, 2.28, 16, 16),
    1600: Line(34.01, 80, 2.25, 18, 24),
    3200: Line(26.31, 88, 2.25, 25, 48),
    4000: Line(38.65, 96, 2.43, 23, 40),
    6400: Line(60.83, 184, 2.07, 17, 56),
    8000: Line(49.56, 80, 2.88, 23, 120),
    12000: Line(73.36, 168, 2.37, 19, 112),
    16000: Line(55.59, 216, 2.1, 22, 128),
    32000: Line(69.86, 320, 2.0, 23, 168),
}
Y = {
    200: Line(36.44, 24, 2.49, 13, 8),
    400: Line(27.89, 48, 2.09, 16, 8),
    600: Line(32.54, 48, 2.32, 15, 16),
    800: Line(38.84, 56, 2.4, 14, 16),
    1600: Line(20.71, 48, 2.65, 27, 24),
    3200: Line(42.63, 80, 2.66, 21, 24),
    4000: Line(31.41, 96, 2.24, 22, 64),
    6400: Line(33.22, 112, 2.27, 25, 72),
    8000: Line(76.82, 192, 2.19, 17, 56),
    12000: Line(73.36, 168, 2.37, 19, 112),
    16000: Line(106.23, 200, 2.48, 18, 112),
    32000: Line(115.89, 232, 2.53, 20, 232),
}
"""Lines by millions of multiply-adds; Y has squeeze and excitation in every block."""


def regnet_y_400mf(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return regnet(batch, classes, image_size=image_size, millions=400, excited=True, seed=seed)


def regnet_y_800mf(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """torchvision's, with wider stages than the paper's: (N, 3, size, size) -> (N, classes)."""
    return regnet(
        batch,
        classes,
        image_size=image_size,
        millions=800,
        excited=True,
        halves_up=True,
        seed=seed,
    )


def regnet_x_3_2gf(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return regnet(batch, classes, image_size=image_size, millions=3200, seed=seed)


def regnet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    millions: int = 200,
    excited: bool = False,
    halves_up: bool = False,
    seed: int = 0,
) -> ir.Model:
    """RegNetX, ``excited``: RegNetY, of ``millions`` of multiply-adds.

    (N, 3, size, size) -> (N, classes). With ``halves_up`` some stages are wider than the paper's,
    as in torchvision.

    Raises:
        UsageError: no network of this size was published.
    """
    lines = Y if excited else X
    known = ", ".join(map(str, lines))
    require(millions in lines, f"RegNets have {known} million multiply-adds, not {millions}")
    layers = Layers("regnet", batch, (3, image_size, image_size), seed)
    line = replace(lines[millions], halves_up=halves_up)
    return _network(layers, line, classes, excited=excited)


def _network(layers: Layers, line: Line, classes: int, *, excited: bool) -> ir.Model:
    x = layers.conv(layers.x, STEM, 3, stride=2)
    for width, blocks in line.stages():
        for block in range(blocks):
            stride = 2 if block == 0 else 1
            x = _block(layers, x, width, stride, min(line.group, width), excited=excited)
    return layers.logits(x, classes)


def _block(layers: Layers, x: Map, width: int, stride: int, group: int, *, excited: bool) -> Map:
    h = layers.conv(x, width)
    h = layers.conv(h, width, 3, stride=stride, groups=width // group)
    if excited:
        h = layers.excite(h, round(x.channels / 4))
    h = layers.conv(h, width, act=NONE)
    if stride != 1 or x.channels != width:
        x = layers.conv(x, width, stride=stride, pad=0, act=NONE)
    return layers.activate(layers.add(h, x), layers.act)
