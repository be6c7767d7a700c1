"""Layers of networks made for phones, from their papers.

GoogLeNet (Szegedy et al., 2014), ShuffleNet V2 (Ma et al., 2018), MnasNet-B1 (Tan et al., 2018),
EfficientNet (Tan, Le, 2019). As in :mod:`coexec.cost.calibration.known_networks`, normalisation and
activation are part of convolutions, and pooling between them takes no time worth a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from coexec.cost.calibration.known_networks import convolution, dense
from coexec.cost.soc.workload import DEPTHWISE, ELEMENTWISE, MOVE, REDUCE, Workload

GOOGLENET = (
    (28, 192, 64, 96, 128, 16, 32, 32),
    (28, 256, 128, 128, 192, 32, 96, 64),
    (14, 480, 192, 96, 208, 16, 48, 64),
    (14, 512, 160, 112, 224, 24, 64, 64),
    (14, 512, 128, 128, 256, 24, 64, 64),
    (14, 512, 112, 144, 288, 32, 64, 64),
    (14, 528, 256, 160, 320, 32, 128, 128),
    (7, 832, 256, 160, 320, 32, 128, 128),
    (7, 832, 384, 192, 384, 48, 128, 128),
)
"""Modules: side, inputs, 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, 1x1 behind the pool."""
SHUFFLENET_V2 = ((4, 116), (8, 232), (4, 464))
"""Stages at full width: units, outputs."""
MNASNET_B1 = (
    (1, 1, 16, 1, 3),
    (3, 3, 24, 2, 3),
    (3, 3, 40, 2, 5),
    (3, 6, 80, 2, 5),
    (2, 6, 96, 1, 3),
    (4, 6, 192, 2, 5),
    (1, 6, 320, 1, 3),
)
EFFICIENTNET_B0 = (
    (1, 1, 16, 1, 3),
    (2, 6, 24, 2, 3),
    (2, 6, 40, 2, 5),
    (3, 6, 80, 2, 3),
    (3, 6, 112, 1, 5),
    (4, 6, 192, 2, 5),
    (1, 6, 320, 1, 3),
)
"""Stages: blocks, expansion, outputs, stride of the first, kernel."""
EXCITED = 4
"""EfficientNet's squeeze-and-excitation: a quarter of a block's inputs."""
STEM, HEAD, CLASSES = 32, 1280, 1000


def googlenet() -> tuple[Workload, ...]:
    """For one image of 224 x 224."""
    return tuple(_googlenet())


def shufflenet_v2() -> tuple[Workload, ...]:
    """At full width, for one image of 224 x 224."""
    return tuple(_shufflenet())


def mnasnet() -> tuple[Workload, ...]:
    """MnasNet-B1, without squeeze and excitation, for one image of 224 x 224."""
    return tuple(_inverted_residuals(MNASNET_B1, excited=False))


def efficientnet_b0() -> tuple[Workload, ...]:
    """For one image of 224 x 224. Larger ones are in use at several sizes of images."""
    return tuple(_inverted_residuals(EFFICIENTNET_B0, excited=True))


MOBILE: dict[str, Callable[[], tuple[Workload, ...]]] = {
    "GoogLeNet": googlenet,
    "ShuffleNetV2": shufflenet_v2,
    "MnasNet": mnasnet,
    "EfficientNetB0": efficientnet_b0,
}
"""Networks by name, each at the size of its paper."""


def _googlenet() -> Iterator[Workload]:
    yield _strided(convolution(1, 112, 3, 64, 7))
    yield convolution(1, 56, 64, 64, 1)
    yield convolution(1, 56, 64, 192, 3)
    for side, inputs, one, three_in, three, five_in, five, pooled in GOOGLENET:
        for outputs in (one, three_in, five_in, pooled):
            yield convolution(1, side, inputs, outputs, 1)
        yield convolution(1, side, three_in, three, 3)
        yield convolution(1, side, five_in, five, 5)
    yield dense(1, 1024, CLASSES)


def _shufflenet() -> Iterator[Workload]:
    yield _strided(convolution(1, 112, 3, 24, 3))
    side, inputs = 56, 24
    for units, outputs in SHUFFLENET_V2:
        half = outputs // 2
        side //= 2
        yield depthwise(side, inputs, 3, 2)
        yield convolution(1, side, inputs, half, 1)
        yield convolution(1, 2 * side, inputs, half, 1)
        yield depthwise(side, half, 3, 2)
        yield convolution(1, side, half, half, 1)
        yield _moved(MOVE, side, outputs, outputs)
        for _ in range(units - 1):
            yield convolution(1, side, half, half, 1)
            yield depthwise(side, half, 3)
            yield convolution(1, side, half, half, 1)
            yield _moved(MOVE, side, outputs, outputs)  # joined
            yield _moved(MOVE, side, outputs, outputs)  # shuffled
        inputs = outputs
    yield convolution(1, side, inputs, 1024, 1)
    yield dense(1, 1024, CLASSES)


def _inverted_residuals(
    stages: tuple[tuple[int, int, int, int, int], ...], *, excited: bool
) -> Iterator[Workload]:
    side, inputs = 112, STEM
    yield _strided(convolution(1, side, 3, STEM, 3))
    for count, expansion, outputs, first, kernel in stages:
        for block in range(count):
            stride = first if block == 0 else 1
            wide = inputs * expansion
            if expansion > 1:
                yield convolution(1, side, inputs, wide, 1)
            side //= stride
            yield depthwise(side, wide, kernel, stride)
            if excited:
                squeezed = max(inputs // EXCITED, 1)
                yield _moved(REDUCE, side, wide, wide / side**2)
                yield dense(1, wide, squeezed)
                yield dense(1, squeezed, wide)
                yield _moved(ELEMENTWISE, side, wide, wide)
            yield convolution(1, side, wide, outputs, 1)
            inputs = outputs
    yield convolution(1, side, inputs, HEAD, 1)
    yield dense(1, HEAD, CLASSES)


def depthwise(side: int, channels: int, kernel: int, stride: int = 1) -> Workload:
    """A depthwise convolution of one image whose output is ``side`` x ``side``."""
    pixels = side * side
    return Workload(
        family=DEPTHWISE,
        flop=2.0 * pixels * channels * kernel**2,
        in_elements=pixels * stride**2 * channels,
        out_elements=pixels * channels,
        weights=kernel**2 * channels,
        out_pixels=pixels,
        in_channels=channels,
        out_channels=channels,
        kernel=kernel,
        stride=stride,
        groups=channels,
    )


def _moved(family: str, side: int, inputs: float, outputs: float) -> Workload:
    """What reads and writes channels of ``side`` x ``side`` and computes next to nothing."""
    pixels = side * side
    return Workload(
        family=family,
        flop=0.0,
        in_elements=pixels * inputs,
        out_elements=pixels * outputs,
        out_pixels=max(pixels * outputs / inputs, 1.0),
        in_channels=inputs,
        out_channels=inputs,
    )


def _strided(work: Workload) -> Workload:
    """A convolution with stride 2: its input has four times as many positions."""
    return replace(work, stride=2.0, in_elements=4 * work.in_elements)
