"""Transformers on patches of images: ViT, BEiT, VideoMAE, TrOCR's encoder, Depth Anything.

Sources: Dosovitskiy et al., "An image is worth 16x16 words", 2021; Bao et al., "BEiT: BERT
pre-training of image transformers", 2022; Tong et al., "VideoMAE", 2022; Li et al., "TrOCR", 2023,
on DeiT-small (Touvron et al., 2021); Yang et al., "Depth anything", 2024, on DINOv2's ViT-S (Oquab
et al., 2024) with the decoder of Ranftl et al., "Vision transformers for dense prediction", 2021.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.attention import Form, drop_first, embed_patches, encode, image, pick
from coexec.zoo.builder import Net, conv, linear
from coexec.zoo.layers import NONE, RELU, Layers, Map
from coexec.zoo.transformer import Width, layer_norm, project

DEPTH = 12
"""Blocks of all networks here but of those that may have any number."""
DECODED = (48, 96, 192, 384)
"""Depth Anything: channels of the four maps that the decoder starts from."""
FUSED = 64


def vit_b16(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """ViT-Base on patches of 16: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("vit_b16", batch, (3, image_size, image_size), seed, NONE)
    x, tokens = embed_patches(layers, 16, 768)
    return _classify(layers.net, x, Form(Width(tokens, 768, 12), 3072), classes)


def vit_b32(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 384, seed: int = 0
) -> ir.Model:
    """ViT-Base on patches of 32: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("vit_b32", batch, (3, image_size, image_size), seed, NONE)
    x, tokens = embed_patches(layers, 32, 768)
    return _classify(layers.net, x, Form(Width(tokens, 768, 12), 3072), classes)


def vision_transformer(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    patch: int = 16,
    features: int = 192,
    depth: int = DEPTH,
    scaled: bool = False,
    seed: int = 0,
) -> ir.Model:
    """ViT or DeiT of any size, each head of 64 features: (N, 3, size, size) -> (N, classes).

    ``scaled``: each half of a block has a learned scale, as in DINOv2.
    """
    layers = Layers("vision_transformer", batch, (3, image_size, image_size), seed, NONE)
    x, tokens = embed_patches(layers, patch, features)
    form = Form(Width(tokens, features, features // 64), 4 * features, scaled=scaled)
    return _classify(layers.net, x, form, classes, depth)


def beit(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """BEiT-Base, positions in the scores of each block: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("beit", batch, (3, image_size, image_size), seed, NONE)
    x, tokens = embed_patches(layers, 16, 768)
    form = Form(Width(tokens, 768, 12), 3072, biased=True, scaled=True)
    return _classify(layers.net, x, form, classes)


def video_mae(
    batch: int | None = None,
    classes: int = 400,
    *,
    image_size: int = 224,
    frames: int = 16,
    seed: int = 0,
) -> ir.Model:
    """ViT-Base on tubes of 2 x 16 x 16: (N, 3, frames, size, size) -> (N, classes)."""
    net = Net("video_mae", (batch, 3, frames, image_size, image_size), seed=seed)
    tube = (2, 16, 16)
    x = conv(net, net.x, "patches", (3, 768), tube, stride=tube)
    tokens = frames // 2 * (image_size // 16) ** 2
    shape = net.constant("tokens.shape", (-1, 768, tokens), "int64")
    x = net.op("Reshape", "tokens.flat", [x, shape])
    x = net.op("Transpose", "tokens", [x], {"perm": (0, 2, 1)})
    position = net.normal("position", (1, tokens, 768), 0.02)
    x = net.op("Add", "tokens.position", [x, position])
    form = Form(Width(tokens, 768, 12), 3072)
    for block in range(DEPTH):
        x = encode(net, x, f"blocks.{block}", form)
    axes = net.constant("pool.axes", (1,), "int64")
    x = net.op("ReduceMean", "pool", [x, axes], {"keepdims": 0})
    return net.finish(linear(net, layer_norm(net, x, "norm", 768), "head", (768, classes)), classes)


def trocr_encoder(
    batch: int | None = None, classes: int = 256, *, image_size: int = 384, seed: int = 0
) -> ir.Model:
    """DeiT-small, and keys and values for each of the decoder's six blocks, of ``classes`` each."""
    layers = Layers("trocr_encoder", batch, (3, image_size, image_size), seed, NONE)
    net = layers.net
    x, tokens = embed_patches(layers, 16, 384, 2)
    form = Form(Width(tokens, 384, 6), 1536)
    for block in range(DEPTH):
        x = encode(net, x, f"blocks.{block}", form)
    x = layer_norm(net, x, "norm", 384)
    states = [project(net, x, f"states.{place}", (384, classes)) for place in range(12)]
    return net.finish(net.op("Concat", "states", states, {"axis": -1}), tokens, 12 * classes)


def depth_anything(
    batch: int | None = None, classes: int = 1, *, image_size: int = 518, seed: int = 0
) -> ir.Model:
    """Depth Anything, small: (N, 3, size, size) -> (N, classes, size, size)."""
    layers = Layers("depth_anything", batch, (3, image_size, image_size), seed, RELU)
    net, side = layers.net, image_size // 14
    x, tokens = embed_patches(layers, 14, 384)
    form = Form(Width(tokens, 384, 6), 1536, scaled=True)
    found = []
    for block in range(DEPTH):
        x = encode(net, x, f"blocks.{block}", form)
        if block % 3 == 2:
            h = layer_norm(net, x, f"norm.{block}", 384)
            h = drop_first(net, h, f"patches.{block}", tokens, 1)
            found.append(image(layers, h, 384, side, side))
    depth = _decoded(layers, found)
    depth = layers.conv(depth, 32, 3, norm=False, act=NONE)
    depth = layers.resize(depth, 14 * side / depth.height, linear=True)
    depth = layers.conv(layers.conv(depth, 32, 3, norm=False), classes, norm=False)
    return layers.finish(depth)


def _classify(net: Net, x: ir.Value, form: Form, classes: int, depth: int = DEPTH) -> ir.Model:
    for block in range(depth):
        x = encode(net, x, f"blocks.{block}", form)
    x = pick(net, layer_norm(net, x, "norm", form.width.features), "class")
    return net.finish(linear(net, x, "head", (form.width.features, classes)), classes)


def _decoded(layers: Layers, maps: list[Map]) -> Map:
    """Maps of four depths at sizes of their own, fused from the deepest one on."""
    sized = []
    for place, (x, channels) in enumerate(zip(maps, DECODED, strict=True)):
        h = layers.conv(x, channels, norm=False, act=NONE)
        for _ in range(2 - place):
            h = layers.transposed(h, channels, act=NONE)
        if place == 3:
            h = layers.conv(h, channels, 3, stride=2, norm=False, act=NONE)
        sized.append(layers.conv(h, FUSED, 3, norm=False, bias=False, act=NONE))
    fused: Map | None = None
    for place in reversed(range(4)):
        x = sized[place]
        if fused is not None:
            x = layers.add(fused, _refined(layers, x))
        x = _refined(layers, x)
        x = layers.resize_to(x, sized[place - 1]) if place else layers.resize(x, 2, linear=True)
        fused = layers.conv(x, FUSED, norm=False, act=NONE)
    assert fused is not None
    return fused


def _refined(layers: Layers, x: Map) -> Map:
    h = layers.conv(layers.activate(x, RELU), FUSED, 3, norm=False)
    return layers.add(layers.conv(h, FUSED, 3, norm=False, act=NONE), x)
