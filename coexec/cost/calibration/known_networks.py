"""Layers of networks from their papers, for rows of measurements that only name them.

AlexNet (Krizhevsky, 2014), VGG (Simonyan, Zisserman, 2014), ResNet (He et al., 2015). Normalisation
and activation are fused into convolutions, as engines do; pooling takes no time worth a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coexec.cost.soc.workload import CONV, DENSE, Workload

VGG = {
    "VGG11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "VGG16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "VGG19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
ALEXNET_SIDE = 224
"""The only size of images that its layers are written down for."""
SMALL = 64
"""Images below this side go through a stem of 3 x 3 without stride and pooling."""


@dataclass(frozen=True)
class Residual:
    """A residual network: blocks of each stage; ``expansion`` 1 has two 3 x 3 convolutions."""

    blocks: tuple[int, int, int, int]
    expansion: int = 1


RESIDUAL = {
    "ResNet18": Residual((2, 2, 2, 2)),
    "ResNet34": Residual((3, 4, 6, 3)),
    "ResNet50": Residual((3, 4, 6, 3), 4),
}


def layers_of(network: str, side: int, batch: int = 1) -> tuple[Workload, ...]:
    """Layers of a network for images of ``side`` x ``side``; none if it is unknown."""
    if network == "AlexNet" and side == ALEXNET_SIDE:
        return tuple(_alexnet(batch))
    if network in VGG:
        return tuple(_vgg(VGG[network], side, batch))
    if network in RESIDUAL:
        return tuple(_residual(RESIDUAL[network], side, batch))
    return ()


def _alexnet(batch: int) -> Iterator[Workload]:
    for layer in ((55, 3, 64, 11), (27, 64, 192, 5), (13, 192, 384, 3), (13, 384, 256, 3)):
        yield convolution(batch, *layer)
    yield convolution(batch, 13, 256, 256, 3)
    for inputs, outputs in ((9216, 4096), (4096, 4096), (4096, 1000)):
        yield dense(batch, inputs, outputs)


def _vgg(plan: str, side: int, batch: int) -> Iterator[Workload]:
    channels, small = 3, side < SMALL
    for item in plan.split():
        if item == "M":
            side //= 2
            continue
        yield convolution(batch, side, channels, int(item), 3)
        channels = int(item)
    if small:
        yield dense(batch, channels * side * side, 10)
        return
    for inputs, outputs in ((channels * side * side, 4096), (4096, 4096), (4096, 1000)):
        yield dense(batch, inputs, outputs)


def _residual(network: Residual, side: int, batch: int) -> Iterator[Workload]:
    small = side < SMALL
    side = side if small else side // 2
    yield convolution(batch, side, 3, 64, 3 if small else 7)
    side = side if small else side // 2
    channels = 64
    for stage, count in enumerate(network.blocks):
        for block in range(count):
            outputs = (64 << stage) * network.expansion
            before = side
            if block == 0 and stage > 0:
                side //= 2
            if block == 0 and channels != outputs:
                yield convolution(batch, side, channels, outputs, 1)
            yield from _block(network, stage, (before, side), channels, batch)
            channels = outputs
    yield dense(batch, channels, 10 if small else 1000)


def _block(
    network: Residual, stage: int, sides: tuple[int, int], channels: int, batch: int
) -> Iterator[Workload]:
    """``sides`` before and after: the 3 x 3 convolution has the stride."""
    width, (before, side) = 64 << stage, sides
    if network.expansion == 1:
        yield convolution(batch, side, channels, width, 3)
        yield convolution(batch, side, width, width, 3)
        return
    yield convolution(batch, before, channels, width, 1)
    yield convolution(batch, side, width, width, 3)
    yield convolution(batch, side, width, width * network.expansion, 1)


def convolution(batch: int, side: int, inputs: int, outputs: int, kernel: int) -> Workload:
    """A convolution whose output is ``side`` x ``side``; its input counts as of the same size."""
    pixels = batch * side * side
    return Workload(
        family=CONV,
        flop=2.0 * pixels * inputs * outputs * kernel**2,
        in_elements=pixels * inputs,
        out_elements=pixels * outputs,
        weights=kernel**2 * inputs * outputs,
        out_pixels=pixels,
        in_channels=inputs,
        out_channels=outputs,
        kernel=kernel,
    )


def dense(batch: int, inputs: int, outputs: int) -> Workload:
    """A product of matrices: many rows count as pixels of a convolution."""
    return Workload(
        family=DENSE if batch == 1 else CONV,
        flop=2.0 * batch * inputs * outputs,
        in_elements=batch * inputs,
        out_elements=batch * outputs,
        weights=inputs * outputs,
        out_pixels=batch,
        in_channels=inputs,
        out_channels=outputs,
    )
