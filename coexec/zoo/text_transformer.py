"""Transformers on text: BERT, DistilBERT, ALBERT, ELECTRA, and Marian's encoder and decoder.

Sources: Devlin et al., "BERT", 2019; Sanh et al., "DistilBERT", 2019; Lan et al., "ALBERT", 2020;
Clark et al., "ELECTRA", 2020, the discriminator of the base size;
Junczys-Dowmunt et al., "Marian: Fast neural machine translation in C++", 2018, in the sizes of
Tiedemann, Thottingal, "OPUS-MT", 2020. The head predicts the token at one place, as filling in a
mask does; its product is with all of them, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from coexec.core.types import Array
from coexec.zoo.attention import Form, encode, mix, perceptron, pick
from coexec.zoo.builder import Net
from coexec.zoo.transformer import Width, layer_norm, project

VOCABULARY = 30_522
MARIAN_VOCABULARY = 65_001
MARIAN_DEPTH = 6


def bert(
    batch: int | None = None, classes: int = VOCABULARY, *, tokens: int = 384, seed: int = 0
) -> ir.Model:
    """BERT-Base: token ids (N, tokens) -> scores of one place (N, classes)."""
    return _masked("bert", 12, batch, classes, tokens, seed, types=True)


def bert_encoder(
    batch: int | None = None,
    classes: int = 2,
    *,
    tokens: int = 384,
    depth: int = 12,
    features: int = 768,
    heads: int = 12,
    seed: int = 0,
) -> ir.Model:
    """BERT of any size with a score or two of each token, as answers to questions have.

    Token ids (N, tokens) -> (N, tokens, classes).
    """
    net = Net("bert_encoder", (batch, tokens), seed=seed, dtype=ir.DataType.INT64)
    x, _ = _embedded(net, VOCABULARY, tokens, features, types=True)
    form = Form(Width(tokens, features, heads), 4 * features, before=False)
    for block in range(depth):
        x = encode(net, x, f"blocks.{block}", form)
    return net.finish(project(net, x, "scores", (features, classes)), tokens, classes)


def distilbert(
    batch: int | None = None, classes: int = VOCABULARY, *, tokens: int = 384, seed: int = 0
) -> ir.Model:
    """Half of BERT's blocks: token ids (N, tokens) -> scores of one place (N, classes)."""
    return _masked("distilbert", 6, batch, classes, tokens, seed, types=False)


def albert(
    batch: int | None = None, classes: int = 30_000, *, tokens: int = 384, seed: int = 0
) -> ir.Model:
    """ALBERT-Base: one block, twelve times, on embeddings of 128 features.

    Token ids (N, tokens) -> scores of one place (N, classes). Blocks share parameters: names of
    nodes differ, initializers are looked up again.
    """
    net = _Shared("albert", (batch, tokens), seed=seed, dtype=ir.DataType.INT64)
    x, table = _embedded(net, classes, tokens, 128, types=True)
    x = project(net, x, "widen", (128, 768))
    form = Form(Width(tokens, 768, 12), 3072, before=False)
    for repetition in range(12):
        net.again = f".{repetition}" if repetition else ""
        x = encode(net, x, "block", form)
    net.again = ""
    return _head(net, x, table, (768, 128), classes)


def electra(
    batch: int | None = None, classes: int = 1, *, tokens: int = 384, depth: int = 12, seed: int = 0
) -> ir.Model:
    """BERT-Base that tells replaced words: token ids (N, tokens) -> (N, tokens, classes)."""
    net = Net("electra", (batch, tokens), seed=seed, dtype=ir.DataType.INT64)
    x, _ = _embedded(net, VOCABULARY, tokens, 768, types=True)
    form = Form(Width(tokens, 768, 12), 3072, before=False)
    for block in range(depth):
        x = encode(net, x, f"blocks.{block}", form)
    x = net.op("Gelu", "head.gelu", [project(net, x, "head", (768, 768))])
    return net.finish(project(net, x, "replaced", (768, classes)), tokens, classes)


def opus_mt_encoder(
    batch: int | None = None, classes: int = MARIAN_VOCABULARY, *, tokens: int = 256, seed: int = 0
) -> ir.Model:
    """Token ids (N, tokens) of ``classes`` -> keys and values for each block of the decoder."""
    net = Net("opus_mt_encoder", (batch, tokens), seed=seed, dtype=ir.DataType.INT64)
    x, _ = _embedded(net, classes, tokens, 512, types=False, normed=False)
    form = Form(Width(tokens, 512, 8), 2048, act="Swish", before=False)
    for block in range(MARIAN_DEPTH):
        x = encode(net, x, f"blocks.{block}", form)
    states = [project(net, x, f"states.{place}", (512, 512)) for place in range(2 * MARIAN_DEPTH)]
    return net.finish(net.op("Concat", "states", states, {"axis": -1}), tokens, 12 * 512)


def opus_mt_decoder(
    batch: int | None = None, classes: int = MARIAN_VOCABULARY, *, tokens: int = 256, seed: int = 0
) -> ir.Model:
    """One token's features beside cached keys and values of ``tokens`` tokens -> (N, 1, classes).

    The input (N, 1 + 4 x 6 x tokens, 512) holds the token's features in its first row, then keys
    and values of the tokens before it and of the encoder, block by block.
    """
    form = Form(Width(1, 512, 8), 2048, act="Swish", before=False)
    return cached_decoder("opus_mt_decoder", batch, classes, form, (tokens, tokens), seed=seed)


