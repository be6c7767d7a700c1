"""SAM's decoder, which asks an image's features for what points belong to, and that of SAM 2.

Sources: Kirillov et al., "Segment anything", 2023; Ravi et al., "SAM 2: Segment anything in images
and videos", 2024, whose finer maps are added while masks grow.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.attention import Form, image, perceptron
from coexec.zoo.builder import Net
from coexec.zoo.convnext import normed
from coexec.zoo.layers import GELU, NONE, Layers, Map
from coexec.zoo.transformer import Width, layer_norm, project

NECK, HEADS, HIDDEN, DEPTH, MASKS = 256, 8, 2048, 2, 4
"""Features of a pixel, heads, features of perceptrons, blocks, masks of a point."""
GROWN = (64, 32)
"""Channels at twice and four times the size."""


def sam_decoder(
    batch: int | None = None, classes: int = MASKS, *, side: int = 64, seed: int = 0
) -> ir.Model:
    """Pixels' features and, behind them, two points' -> (N, classes, 16 side^2 + 1).

    Results are masks of four times the size, and behind each one how good it is.
    """
    pixels = side**2
    layers = Layers("sam_decoder", batch, (NECK, pixels + 2, 1), seed, GELU)
    keys, points = _parts(layers, (pixels, 2))
    x, keys = _asked(layers.net, points, keys, (2, 1 + classes, pixels))
    seen = layers.transposed(image(layers, keys, NECK, side, side), GROWN[0], act=NONE)
    seen = layers.activate(normed(layers, seen), GELU)
    seen = layers.transposed(seen, GROWN[1], act=GELU)
    return _masks(layers, x, seen, (0, classes, 2))


def sam2_decoder(
    batch: int | None = None, classes: int = MASKS, *, side: int = 64, seed: int = 0
) -> ir.Model:
    """As :func:`sam_decoder`, of three points, in front of which two finer maps stand.

    They have 64 channels at twice the size and 32 at four times, written in columns of 256.
    """
    pixels = side**2
    sizes = (pixels, pixels, 2 * pixels, 3)
    layers = Layers("sam2_decoder", batch, (NECK, sum(sizes), 1), seed, GELU)
    net = layers.net
    keys, *finer, points = _parts(layers, sizes)
    x, keys = _asked(net, points, keys, (3, 2 + classes, pixels))
    seen = image(layers, keys, NECK, side, side)
    for channels, beside in zip(GROWN, finer, strict=True):
        seen = layers.transposed(seen, channels, act=NONE)
        shape = (-1, channels, seen.height, seen.width)
        name = f"finer.{channels}"
        value = net.op("Reshape", name, [beside, net.constant(f"{name}.shape", shape, "int64")])
        added = layers.add(seen, Map(value, channels, seen.height, seen.width))
        seen = layers.activate(added, GELU)
    return _masks(layers, x, seen, (1, classes, 3))


def _parts(layers: Layers, sizes: tuple[int, ...]) -> tuple[ir.Value, ...]:
    """Columns of the input by kind: pixels' and points' as rows, (N, rows, features)."""
    net = layers.net
    flat = net.constant("inputs.shape", (-1, NECK, sum(sizes)), "int64")
    value = net.op("Reshape", "inputs.columns", [layers.x.value, flat])
    lengths = net.constant("inputs.sizes", sizes, "int64")
    parts = net.ops("Split", "inputs", [value, lengths], {"axis": 2}, outputs=len(sizes))
    pixels = net.op("Transpose", "pixels", [parts[0]], {"perm": (0, 2, 1)})
    points = net.op("Transpose", "points", [parts[-1]], {"perm": (0, 2, 1)})
    return (pixels, *parts[1:-1], points)


def _asked(
    net: Net, points: ir.Value, keys: ir.Value, counts: tuple[int, int, int]
) -> tuple[ir.Value, ir.Value]:
    """Answers of all tokens, and pixels that know of them; ``counts`` of points, tokens, pixels."""
    given, learned, pixels = counts
    tokens = given + learned
    # Places of pixels and what stands for no mask are constants, written out for each pixel.
    keys = net.op("Add", "dense", [keys, net.normal("no_mask", (1, pixels, NECK), 0.02)])
    place = net.normal("place", (1, pixels, NECK), 0.02)
    asked = _tokens(net, points, given, tokens)
    x = asked
    for block in range(DEPTH):
        x, keys = _two_ways(net, x, keys, (asked, place), f"blocks.{block}", (tokens, pixels))
    q = net.op("Add", "final.asked", [x, asked])
    k = net.op("Add", "final.placed", [keys, place])
    h = _attended(net, (q, k, keys), (tokens, pixels), "final", NECK // 2)
    return layer_norm(net, net.op("Add", "final.add", [x, h]), "final.norm", NECK), keys


def _tokens(net: Net, points: ir.Value, count: int, tokens: int) -> ir.Value:
    """Learned tokens in front of the points': (N, tokens, features)."""
    pads = net.constant("tokens.pads", (0, tokens - count, 0, 0, 0, 0), "int64")
    learned = net.normal("tokens.learned", (1, tokens - count, NECK), 0.02)
    after = net.constant("tokens.after", (0, 0, 0, 0, count, 0), "int64")
    learned = net.op("Pad", "tokens.all", [learned, after])
    return net.op("Add", "tokens", [net.op("Pad", "tokens.points", [points, pads]), learned])


