"""Networks for sound: Whisper's encoders and decoders, YAMNet.

Sources: Radford et al., "Robust speech recognition via large-scale weak supervision", 2022 (half a
minute as 3000 frames; a step of the decoder beside the last 200 tokens; normalisation counts behind
each half of the decoder's blocks, as it costs the same); Plakal, Ellis, "YAMNet", 2020, which is
the first MobileNet on 96 x 64 patches of a spectrogram.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.attention import Form, encode
from coexec.zoo.builder import Net, conv
from coexec.zoo.layers import Layers
from coexec.zoo.mobilenet_v3 import v1_features
from coexec.zoo.text_transformer import cached_decoder
from coexec.zoo.transformer import Width, layer_norm, project

FRAMES, BANDS, TOKENS, MEMORY = 3000, 80, 200, 1500
VOCABULARY = 51_865


@dataclass(frozen=True)
class Size:
    """Features, blocks of the encoder and of the decoder, and bands of the spectrogram.

    Heads have 64 features.
    """

    features: int
    depth: int
    decoded: int
    bands: int = BANDS


TINY, BASE, SMALL = Size(384, 4, 4), Size(512, 6, 6), Size(768, 12, 12)
MEDIUM, TURBO = Size(1024, 24, 24), Size(1280, 32, 4, 128)
LARGE, LARGE_V3 = Size(1280, 32, 32), Size(1280, 32, 32, 128)


def whisper_tiny_encoder(
    batch: int | None = None, classes: int = 384, *, frames: int = FRAMES, seed: int = 0
) -> ir.Model:
    """(N, 80, frames) -> keys and values for each block of the decoder, of ``classes`` each."""
    return _encoder("whisper_tiny_encoder", TINY, batch, classes, frames, seed)


def whisper_base_encoder(
    batch: int | None = None, classes: int = 512, *, frames: int = FRAMES, seed: int = 0
) -> ir.Model:
    """(N, 80, frames) -> keys and values for each block of the decoder, of ``classes`` each."""
    return _encoder("whisper_base_encoder", BASE, batch, classes, frames, seed)


def whisper_small_encoder(
    batch: int | None = None, classes: int = 768, *, frames: int = FRAMES, seed: int = 0
) -> ir.Model:
    """(N, 80, frames) -> keys and values for each block of the decoder, of ``classes`` each."""
    return _encoder("whisper_small_encoder", SMALL, batch, classes, frames, seed)


def whisper_medium_encoder(
    batch: int | None = None, classes: int = 1024, *, frames: int = FRAMES, seed: int = 0
) -> ir.Model:
    """(N, 80, frames) -> keys and values for each block of the decoder, of ``classes`` each."""
    return _encoder("whisper_medium_encoder", MEDIUM, batch, classes, frames, seed)


def whisper_turbo_encoder(
    batch: int | None = None, classes: int = 1280, *, frames: int = FRAMES, seed: int = 0
) -> ir.Model:
    """(N, 128, frames) -> keys and values for each block of the decoder, of ``classes`` each."""
    return _encoder("whisper_turbo_encoder", TURBO, batch, classes, frames, seed)


def whisper_large_encoder(
    batch: int | None = None, classes: int = 1280, *, frames: int = FRAMES, seed: int = 0
) -> ir.Model:
    """(N, 80, frames) -> keys and values for each block of the decoder, of ``classes`` each."""
    return _encoder("whisper_large_encoder", LARGE, batch, classes, frames, seed)


def whisper_large_v3_encoder(
    batch: int | None = None, classes: int = 1280, *, frames: int = FRAMES, seed: int = 0
) -> ir.Model:
    """(N, 128, frames) -> keys and values for each block of the decoder, of ``classes`` each."""
    return _encoder("whisper_large_v3_encoder", LARGE_V3, batch, classes, frames, seed)


def whisper_tiny_decoder(
    batch: int | None = None, classes: int = VOCABULARY, *, seed: int = 0
) -> ir.Model:
    """A token's features, then keys and values, block by block -> (N, 1, classes)."""
    return _decoder("whisper_tiny_decoder", TINY, batch, classes, seed)


def whisper_base_decoder(
    batch: int | None = None, classes: int = VOCABULARY, *, seed: int = 0
) -> ir.Model:
    """A token's features, then keys and values, block by block -> (N, 1, classes)."""
    return _decoder("whisper_base_decoder", BASE, batch, classes, seed)


def whisper_small_decoder(
    batch: int | None = None, classes: int = VOCABULARY, *, seed: int = 0
) -> ir.Model:
    """A token's features, then keys and values, block by block -> (N, 1, classes)."""
    return _decoder("whisper_small_decoder", SMALL, batch, classes, seed)


def whisper_medium_decoder(
    batch: int | None = None, classes: int = VOCABULARY, *, seed: int = 0
) -> ir.Model:
    """A token's features, then keys and values, block by block -> (N, 1, classes)."""
    return _decoder("whisper_medium_decoder", MEDIUM, batch, classes, seed)


def whisper_turbo_decoder(
    batch: int | None = None, classes: int = VOCABULARY, *, seed: int = 0
) -> ir.Model:
    """A token's features, then keys and values, block by block -> (N, 1, classes)."""
    return _decoder("whisper_turbo_decoder", TURBO, batch, classes, seed)


def whisper_large_decoder(
    batch: int | None = None, classes: int = VOCABULARY, *, seed: int = 0
) -> ir.Model:
    """A token's features, then keys and values, block by block -> (N, 1, classes)."""
    return _decoder("whisper_large_decoder", LARGE, batch, classes, seed)


def yamnet(
    batch: int | None = None,
    classes: int = 521,
    *,
    height: int = 96,
    width: int = 64,
    seed: int = 0,
) -> ir.Model:
    """(N, 1, frames, bands) -> (N, classes)."""
    layers = Layers("yamnet", batch, (1, height, width), seed)
    return layers.logits(v1_features(layers)[-1], classes)


def _encoder(
    name: str, size: Size, batch: int | None, classes: int, frames: int, seed: int
) -> ir.Model:
    net = Net(name, (batch, size.bands, frames), seed=seed)
    x = conv(net, net.x, "conv1", (size.bands, size.features), (3,), pad=1)
    x = net.op("Gelu", "conv1.gelu", [x])
    x = conv(net, x, "conv2", (size.features, size.features), (3,), stride=2, pad=1)
    x = net.op("Transpose", "tokens", [net.op("Gelu", "conv2.gelu", [x])], {"perm": (0, 2, 1)})
    tokens = (frames - 1) // 2 + 1
    position = net.normal("position", (1, tokens, size.features), 0.02)
    x = net.op("Add", "tokens.position", [x, position])
    form = Form(Width(tokens, size.features, size.features // 64), 4 * size.features)
    for block in range(size.depth):
        x = encode(net, x, f"blocks.{block}", form)
    x = layer_norm(net, x, "norm", size.features)
    states = [
        project(net, x, f"states.{place}", (size.features, classes))
        for place in range(2 * size.decoded)
    ]
    joined = net.op("Concat", "states", states, {"axis": -1})
    return net.finish(joined, tokens, 2 * size.decoded * classes)


def _decoder(name: str, size: Size, batch: int | None, classes: int, seed: int) -> ir.Model:
    form = Form(Width(1, size.features, size.features // 64), 4 * size.features, before=False)
    return cached_decoder(
        name, batch, classes, form, (TOKENS, MEMORY), seed=seed, depth=size.decoded
    )
