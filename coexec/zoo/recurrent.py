"""Recurrent networks on short sequences: activities from a phone's sensors, spoken keywords.

Windows of 128 times of 9 channels are those of Anguita et al., "A public domain dataset for human
activity recognition using smartphones", 2013. The keyword spotter is the small GRU of Zhang et al.,
"Hello Edge: keyword spotting on microcontrollers", 2017: 154 units on 25 frames of 10 MFCCs.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import Net, linear, require

ROWS = {"LSTM": 4, "GRU": 3}
"""Gates of a cell."""


def lstm_har(
    batch: int | None = None,
    classes: int = 6,
    *,
    length: int | None = 128,
    channels: int = 9,
    hidden: int = 64,
    seed: int = 0,
) -> ir.Model:
    """(N, length, channels) -> (N, classes); ``length=None`` leaves it symbolic (``L``)."""
    net = _net("lstm_har", batch, length, channels, hidden, seed)
    last = recurrent(net, _time_first(net), "lstm", "LSTM", (channels, hidden))
    return net.finish(linear(net, last, "fc", (hidden, classes)), classes)


def gru_kws(
    batch: int | None = None,
    classes: int = 12,
    *,
    length: int | None = 25,
    channels: int = 10,
    hidden: int = 154,
    seed: int = 0,
) -> ir.Model:
    """(N, length, channels) -> (N, classes); ``length=None`` leaves it symbolic (``L``)."""
    net = _net("gru_kws", batch, length, channels, hidden, seed)
    last = recurrent(net, _time_first(net), "gru", "GRU", (channels, hidden))
    return net.finish(linear(net, last, "fc", (hidden, classes)), classes)


def recurrent(net: Net, x: ir.Value, name: str, cell: str, size: tuple[int, int]) -> ir.Value:
    """(T, N, inputs) to the last hidden state (N, hidden), initialised as PyTorch does it."""
    inputs, hidden = size
    rows, bound = ROWS[cell] * hidden, hidden**-0.5
    w = net.uniform(f"{name}.weight", (1, rows, inputs), bound)
    r = net.uniform(f"{name}.recurrent", (1, rows, hidden), bound)
    b = net.uniform(f"{name}.bias", (1, 2 * rows), bound)
    attributes = {"hidden_size": hidden} | ({"linear_before_reset": 1} if cell == "GRU" else {})
    outputs = 3 if cell == "LSTM" else 2
    last = net.ops(cell, name, [x, w, r, b], attributes, outputs=outputs)[1]
    axes = net.constant(f"{name}.axes", [0], "int64")
    return net.op("Squeeze", f"{name}.last", [last, axes])


def _net(
    name: str, batch: int | None, length: int | None, channels: int, hidden: int, seed: int
) -> Net:
    require(channels > 0 and hidden > 0, "channels and hidden must be positive")
    return Net(name, (batch, "L" if length is None else length, channels), seed=seed)


def _time_first(net: Net) -> ir.Value:
    return net.op("Transpose", "time_first", [net.x], {"perm": [1, 0, 2]})