def _two_ways(
    net: Net,
    x: ir.Value,
    keys: ir.Value,
    places: tuple[ir.Value, ir.Value],
    name: str,
    counts: tuple[int, int],
) -> tuple[ir.Value, ir.Value]:
    """Tokens look at each other and at pixels, then pixels at tokens."""
    (asked, place), (tokens, pixels) = places, counts
    first = name.endswith("0")
    q = x if first else net.op("Add", f"{name}.self.asked", [x, asked])
    h = _attended(net, (q, q, x), (tokens, tokens), f"{name}.self", NECK)
    h = h if first else net.op("Add", f"{name}.self.add", [x, h])
    x = layer_norm(net, h, f"{name}.norm1", NECK)
    q = net.op("Add", f"{name}.asked", [x, asked])
    k = net.op("Add", f"{name}.placed", [keys, place])
    h = _attended(net, (q, k, keys), (tokens, pixels), f"{name}.pixels", NECK // 2)
    x = layer_norm(net, net.op("Add", f"{name}.add2", [x, h]), f"{name}.norm2", NECK)
    form = Form(Width(tokens, NECK, HEADS), HIDDEN, act="Relu")
    h = perceptron(net, x, f"{name}.mlp", form)
    x = layer_norm(net, net.op("Add", f"{name}.add3", [x, h]), f"{name}.norm3", NECK)
    q = net.op("Add", f"{name}.answered", [x, asked])
    h = _attended(net, (k, q, x), (pixels, tokens), f"{name}.tokens", NECK // 2)
    keys = layer_norm(net, net.op("Add", f"{name}.add4", [keys, h]), f"{name}.norm4", NECK)
    return x, keys


def _attended(
    net: Net,
    parts: tuple[ir.Value, ir.Value, ir.Value],
    counts: tuple[int, int],
    name: str,
    inside: int,
) -> ir.Value:
    """Attention of as many queries to as many keys, on ``inside`` features."""
    each, heads = inside // HEADS, []
    orders = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
    for part, value, count, order in zip(
        "qkv", parts, (counts[0], counts[1], counts[1]), orders, strict=True
    ):
        h = project(net, value, f"{name}.{part}", (NECK, inside))
        shape = net.constant(f"{name}.{part}.shape", (-1, count, HEADS, each), "int64")
        h = net.op("Reshape", f"{name}.{part}.heads", [h, shape])
        heads.append(net.op("Transpose", f"{name}.{part}.order", [h], {"perm": order}))
    scale = net.constant(f"{name}.scale.value", each**-0.5, "float32")
    scores = net.op("Mul", f"{name}.scale", [net.op("MatMul", f"{name}.scores", heads[:2]), scale])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    mixed = net.op("MatMul", f"{name}.mix", [weights, heads[2]])
    mixed = net.op("Transpose", f"{name}.mix.order", [mixed], {"perm": (0, 2, 1, 3)})
    flat = net.constant(f"{name}.flat.shape", (-1, counts[0], inside), "int64")
    mixed = net.op("Reshape", f"{name}.flat", [mixed, flat])
    return project(net, mixed, f"{name}.out", (inside, NECK))


def _masks(layers: Layers, x: ir.Value, seen: Map, counts: tuple[int, int, int]) -> ir.Model:
    """A mask by each token's own weights of the channels, beside how good each one is.

    ``counts`` are of tokens in front that nobody asks for, of masks, and of points.
    """
    (before, classes, given), net, pixels = counts, layers.net, seen.height * seen.width
    lengths = (1,) * (before + 1 + classes) + (given,)
    sizes = net.constant("tokens.sizes", lengths, "int64")
    parts = net.ops("Split", "answers", [x, sizes], {"axis": 1}, outputs=len(lengths))
    good, *asked = parts[before:-1]
    weights = [
        _three(net, token, f"mask.{place}", seen.channels) for place, token in enumerate(asked)
    ]
    weight = net.op("Concat", "masks.weights", weights, {"axis": 1})
    shape = net.constant("masks.pixels", (-1, seen.channels, pixels), "int64")
    flat = net.op("Reshape", "masks.flat", [seen.value, shape])
    masks = net.op("MatMul", "masks", [weight, flat])
    score = net.op("Transpose", "score", [_three(net, good, "good", classes)], {"perm": (0, 2, 1)})
    both = net.op("Concat", "masks.scored", [masks, score], {"axis": -1})
    return net.finish(both, classes, pixels + 1)


def _three(net: Net, x: ir.Value, name: str, out: int) -> ir.Value:
    for layer, width in enumerate((NECK, NECK, out)):
        x = project(net, x, f"{name}.{layer}", (NECK, width))
        x = net.op("Relu", f"{name}.{layer}.relu", [x]) if layer < 2 else x
    return x
