"""WavLM, base plus: a transformer on convolved sound, whose distances count by what is heard.

Source: Chen et al., "WavLM: Large-scale self-supervised pre-training for full stack speech
processing", 2022, with letters as its result, as Hugging Face has it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from coexec.zoo.attention import Form, mix, perceptron
from coexec.zoo.builder import Net, conv
from coexec.zoo.transformer import Width, layer_norm, project

CONVOLVED, FEATURES, HEADS, HIDDEN, DEPTH = 512, 768, 12, 3072, 12
KERNELS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""Kernel and stride of each convolution of the sound."""
NEAR, GROUPS, DISTANCES, FARTHEST = 128, 16, 320, 800
"""Kernel and groups of the convolution for places; distances told apart, and the largest."""


def wavlm_base_plus(
    batch: int | None = None,
    classes: int = 31,
    *,
    samples: int = 160_000,
    depth: int = DEPTH,
    seed: int = 0,
) -> ir.Model:
    """Sound at 16 kHz (N, 1, samples) -> scores of letters (N, tokens, classes)."""
    net = Net("wavlm_base_plus", (batch, 1, samples), seed=seed)
    x, tokens, channels = net.x, samples, 1
    for place, (kernel, stride) in enumerate(KERNELS):
        x = conv(
            net, x, f"conv.{place}", (channels, CONVOLVED), (kernel,), stride=stride, bias=False
        )
        tokens, channels = (tokens - kernel) // stride + 1, CONVOLVED
        if place == 0:
            parts = [
                net.filled(f"sound.norm.{part}", (CONVOLVED,), 1.0) for part in ("scale", "bias")
            ]
            x = net.op("InstanceNormalization", "sound.norm", [x, *parts], {"epsilon": 1e-5})
        x = net.op("Gelu", f"conv.{place}.gelu", [x])
    x = net.op("Transpose", "tokens", [x], {"perm": (0, 2, 1)})
    x = layer_norm(net, x, "tokens.norm", CONVOLVED)
    x = project(net, x, "tokens.features", (CONVOLVED, FEATURES))
    x = net.op("Add", "placed", [x, _near(net, x, tokens)])
    x = layer_norm(net, x, "placed.norm", FEATURES)
    width = Width(tokens, FEATURES, HEADS)
    table = net.normal("distances", (HEADS, DISTANCES), 0.02)
    index = net.constant("distances.index", _buckets(tokens), "int64")
    apart = net.op("Gather", "apart", [table, index], {"axis": 1})
    for block in range(depth):
        x = _block(net, x, apart, f"blocks.{block}", width)
    return net.finish(project(net, x, "letters", (FEATURES, classes)), tokens, classes)


def _near(net: Net, x: ir.Value, tokens: int) -> ir.Value:
    """What stands near a token, convolved in groups."""
    h = net.op("Transpose", "near.first", [x], {"perm": (0, 2, 1)})
    h = conv(net, h, "near", (FEATURES, FEATURES), (NEAR,), pad=NEAR // 2, groups=GROUPS)
    bounds = [
        net.constant(f"near.{end}", (value,), "int64")
        for end, value in (("start", 0), ("end", tokens), ("axis", 2))
    ]
    h = net.op("Gelu", "near.gelu", [net.op("Slice", "near.kept", [h, *bounds])])
    return net.op("Transpose", "near.last", [h], {"perm": (0, 2, 1)})


def _block(net: Net, x: ir.Value, apart: ir.Value, name: str, width: Width) -> ir.Value:
    square = (FEATURES, FEATURES)
    bias = net.op("Mul", f"{name}.bias", [_gate(net, x, f"{name}.gate", width), apart])
    q, k, v = (project(net, x, f"{name}.{part}", square) for part in "qkv")
    h = mix(net, (q, k, v), width.tokens, f"{name}.self", width, bias)
    x = layer_norm(net, net.op("Add", f"{name}.add1", [x, h]), f"{name}.norm1", FEATURES)
    h = perceptron(net, x, f"{name}.mlp", Form(width, HIDDEN))
    return layer_norm(net, net.op("Add", f"{name}.add2", [x, h]), f"{name}.norm2", FEATURES)


def _gate(net: Net, x: ir.Value, name: str, width: Width) -> ir.Value:
    """How much distances count for each token and head: (N, heads, tokens, 1)."""
    each = FEATURES // HEADS
    shape = net.constant(f"{name}.shape", (-1, width.tokens, HEADS, each), "int64")
    h = net.op("Reshape", f"{name}.heads", [x, shape])
    h = net.op("Transpose", f"{name}.order", [h], {"perm": (0, 2, 1, 3)})
    h = project(net, h, f"{name}.parts", (each, 8))
    shape = net.constant(f"{name}.fours", (-1, HEADS, width.tokens, 2, 4), "int64")
    h = net.op("Reshape", f"{name}.four", [h, shape])
    axes = net.constant(f"{name}.axes", (-1,), "int64")
    h = net.op("ReduceSum", f"{name}.sum", [h, axes], {"keepdims": 0})
    sizes = net.constant(f"{name}.sizes", (1, 1), "int64")
    h = net.op("Sigmoid", f"{name}.sigmoid", [h])
    a, b = net.ops("Split", f"{name}.split", [h, sizes], {"axis": -1}, outputs=2)
    b = net.op("Mul", f"{name}.inner", [b, net.filled(f"{name}.weight", (1, HEADS, 1, 1), 1.0)])
    b = net.op("Sub", f"{name}.less", [b, net.constant(f"{name}.one", 1.0, "float32")])
    a = net.op("Mul", f"{name}.outer", [a, b])
    return net.op("Add", name, [a, net.constant(f"{name}.two", 2.0, "float32")])


def _buckets(tokens: int) -> NDArray[np.int64]:
    """The number of each pair's distance: near ones apart, far ones by their logarithm."""
    half, exact = DISTANCES // 2, DISTANCES // 4
    away = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    far = np.log(np.maximum(np.abs(away), 1) / exact) / np.log(FARTHEST / exact)
    far = np.minimum(exact + (far * (half - exact)).astype(np.int64), half - 1)
    near = np.where(np.abs(away) < exact, np.abs(away), far)
    return np.asarray(near + half * (away > 0), np.int64)
