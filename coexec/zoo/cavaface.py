"""IR-SE networks: features of a face by residual blocks that keep their size for long.

Sources: Deng et al., "ArcFace: Additive angular margin loss for deep face recognition", 2019, with
the excitation of Hu et al., "Squeeze-and-excitation networks", 2018, in the form of cavaface.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, PRELU, Layers, Map

BLOCKS = ((64, 3), (128, 13), (256, 30), (512, 3))
"""Channels and blocks of each stage, for a depth of 100."""
REDUCTION = 16


def ir_se_100(
    batch: int | None = None, classes: int = 512, *, image_size: int = 112, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> features of length one (N, classes)."""
    layers = Layers("ir_se_100", batch, (3, image_size, image_size), seed, PRELU)
    net, x = layers.net, layers.conv(layers.x, 64, 3)
    for out, count in BLOCKS:
        for place in range(count):
            x = _block(layers, x, out, 2 if place == 0 else 1)
    x = layers.norm(x)
    flat = net.op("Flatten", "flatten", [x.value], {"axis": 1})
    features = layers.dense(flat, (x.channels * x.height * x.width, classes))
    return net.finish(net.op("LpNormalization", "unit", [features], {"axis": 1, "p": 2}), classes)


def _block(layers: Layers, x: Map, out: int, stride: int) -> Map:
    """Normalisation, two 3 x 3 convolutions, the second with the stride, and excitation."""
    h = layers.conv(layers.norm(x), out, 3)
    h = layers.conv(h, out, 3, stride=stride, act=NONE)
    gate = layers.conv(layers.squeeze(h), out // REDUCTION, norm=False, bias=False, act="relu")
    gate = layers.conv(gate, out, norm=False, bias=False, act="sigmoid")
    h = layers.multiply(h, gate)
    if x.channels != out:
        x = layers.conv(x, out, stride=stride, pad=0, act=NONE)
    elif stride != 1:
        x = layers.max_pool(x, 1, stride)
    return layers.add(h, x)
