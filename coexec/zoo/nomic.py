"""Nomic Embed, which makes texts comparable: BERT's size, places as turns, gated perceptrons.

Source: Nussbaum et al., "Nomic Embed: Training a reproducible long context text embedder", 2024.
Places are turned into queries and keys (Su et al., "RoFormer", 2021), products have no bias.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.zoo.builder import Net
from coexec.zoo.transformer import Width, layer_norm

VOCABULARY, FEATURES, HEADS, HIDDEN, DEPTH = 30_528, 768, 12, 3072, 12
EACH = FEATURES // HEADS


def nomic_embed(
    batch: int | None = None,
    classes: int = 512,
    *,
    tokens: int = 128,
    depth: int = DEPTH,
    seed: int = 0,
) -> ir.Model:
    """Token ids (N, tokens) -> the first features of a text (N, classes)."""
    net = Net("nomic_embed", (batch, tokens), seed=seed, dtype=ir.DataType.INT64)
    table = net.normal("words", (VOCABULARY, FEATURES), 0.02)
    x = net.op("Gather", "embedding", [table, net.x], {"axis": 0})
    x = net.op("Add", "embedding.kind", [x, net.normal("kind", (1, 1, FEATURES), 0.02)])
    x = layer_norm(net, x, "embedding.norm", FEATURES)
    for block in range(depth):
        x = _block(net, x, f"blocks.{block}", Width(tokens, FEATURES, HEADS))
    axes = net.constant("pool.axes", (1,), "int64")
    x = net.op("ReduceMean", "pool", [x, axes], {"keepdims": 0})
    sizes = net.constant("first.sizes", (classes, FEATURES - classes), "int64")
    first, _ = net.ops("Split", "first", [x, sizes], {"axis": 1}, outputs=2)
    length = net.op("ReduceL2", "length", [first, axes], {"keepdims": 1})
    return net.finish(net.op("Div", "unit", [first, length]), classes)


def _block(net: Net, x: ir.Value, name: str, width: Width) -> ir.Value:
    parts = [_product(net, x, f"{name}.{part}", (FEATURES, FEATURES)) for part in "qkv"]
    shape = net.constant(f"{name}.heads", (-1, width.tokens, HEADS, EACH), "int64")
    parts = [
        net.op("Reshape", f"{name}.{p}.heads", [v, shape])
        for p, v in zip("qkv", parts, strict=True)
    ]
    q, k = (
        _turned(net, v, f"{name}.{p}", width.tokens) for p, v in zip("qk", parts[:2], strict=True)
    )
    q = net.op("Transpose", f"{name}.q.order", [q], {"perm": (0, 2, 1, 3)})
    k = net.op("Transpose", f"{name}.k.order", [k], {"perm": (0, 2, 3, 1)})
    v = net.op("Transpose", f"{name}.v.order", [parts[2]], {"perm": (0, 2, 1, 3)})
    scale = net.constant(f"{name}.scale.value", EACH**-0.5, "float32")
    scores = net.op("Mul", f"{name}.scale", [net.op("MatMul", f"{name}.scores", [q, k]), scale])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    mixed = net.op("MatMul", f"{name}.mix", [weights, v])
    mixed = net.op("Transpose", f"{name}.mix.order", [mixed], {"perm": (0, 2, 1, 3)})
    flat = net.constant(f"{name}.flat.shape", (-1, width.tokens, FEATURES), "int64")
    mixed = net.op("Reshape", f"{name}.flat", [mixed, flat])
    h = _product(net, mixed, f"{name}.out", (FEATURES, FEATURES))
    x = layer_norm(net, net.op("Add", f"{name}.add1", [x, h]), f"{name}.norm1", FEATURES)
    h = _product(net, x, f"{name}.fc11", (FEATURES, HIDDEN))
    gate = _product(net, x, f"{name}.fc12", (FEATURES, HIDDEN))
    gate = net.op("Mul", f"{name}.silu", [gate, net.op("Sigmoid", f"{name}.sigmoid", [gate])])
    h = _product(net, net.op("Mul", f"{name}.gated", [h, gate]), f"{name}.fc2", (HIDDEN, FEATURES))
    return layer_norm(net, net.op("Add", f"{name}.add2", [x, h]), f"{name}.norm2", FEATURES)


def _turned(net: Net, x: ir.Value, name: str, tokens: int) -> ir.Value:
    """Pairs of features turned by angles that grow with the token's place."""
    half = EACH // 2
    angles = np.outer(np.arange(tokens), 10_000.0 ** (-np.arange(half) / half))
    angles = np.concatenate([angles, angles], axis=1)[None, :, None, :]
    sizes = net.constant(f"{name}.sizes", (half, half), "int64")
    first, second = net.ops("Split", f"{name}.split", [x, sizes], {"axis": -1}, outputs=2)
    other = net.op(
        "Concat", f"{name}.other", [net.op("Neg", f"{name}.neg", [second]), first], {"axis": -1}
    )
    cosines = net.constant(f"{name}.cosines", np.cos(angles), "float32")
    sines = net.constant(f"{name}.sines", np.sin(angles), "float32")
    kept = net.op("Mul", f"{name}.kept", [x, cosines])
    return net.op("Add", f"{name}.turned", [kept, net.op("Mul", f"{name}.moved", [other, sines])])


def _product(net: Net, x: ir.Value, name: str, features: tuple[int, int]) -> ir.Value:
    return net.op("MatMul", name, [x, net.normal(f"{name}.weight", features, 0.02)])
