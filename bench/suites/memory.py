"""Work that memory bounds: bytes per second of the least traffic, beside streaming's.

The least traffic is every operand read once and every result written once. What must go over its
data twice (statistics before normalising) can reach the streaming rate only as far as a piece of
the data that it needs again stays in a cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from bench.case import KEEP_MEMORY, Case, Suite
from bench.operands import operand

FLOAT = 4
IMAGE = (32, 64, 56, 56)
TOKENS = (16 * 197, 768)
SCORES = (16 * 12 * 197, 197)
PARAMETERS = (4 << 20,)
POOLED = {"2x2/2": (2, 2, 0), "3x3/2": (3, 2, 1)}
"""Kernel, stride and padding, on both axes."""


def _case(
    name: str,
    kind: str,
    operands: Mapping[str, Any],
    written: int,
    quick: bool = False,
    **spec: Any,
) -> Case:
    """``written`` counts the elements of the results."""
    read = sum(prod(entry["shape"]) for entry in operands.values())
    group = "backward" if kind.endswith("backward") else "forward"
    group = "update" if kind.startswith("update") else group
    moved = FLOAT * (read + written)
    return Case(name, kind, {"operands": operands, **spec}, group, 0, moved, quick)


def _norms() -> list[Case]:
    channels, features = (IMAGE[1],), (TOKENS[1],)
    image, tokens = prod(IMAGE), prod(TOKENS)
    scale, bias = operand(channels, 0.5, 1.5), operand(channels)
    running = {"mean": operand(channels), "variance": operand(channels, 0.5, 1.5)}
    return [
        _case(
            "batch norm, forward",
            "batch_norm.forward",
            {"x": operand(IMAGE), "scale": scale, "bias": bias, **running},
            image,
            quick=True,
        ),
        _case(
            "batch norm, backward",
            "batch_norm.backward",
            {"x": operand(IMAGE), "scale": scale, "dy": operand(IMAGE)},
            image,
            quick=True,
        ),
        _case(
            "layer norm, forward",
            "layer_norm.forward",
            {"x": operand(TOKENS), "scale": operand(features, 0.5, 1.5), "bias": operand(features)},
            tokens,
            quick=True,
        ),
        _case(
            "layer norm, backward",
            "layer_norm.backward",
            {"x": operand(TOKENS), "scale": operand(features, 0.5, 1.5), "dy": operand(TOKENS)},
            tokens,
        ),
        _case("softmax, forward", "softmax.forward", {"x": operand(SCORES, -3, 3)}, prod(SCORES)),
        _case(
            "softmax, backward",
            "softmax.backward",
            {"dy": operand(SCORES), "y": operand(SCORES, 0, 0.01)},
            prod(SCORES),
        ),
    ]


def _pools() -> list[Case]:
    cases = []
    for pool in ("max", "average"):
        for text, (kernel, stride, pad) in POOLED.items():
            size = (IMAGE[2] + 2 * pad - kernel) // stride + 1
            small = (*IMAGE[:2], size, size)
            window = {"kernel": kernel, "stride": stride, "pad": pad, "in_shape": IMAGE}
            x, dy = operand(IMAGE), operand(small)
            backward = {"x": x, "dy": dy} if pool == "max" else {"dy": dy}
            name, kind = f"{pool} pool {text}", f"{pool}_pool"
            quick = pool == "max" and pad == 0
            cases += [
                _case(
                    f"{name}, forward", f"{kind}.forward", {"x": x}, prod(small), quick, **window
                ),
                _case(
                    f"{name}, backward", f"{kind}.backward", backward, prod(IMAGE), quick, **window
                ),
            ]
    small = (*IMAGE[:2], 1, 1)
    cases += [
        _case("global pool, forward", "global_pool.forward", {"x": operand(IMAGE)}, prod(small)),
        _case(
            "global pool, backward",
            "global_pool.backward",
            {"dy": operand(small)},
            prod(IMAGE),
            in_shape=IMAGE,
        ),
    ]
    return cases


def _chains() -> list[Case]:
    """y = relu(x u + v) and its gradients for x and u."""
    image = prod(IMAGE)
    x, u = operand(IMAGE), operand(IMAGE)
    return [
        _case(
            "relu(x u + v), forward",
            "chain.forward",
            {"x": x, "u": u, "v": operand(IMAGE)},
            image,
            quick=True,
        ),
        _case(
            "relu(x u + v), backward",
            "chain.backward",
            {"x": x, "u": u, "y": operand(IMAGE), "dy": operand(IMAGE)},
            2 * image,
        ),
    ]


def _updates() -> list[Case]:
    state = {"x": operand(PARAMETERS), "g": operand(PARAMETERS), "m": operand(PARAMETERS)}
    size = prod(PARAMETERS)
    return [
        _case("SGD with momentum", "update.momentum", state, 2 * size, quick=True),
        _case(
            "Adam",
            "update.adam",
            {**state, "s": operand(PARAMETERS, 0.1, 1.0)},
            3 * size,
            quick=True,
        ),
    ]


SUITE = Suite(
    "memory",
    "Memory-bound work (GB/s of the least traffic)",
    (*_norms(), *_pools(), *_chains(), *_updates()),
    environment=KEEP_MEMORY,
    roof="bytes",
)
