"""Dual path networks: blocks that add to some channels and append others.

Source: Chen et al., "Dual path networks", 2017. Sizes as in the pytorchcv collection.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import NONE, RELU, Layers, Map


@dataclass(frozen=True)
class Form:
    """Blocks of each stage and channels that each of them appends; sizes of the first stage.

    ``stem``: channels and kernel of the first convolution; ``added``: channels that are added to,
    ``inside``: those of the grouped convolutions.
    """

    blocks: tuple[int, int, int, int]
    appended: tuple[int, int, int, int]
    stem: tuple[int, int]
    added: int
    inside: int
    groups: int


FORMS = {
    68: Form((3, 4, 12, 3), (16, 32, 32, 64), (10, 3), 64, 128, 32),
    98: Form((3, 6, 20, 3), (16, 32, 32, 128), (96, 7), 256, 160, 40),
    107: Form((4, 8, 20, 3), (20, 64, 64, 128), (128, 7), 256, 200, 50),
    131: Form((4, 8, 28, 3), (16, 32, 32, 128), (128, 7), 256, 160, 40),
}
"""By depth."""


def dpn(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    depth: int = 68,
    apart: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes).

    ``apart``: what is added and what is appended come from two convolutions, as in DPN-68b.

    Raises:
        UsageError: a depth that no network of the family has.
    """
    require(depth in FORMS, f"DPN is {', '.join(map(str, FORMS))} deep, not {depth}")
    form = FORMS[depth]
    layers = Layers("dpn", batch, (3, image_size, image_size), seed)
    x = layers.max_pool(layers.conv(layers.x, *form.stem, stride=2), 3, 2, 1)
    for stage, (count, appended) in enumerate(zip(form.blocks, form.appended, strict=True)):
        block = _Block(
            form.added << stage,
            appended,
            form.inside << stage,
            form.groups,
            2 if stage else 1,
            apart,
        )
        sums, rest = _first(layers, x, block)
        for _ in range(count - 1):
            added, more = _paths(layers, layers.concat(sums, rest), block, stride=1)
            sums, rest = layers.add(sums, added), layers.concat(rest, more)
        x = layers.concat(sums, rest)
    return layers.logits(_activated(layers, x), classes)


@dataclass(frozen=True)
class _Block:
    """What blocks of a stage have in common; the first has the ``stride``."""

    added: int
    appended: int
    inside: int
    groups: int
    stride: int
    apart: bool


def _first(layers: Layers, x: Map, block: _Block) -> tuple[Map, Map]:
    """What is added to from here on, and what is appended to: projections and a block's own."""
    out = block.added + 2 * block.appended
    ready = _activated(layers, x)
    kept = layers.conv(ready, out, stride=block.stride, pad=0, norm=False, bias=False, act=NONE)
    sums, rest = layers.split(kept, block.added, 2 * block.appended)
    added, more = _paths(layers, x, block, stride=block.stride)
    return layers.add(sums, added), layers.concat(rest, more)


def _paths(layers: Layers, x: Map, block: _Block, *, stride: int) -> tuple[Map, Map]:
    """What a block adds and what it appends; norm and activation come first."""
    h = layers.conv(_activated(layers, x), block.inside)
    h = layers.conv(h, block.inside, 3, stride=stride, groups=block.groups)
    sizes = block.added, block.appended
    if block.apart:
        added, appended = (layers.conv(h, n, norm=False, bias=False, act=NONE) for n in sizes)
    else:
        both = layers.conv(h, sum(sizes), norm=False, bias=False, act=NONE)
        added, appended = layers.split(both, *sizes)
    return added, appended


def _activated(layers: Layers, x: Map) -> Map:
    return layers.activate(layers.norm(x), RELU)
