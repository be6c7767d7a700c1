"""MobileBERT: BERT's depth twice over, at a quarter of the features inside of each block.

Source: Sun et al., "MobileBERT: A compact task-agnostic BERT for resource-limited devices", 2020,
with scales in place of normalisation, as Hugging Face has it.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.attention import mix, pick
from coexec.zoo.builder import Net
from coexec.zoo.transformer import Width, layer_norm, project

VOCABULARY, WORD, FEATURES, INSIDE, HIDDEN = 30_522, 128, 512, 128, 512
DEPTH, HEADS, PERCEPTRONS = 24, 4, 4


def mobilebert(
    batch: int | None = None, classes: int = VOCABULARY, *, tokens: int = 384, seed: int = 0
) -> ir.Model:
    """Token ids (N, tokens) -> scores of one place (N, classes)."""
    net = Net("mobilebert", (batch, tokens), seed=seed, dtype=ir.DataType.INT64)
    table = net.normal("words", (classes, WORD), 0.02)
    x = net.op("Gather", "embedding", [table, net.x], {"axis": 0})
    x = project(net, _beside(net, x, tokens), "widen", (3 * WORD, FEATURES))
    x = net.op("Add", "position.add", [x, net.normal("position", (1, tokens, FEATURES), 0.02)])
    x = net.op("Add", "kind.add", [x, net.normal("kind", (1, 1, FEATURES), 0.02)])
    x = _scaled(net, x, "embedding", FEATURES)
    for block in range(DEPTH):
        x = _block(net, x, f"blocks.{block}", Width(tokens, INSIDE, HEADS))
    x = net.op("Relu", "head.relu", [project(net, x, "head", (FEATURES, FEATURES))])
    x = layer_norm(net, x, "head.norm", FEATURES)
    words = net.op("Transpose", "head.words", [table], {"perm": (1, 0)})
    more = net.normal("head.more", (FEATURES - WORD, classes), 0.02)
    words = net.op("Concat", "head.all", [words, more], {"axis": 0})
    scores = net.op("MatMul", "scores", [x, words])
    scores = net.op("Add", "scores.add_bias", [scores, net.filled("scores.bias", (classes,))])
    return net.finish(pick(net, scores, "masked"), classes)


def _beside(net: Net, x: ir.Value, tokens: int) -> ir.Value:
    """The next word and the last one beside each: (N, tokens, 3 * features)."""
    found = [x, x]
    for place, (name, start, pads) in enumerate(
        (("next", 1, (0, 0, 0, 0, 1, 0)), ("last", 0, (0, 1, 0, 0, 0, 0)))
    ):
        bounds = [
            net.constant(f"{name}.{end}", (value,), "int64")
            for end, value in (("start", start), ("end", tokens - 1 + start), ("axis", 1))
        ]
        kept = net.op("Slice", f"{name}.kept", [x, *bounds])
        moved = net.op("Pad", name, [kept, net.constant(f"{name}.pads", pads, "int64")])
        found.insert(2 * place, moved)
    return net.op("Concat", "beside", [found[0], x, found[2]], {"axis": -1})


def _block(net: Net, x: ir.Value, name: str, width: Width) -> ir.Value:
    narrow, wide = (FEATURES, INSIDE), (INSIDE, FEATURES)
    h = _scaled(net, project(net, x, f"{name}.narrow", narrow), f"{name}.narrow", INSIDE)
    shared = _scaled(net, project(net, x, f"{name}.shared", narrow), f"{name}.shared", INSIDE)
    q, k = (project(net, shared, f"{name}.{part}", (INSIDE, INSIDE)) for part in "qk")
    v = project(net, x, f"{name}.v", narrow)
    h = _added(
        net, h, mix(net, (q, k, v), width.tokens, f"{name}.self", width), f"{name}.self", INSIDE
    )
    for number in range(PERCEPTRONS):
        part = f"{name}.mlp.{number}"
        inner = net.op("Relu", f"{part}.relu", [project(net, h, f"{part}.fc1", (INSIDE, HIDDEN))])
        h = _added(net, h, project(net, inner, f"{part}.fc2", (HIDDEN, INSIDE)), part, INSIDE)
    return _added(net, x, project(net, h, f"{name}.wide", wide), f"{name}.wide", FEATURES)


def _added(net: Net, x: ir.Value, h: ir.Value, name: str, features: int) -> ir.Value:
    return _scaled(net, net.op("Add", f"{name}.add", [h, x]), f"{name}.sum", features)


def _scaled(net: Net, x: ir.Value, name: str, features: int) -> ir.Value:
    """A learned scale and offset of each feature."""
    h = net.op("Mul", f"{name}.scaled", [x, net.filled(f"{name}.gamma", (features,), 1.0)])
    return net.op("Add", f"{name}.moved", [h, net.filled(f"{name}.beta", (features,))])
