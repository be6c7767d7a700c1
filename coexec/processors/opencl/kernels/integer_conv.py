"""Convolutions of bytes with channels last, by dot products of words of four."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Variant,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.fusion.integer_operators import (
    CONV,
    LANES,
    WORD,
    IntegerLayer,
    layer_of,
    stored_channels,
    work,
)
from coexec.processors.opencl.kernels import integer_depthwise
from coexec.processors.opencl.kernels.integer_epilogue import epilogue
from coexec.processors.opencl.kernels.window import Window

REGISTERS = 24
"""Vectors of sums of a tile; weights and an operand take a few more of the 32."""
LONGEST_TILE = 14
TILE_COST = 1.5
"""What a tile costs beside its positions, in positions: weights are read again."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per byte of the result."""
    own, local = layer_of(call), params["LOCAL"]
    w, size = Window.of(own.core), call.output(0).size
    more, values, defines = epilogue(own, inp(4))
    geometry = (
        *(own.steps[0].zero, size, *w.in_size[1:], call.input(0).shape[-1]),
        *(*w.out_size[1:], call.output(0).shape[-1], w.out_channels, w.inner, w.outer),
        *(*w.kernel[1:], *w.strides[1:], *w.pads[1:], *w.dilations[1:]),
    )
    kernel = KernelCall(
        "integer_conv",
        "convolve_naive",
        (*map(inp, range(4)), out(0), *more, *values, *map(i32, geometry)),
        (ceil_to(size, local),),
        (local,),
        defines,
    )
    return Lowering((kernel,))


