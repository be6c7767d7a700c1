"""Names of transformers, of images and of text, and of networks that convolve and attend."""

from __future__ import annotations

from coexec.cost.calibration.name_parts import SIZE, Network, Parts, Rules, named, ordered, size_of

FORMERS, FAST = ("s0", "s1", "s2", "l"), ("t8", "t12", "s12", "sa12", "sa24", "sa36")
NEXTS = ("xx_?small|xxs", "x_?small|xs", "small|s", "base|b")
"""Sizes of EfficientFormerV2, FastViT and EdgeNeXt, the smallest first."""
BERTS = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "large": (24, 1024),
}
"""Blocks and features; heads have 64."""
VITS = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}
"""Features and blocks."""


def _vit(parts: Parts) -> Network:
    features, depth = VITS[size_of(parts)]
    patch = int(parts["patch"] or 16)
    return "vision_transformer", (("patch", patch), ("features", features), ("depth", depth))


def _dino(parts: Parts) -> Network:
    features, depth = VITS[size_of(parts)]
    return "vision_transformer", (
        ("patch", 14),
        ("features", features),
        ("depth", depth),
        ("scaled", True),
    )


def _bert(parts: Parts) -> Network:
    depth, features = BERTS[parts["size"]]
    return "bert_encoder", (("depth", depth), ("features", features), ("heads", features // 64))


TRANSFORMERS: Rules = {
    r"(?:google_)?(?:vit|deit)_?" + SIZE + r"_?(?:patch_?)?(?P<patch>16|32|14)?": _vit,
    r"dino_?v2_?(?:vit_?)?" + SIZE + r"(?:_?14)?": _dino,
    r"swin_?" + SIZE: lambda parts: (f"swin_{size_of(parts)}", ()),
    r"bert_?base(?:_(?:un)?cased)?(?:_google)?": named("bert"),
    r"distil_?bert(?:_base)?(?:_(?:un)?cased)?": named("distilbert"),
    r"albert(?:_base)?(?:_v\d)?": named("albert"),
    r"electra(?:_base)?(?:_discriminator)?": named("electra"),
    r"mobile_?bert(?:_(?:un)?cased)?": named("mobilebert"),
    r"bert_?(?P<size>tiny|mini|small|medium|large)(?:_(?:un)?cased)?": _bert,
    r"(?:all_)?minilm_?l_?6(?:_h384)?(?:_v2)?(?:_(?:un)?cased)?": named(
        "bert_encoder", (("depth", 6), ("features", 384))
    ),
    rf"efficient_?former_?v2_?(?P<size>{'|'.join(FORMERS)})": ordered(
        "efficientformer_v2", FORMERS
    ),
    rf"edge_?next_?(?P<size>{'|'.join(NEXTS)})": ordered("edgenext", NEXTS),
    rf"fast_?vit_?(?P<size>{'|'.join(FAST)})": ordered("fastvit", FAST),
    r"mobile_?vit_?(?P<size>x?xs)": lambda parts: (f"mobilevit_{parts['size']}", ()),
    r"efficient_?former_?(?P<size>l[37])": lambda parts: (f"efficientformer_{parts['size']}", ()),
}
