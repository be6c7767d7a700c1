"""A small GPT-like decoder: learned positions, pre-norm blocks, Gelu in its tanh form, tied head.

Source: Radford et al., "Language models are unsupervised multitask learners" (GPT-2), 2019.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coexec.zoo.builder import Net, require
from coexec.zoo.transformer import Width, block, layer_norm


def gpt_tiny(
    batch: int | None = None,
    classes: int = 256,
    *,
    tokens: int = 64,
    features: int = 128,
    depth: int = 4,
    heads: int = 4,
    tied: bool = True,
    seed: int = 0,
) -> ir.Model:
    """int64 (N, tokens) -> (N, tokens, classes): logits of the next token at every position.

    ``classes`` is the size of the vocabulary (256: bytes). ``tied`` uses the embedding as the
    head too.
    """
    width = Width(tokens, features, heads)
    require(classes > 0, f"the vocabulary must not be empty, classes is {classes}")
    net = Net("gpt_tiny", (batch, tokens), seed=seed, dtype=ir.DataType.INT64)
    table = net.normal("wte", (classes, features), 0.02)
    x = net.op("Gather", "embed", [table, net.x], {"axis": 0})
    position = net.normal("wpe", (1, tokens, features), 0.02)
    x = net.op("Add", "embed.position", [x, position])
    mask = net.constant("causal_mask", np.tri(tokens)[None, None], "bool")
    for i in range(depth):
        x = block(net, x, f"h.{i}", width, gelu="tanh", mask=mask)
    x = layer_norm(net, x, "ln_f", features)
    if tied:
        head = net.op("Transpose", "head.transpose", [table], {"perm": (1, 0)})
    else:
        head = net.normal("head.weight", (features, classes), 0.02)
    return net.finish(net.op("MatMul", "head", [x, head]), tokens, classes)