def applies_dots(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why dot products do not compute a convolution, else ``None``."""
    window = Window.of(layer_of(call).core)
    if window.groups > 1:
        return "channels of their own: nothing to sum over four of"
    if not call.output(0).size or call.output(0).shape[-1] % LANES:
        return f"fewer channels than {LANES} are stored"
    return applies(call, facts)


@dataclass(frozen=True)
class Lines:
    """What a tile walks over: lines of positions, in words of four channels."""

    batch: int
    height: int
    width: int
    words: int
    image: int
    line: int
    stride: int
    position: int

    @classmethod
    def of(cls, window: Window, wide: tuple[int, int]) -> Lines:
        """Of an input of ``wide`` height and width; all of it is one line where nothing is left."""
        words = stored_channels(window.in_channels) // WORD
        if window.pointwise:
            count = window.batch * window.pixels
            return cls(1, 1, count, words, 0, 0, 0, words)
        line = wide[1] * words
        return cls(
            window.batch,
            window.out_size[1],
            window.out_size[2],
            words,
            wide[0] * line,
            line,
            window.strides[1] * line,
            window.strides[2] * words,
        )


def vectors_of(channels: int) -> int:
    """Vectors of channels of a work-item: the most that divide those of a position."""
    count = channels // LANES
    return next(number for number in (4, 3, 2, 1) if count % number == 0)


def tile_of(width: int, vectors: int) -> int:
    """Positions of a tile: as many as registers hold, with few that are computed twice."""
    most = min(REGISTERS // vectors, LONGEST_TILE, width)
    return min(range(most, 0, -1), key=lambda tile: -(-width // tile) * (tile + TILE_COST))


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    vectors = vectors_of(call.output(0).shape[-1])
    window = Window.of(layer_of(call).core)
    width = window.batch * window.pixels if window.pointwise else window.out_size[2]
    return {"VECS": vectors, "TILE": tile_of(width, vectors)}


def lower_dots(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Weights in words and borders first, then tiles of dot products."""
    own = layer_of(call)
    w, stored = Window.of(own.core), call.output(0).shape[-1]
    vectors = _fitting(params["VECS"], stored)
    wide = tuple(
        max((o - 1) * s + (k - 1) * d + 1, i if not any(w.pads) else 0)
        for o, s, k, d, i in zip(
            w.out_size[1:], w.strides[1:], w.kernel[1:], w.dilations[1:], w.in_size[1:], strict=True
        )
    )
    lines = Lines.of(w, (wide[0], wide[1]))
    tile = min(params["TILE"], lines.width)
    defines = {
        "VECS": vectors,
        "TILE": tile,
        "VNNI": int(facts.dots == "vnni"),
    }
    words = stored // (LANES * vectors) * w.taps * lines.words * LANES * vectors
    blocks = [words * WORD, stored * 4]
    calls = [_packed(w, lines.words, words, defines), _starts(own, w, stored, defines)]
    source: Operand = inp(0)
    if any(w.pads) or wide != tuple(w.in_size[1:]):
        source = scratch(len(blocks))
        blocks.append(w.batch * wide[0] * lines.line * WORD)
        calls.append(_borders(own, w, lines.words, wide, source, defines))
    more, values, bounds = epilogue(own, inp(4))
    geometry = (
        *(lines.height, lines.width, stored, lines.words, *w.kernel[1:]),
        *(lines.image, lines.stride, lines.position),
        *(w.dilations[1] * lines.line, w.dilations[2] * lines.words),
    )
    tiles = lines.batch * lines.height * -(-lines.width // tile)
    lanes = 1 if facts.dots == "vnni" else LANES
    own_work = work(call)
    args: tuple[Argument, ...] = (source, scratch(0), scratch(1), inp(3), out(0))
    convolution = KernelCall(
        "integer_conv",
        "convolve",
        (*args, *more, *values, *map(i32, geometry)),
        (lanes, tiles, stored // (LANES * vectors)),
        (lanes, 1, 1),
        {**defines, **bounds},
        flop=own_work.flop,
        bytes=own_work.bytes,
    )
    return Lowering((*calls, convolution), tuple(blocks))


def _fitting(vectors: int, stored: int) -> int:
    """As many vectors of channels as asked for, if they divide a position's."""
    return vectors if stored % (LANES * vectors) == 0 else vectors_of(stored)


def _packed(w: Window, words: int, count: int, defines: Mapping[str, int]) -> KernelCall:
    return KernelCall(
        "integer_conv",
        "pack_words",
        (inp(1), scratch(0), *map(i32, (w.out_channels, w.inner, w.taps, words))),
        (count,),
        None,
        defines,
        bytes=2 * count * WORD,
        layout=True,
        prepares=True,
    )


def _starts(own: IntegerLayer, w: Window, stored: int, defines: Mapping[str, int]) -> KernelCall:
    depth = w.inner * w.taps
    return KernelCall(
        "integer_conv",
        "starts",
        (inp(1), inp(2), scratch(1), *map(i32, (w.out_channels, depth, own.steps[0].zero))),
        (stored,),
        None,
        defines,
        bytes=w.out_channels * depth,
        prepares=True,
    )


def _borders(
    own: IntegerLayer,
    w: Window,
    words: int,
    wide: tuple[int, ...],
    target: Operand,
    defines: Mapping[str, int],
) -> KernelCall:
    numbers = (*w.in_size[1:], words, *wide, *w.pads[1:], own.steps[0].zero)
    return KernelCall(
        "integer_conv",
        "borders",
        (inp(0), target, *map(i32, numbers)),
        (w.batch * wide[0],),
        (1,),
        defines,
        bytes=2 * w.batch * wide[0] * wide[1] * words * WORD,
        layout=True,
    )


FAMILY = KernelFamily(
    "integer_conv",
    (CONV.identifier,),
    (
        Variant(
            "dots",
            lower_dots,
            applies_dots,
            space={"VECS": (4, 3, 2, 1), "TILE": (6, 4, 5, 7, 8, 12, 14)},
            suited=suited,
            units=("cpu",),
        ),
        Variant(
            "depthwise",
            integer_depthwise.lower,
            integer_depthwise.applies,
            space={"LOCAL": (1,)},
            units=("cpu",),
        ),
        Variant("naive", lower_naive, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
