"""What tells one operator call from another as far as its time is concerned, as text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from coexec.core.types import OpCall

FEW = 64
"""Constants of so many elements (shapes, axes) count by value, larger ones (weights) by type."""
KEY = "cost"
"""Which of a call's texts it is."""


def call_key(call: OpCall) -> str:
    """The same for calls of equal operator, version, attributes, types, and small constants.

    A weight that is known before running may be prepared once, so that it matters which operands
    are constants, but not what is in them.
    """
    if KEY not in call.memo:
        call.memo[KEY] = " ".join(_parts(call))
    return call.memo[KEY]


def _parts(call: OpCall) -> Iterator[str]:
    yield f"{call.identifier}-{call.version}"
    for name in sorted(call.attributes):
        yield f"{name}={_value_text(call.attributes[name])}"
    for position, kind in enumerate(call.inputs):
        constant = call.constants.get(position)
        if kind is None:
            yield "-"
        elif constant is None:
            yield str(kind)
        elif constant.size <= FEW:
            yield f"{kind}={_value_text(constant)}"
        else:
            yield f"{kind}=constant"
    yield "->"
    yield from ("-" if kind is None else str(kind) for kind in call.outputs)


def _value_text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        return digest.hexdigest()[:12]
    if isinstance(value, tuple):
        return ",".join(map(_value_text, value))
    return str(value).replace(" ", "_")
