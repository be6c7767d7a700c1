"""The pre-norm transformer block that ``vit_tiny`` and ``gpt_tiny`` stack.

Source: Vaswani et al., "Attention is all you need", 2017, with LayerNormalization in front of each
half as in GPT-2. Attention is written out in MatMul and Softmax, as PyTorch exports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import onnx_ir as ir

from coexec.zoo.builder import Net, require

MASKED = -1e4
"""Score of a masked position: exp() of it is 0 in float32 and float16, and both can hold it."""


@dataclass(frozen=True)
class Width:
    """Sizes of a block: tokens in a sequence, features of a token, attention heads."""

    tokens: int
    features: int
    heads: int

    def __post_init__(self) -> None:
        require(
            min(self.tokens, self.features, self.heads) > 0, "transformer sizes must be positive"
        )
        require(
            self.features % self.heads == 0,
            f"{self.features} features cannot be split among {self.heads} heads",
        )


def block(
    net: Net, x: ir.Value, name: str, width: Width, *, gelu: str, mask: ir.Value | None = None
) -> ir.Value:
    """(N, tokens, features) -> the same: attention, then a perceptron four times as wide.

    ``gelu`` is ONNX's ``approximate`` (``none`` or ``tanh``); ``mask``, bool and broadcast to
    (N, heads, tokens, tokens), is True where a token may look.
    """
    h = layer_norm(net, x, f"{name}.ln1", width.features)
    h = attention(net, h, f"{name}.attn", width, mask)
    x = net.op("Add", f"{name}.add1", [x, h])
    h = layer_norm(net, x, f"{name}.ln2", width.features)
    h = project(net, h, f"{name}.mlp.fc1", (width.features, 4 * width.features))
    h = net.op("Gelu", f"{name}.mlp.gelu", [h], {"approximate": gelu})
    h = project(net, h, f"{name}.mlp.fc2", (4 * width.features, width.features))
    return net.op("Add", f"{name}.add2", [x, h])


def attention(net: Net, x: ir.Value, name: str, width: Width, mask: ir.Value | None) -> ir.Value:
    """Multi-head self-attention on (N, tokens, features)."""
    each = width.features // width.heads
    qkv = project(net, x, f"{name}.qkv", (width.features, 3 * width.features))
    parts = net.ops("Split", f"{name}.split", [qkv], {"axis": -1, "num_outputs": 3}, outputs=3)
    heads_shape = net.constant(f"{name}.heads.shape", (0, width.tokens, width.heads, each), "int64")
    # Keys come out transposed, (N, heads, each, tokens), ready for the product with the queries.
    orders = {"q": (0, 2, 1, 3), "k": (0, 2, 3, 1), "v": (0, 2, 1, 3)}
    q, k, v = (
        net.op(
            "Transpose",
            f"{name}.{part}.transpose",
            [net.op("Reshape", f"{name}.{part}", [value, heads_shape])],
            {"perm": order},
        )
        for (part, order), value in zip(orders.items(), parts, strict=True)
    )
    scale = net.constant(f"{name}.scale.value", 1 / sqrt(each), "float32")
    scores = net.op("MatMul", f"{name}.scores", [q, k])
    scores = net.op("Mul", f"{name}.scale", [scores, scale])
    if mask is not None:
        masked = net.constant(f"{name}.mask.value", MASKED, "float32")
        scores = net.op("Where", f"{name}.mask", [mask, scores, masked])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    mixed = net.op("MatMul", f"{name}.mix", [weights, v])
    mixed = net.op("Transpose", f"{name}.mix.transpose", [mixed], {"perm": (0, 2, 1, 3)})
    flat_shape = net.constant(f"{name}.flat.shape", (0, width.tokens, width.features), "int64")
    flat = net.op("Reshape", f"{name}.flat", [mixed, flat_shape])
    return project(net, flat, f"{name}.proj", (width.features, width.features))


def project(net: Net, x: ir.Value, name: str, features: tuple[int, int]) -> ir.Value:
    """(..., in) -> (..., out): MatMul and bias, Xavier-initialised."""
    bound = sqrt(6 / (features[0] + features[1]))
    weight = net.uniform(f"{name}.weight", features, bound)
    bias = net.filled(f"{name}.bias", (features[1],))
    return net.op("Add", f"{name}.add_bias", [net.op("MatMul", name, [x, weight]), bias])


def layer_norm(net: Net, x: ir.Value, name: str, features: int) -> ir.Value:
    """LayerNormalization over the last axis."""
    scale = net.filled(f"{name}.weight", (features,), 1.0)
    bias = net.filled(f"{name}.bias", (features,))
    return net.op("LayerNormalization", name, [x, scale, bias], {"axis": -1, "epsilon": 1e-5})
