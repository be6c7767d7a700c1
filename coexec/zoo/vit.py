"""ViT-tiny: an image as a sequence of patches.

Sources: Dosovitskiy et al., "An image is worth 16x16 words", 2021; the tiny width (192 features,
3 heads, 12 blocks) is that of Touvron et al., "DeiT", 2021; the mean over tokens instead of a
class token follows Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import Net, conv, linear, require
from coexec.zoo.transformer import Width, block, layer_norm


def vit_tiny(
    batch: int | None = None,
    classes: int = 10,
    *,
    image_size: int = 32,
    patch: int = 4,
    features: int = 192,
    depth: int = 12,
    heads: int = 3,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes); ``image_size=224, patch=16`` gives ImageNet's form."""
    require(patch > 0, f"patch must be positive, not {patch}")
    require(image_size % patch == 0, f"{image_size} pixels are no whole number of patches")
    width = Width((image_size // patch) ** 2, features, heads)
    net = Net("vit_tiny", (batch, 3, image_size, image_size), seed=seed)
    x = _embed(net, width, patch)
    for i in range(depth):
        x = block(net, x, f"blocks.{i}", width, gelu="none")
    x = layer_norm(net, x, "norm", features)
    axes = net.constant("pool.axes", (1,), "int64")
    x = net.op("ReduceMean", "pool", [x, axes], {"keepdims": 0})
    return net.finish(linear(net, x, "head", (features, classes)), classes)


def _embed(net: Net, width: Width, patch: int) -> ir.Value:
    """(N, 3, size, size) -> (N, tokens, features)."""
    x = conv(net, net.x, "patch_embed", (3, width.features), (patch, patch), stride=patch)
    shape = net.constant("tokens.shape", (0, width.features, width.tokens), "int64")
    x = net.op("Reshape", "tokens", [x, shape])
    x = net.op("Transpose", "tokens.transpose", [x], {"perm": (0, 2, 1)})
    position = net.normal("pos_embed", (1, width.tokens, width.features), 0.02)
    return net.op("Add", "tokens.position", [x, position])
