"""Small networks of what the zoo's networks that GPUs are tried with lack."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from coexec.zoo.builder import Net, dropout, linear, relu
from coexec.zoo.layers import Layers
from tests.graphs import parse

FEATURES, HEADS, SIZE = 128, 4, 32
"""Of a decoder: as gpt_tiny has them."""


def forgetful(batch: int) -> ir.Model:
    """(N, 256) -> (N, 10), with dropout in between."""
    net = Net("forgetful", (batch, 256), seed=0)
    wide = dropout(net, relu(net, linear(net, net.x, "wide", (256, 4096)), "relu"), "drop", 0.5)
    return net.finish(linear(net, wide, "narrow", (4096, 10)), 10)


def upsampling(batch: int) -> ir.Model:
    """(N, 3, 32, 32) -> (N, 4, 64, 64): down, up linearly, joined, and up by nearest neighbours."""
    layers = Layers("upsampling", batch, (3, 32, 32), 0)
    x = layers.conv(layers.x, 16, 3)
    low = layers.conv(layers.max_pool(x, 2, 2), 16, 3)
    joined = layers.conv(layers.concat(x, layers.resize(low, 2, linear=True)), 8, 3)
    return layers.finish(layers.conv(layers.resize(joined, 2), 4, 3))


def decoder(past: int) -> onnx.ModelProto:
    """A token's attention to a cache of ``past`` ones, as a decoding step has it."""
    cached, grown = f"float[1,{HEADS},{past},{SIZE}]", f"float[1,{HEADS},{past + 1},{SIZE}]"
    inputs = f"float[1,1,{FEATURES}] x, {cached} pk, {cached} pv, float[{FEATURES},384] w"
    of_heads = "".join(
        f"""{name}s = Reshape({name}t, heads)
        {name} = Transpose <perm = [0, 2, 1, 3]> ({name}s)
        """
        for name in "qkv"
    )
    return parse(
        f"""decode ({inputs}) => (float[1,1,{FEATURES}] y, {grown} key, {grown} value)
        <int64[4] heads = {{1, 1, {HEADS}, {SIZE}}}, int64[3] flat = {{1, 1, {FEATURES}}}> {{
        all = MatMul(x, w)
        qt, kt, vt = Split <axis = 2, num_outputs = 3> (all)
        {of_heads}
        key = Concat <axis = 2> (pk, k)
        value = Concat <axis = 2> (pv, v)
        found = Attention(q, key, value)
        turned = Transpose <perm = [0, 2, 1, 3]> (found)
        y = Reshape(turned, flat)
        }}""",
        opset=23,
    )