def trocr_decoder(
    batch: int | None = None, classes: int = 64_044, *, tokens: int = 20, seed: int = 0
) -> ir.Model:
    """TrOCR's small decoder (Li et al., 2023), as :func:`opus_mt_decoder`, beside 578 patches."""
    form = Form(Width(1, 256, 8), 1024, act="Relu", before=False)
    return cached_decoder("trocr_decoder", batch, classes, form, (tokens, 578), seed=seed)


def cached_decoder(
    name: str,
    batch: int | None,
    classes: int,
    form: Form,
    states: tuple[int, int],
    *,
    seed: int,
    depth: int = MARIAN_DEPTH,
) -> ir.Model:
    """A decoder's step beside ``states``: cached tokens, and those of the encoder."""
    (cached, memory), width = states, form.width
    net = Net(name, (batch, 1 + depth * 2 * (cached + memory), width.features), seed=seed)
    sizes = [1, *((cached, cached, memory, memory) * depth)]
    lengths = net.constant("inputs.sizes", sizes, "int64")
    x, *parts = net.ops("Split", "inputs", [net.x, lengths], {"axis": 1}, outputs=len(sizes))
    for block in range(depth):
        x = _cached_block(net, x, f"blocks.{block}", form, parts[4 * block :], cached, memory)
    logits = project(net, x, "vocabulary", (width.features, classes))
    return net.finish(logits, 1, classes)


def _cached_block(
    net: Net,
    x: ir.Value,
    name: str,
    form: Form,
    states: list[ir.Value],
    cached: int,
    memory: int,
) -> ir.Value:
    width, square = form.width, (form.width.features,) * 2
    q, k, v = (project(net, x, f"{name}.self.{part}", square) for part in "qkv")
    keys = net.op("Concat", f"{name}.keys", [states[0], k], {"axis": 1})
    values = net.op("Concat", f"{name}.values", [states[1], v], {"axis": 1})
    h = mix(net, (q, keys, values), cached + 1, f"{name}.self", width)
    x = layer_norm(net, net.op("Add", f"{name}.self.add", [x, h]), f"{name}.ln1", width.features)
    q = project(net, x, f"{name}.cross.q", square)
    h = mix(net, (q, states[2], states[3]), memory, f"{name}.cross", width)
    x = layer_norm(net, net.op("Add", f"{name}.cross.add", [x, h]), f"{name}.ln2", width.features)
    h = perceptron(net, x, f"{name}.mlp", form)
    return layer_norm(net, net.op("Add", f"{name}.mlp.add", [x, h]), f"{name}.ln3", width.features)


def _masked(
    name: str,
    depth: int,
    batch: int | None,
    classes: int,
    tokens: int,
    seed: int,
    *,
    types: bool,
) -> ir.Model:
    net = Net(name, (batch, tokens), seed=seed, dtype=ir.DataType.INT64)
    x, table = _embedded(net, classes, tokens, 768, types=types)
    form = Form(Width(tokens, 768, 12), 3072, before=False)
    for block in range(depth):
        x = encode(net, x, f"blocks.{block}", form)
    return _head(net, x, table, (768, 768), classes)


def _embedded(
    net: Net, words: int, tokens: int, features: int, *, types: bool, normed: bool = True
) -> tuple[ir.Value, ir.Value]:
    """(N, tokens) -> (N, tokens, features), and the table of words (words, features)."""
    table = net.normal("words", (words, features), 0.02)
    x = net.op("Gather", "embedding", [table, net.x], {"axis": 0})
    position = net.normal("position", (1, tokens, features), 0.02)
    x = net.op("Add", "embedding.position", [x, position])
    if types:
        kind = net.normal("kind", (1, 1, features), 0.02)
        x = net.op("Add", "embedding.kind", [x, kind])
    return (layer_norm(net, x, "embedding.norm", features) if normed else x), table


def _head(
    net: Net, x: ir.Value, table: ir.Value, features: tuple[int, int], classes: int
) -> ir.Model:
    """Scores of all words at each place, of which the first place's are the result."""
    x = net.op("Gelu", "head.gelu", [project(net, x, "head", features)])
    x = layer_norm(net, x, "head.norm", features[1])
    words = net.op("Transpose", "head.words", [table], {"perm": (1, 0)})
    scores = net.op("MatMul", "scores", [x, words])
    scores = net.op("Add", "scores.add_bias", [scores, net.filled("scores.bias", (classes,))])
    return net.finish(pick(net, scores, "masked"), classes)


class _Shared(Net):
    """A net whose names may come ``again``: nodes get a suffix, parameters are shared."""

    def __init__(
        self, name: str, shape: tuple[int | None, ...], *, seed: int, dtype: ir.DataType
    ) -> None:
        super().__init__(name, shape, seed=seed, dtype=dtype)
        self.again = ""
        self._known: dict[str, ir.Value] = {}

    def op(
        self,
        op_type: str,
        name: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """As :meth:`Net.op`, under a name of this repetition."""
        return super().op(op_type, f"{name}{self.again}", inputs, attributes)

    def _parameter(
        self, name: str, shape: tuple[int, ...], values: Callable[[], Array]
    ) -> ir.Value:
        if name not in self._known:
            self._known[name] = super()._parameter(name, shape, values)
        return self._known[name]
