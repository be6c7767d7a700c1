"""Attributes of the optimizer steps of ONNX's training domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coexec.core.types import OpCall


@dataclass(frozen=True)
class Hyper:
    """The attributes of a step; ONNX requires those without a default there."""

    alpha: float = 0.0
    beta: float = 0.0
    epsilon: float = 0.0
    norm: float = 0.0
    norm_post: float = 0.0
    decay: float = 0.0
    nesterov: bool = False


def hyper_of(call: OpCall) -> Hyper:
    """Attributes with ONNX's defaults; ``ValueError`` for one that is missing or unknown."""
    if call.op_type == "Momentum":
        mode = _required(call, "mode")
        if mode not in ("standard", "nesterov"):
            raise ValueError(f"Momentum: mode must be standard or nesterov, got {mode!r}")
        return Hyper(
            alpha=float(_required(call, "alpha")),
            beta=float(_required(call, "beta")),
            norm=float(_required(call, "norm_coefficient")),
            nesterov=mode == "nesterov",
        )
    norm = float(call.attribute("norm_coefficient", 0.0))
    epsilon = float(call.attribute("epsilon", 1e-6))
    if call.op_type == "Adagrad":
        return Hyper(epsilon=epsilon, norm=norm, decay=float(call.attribute("decay_factor", 0.0)))
    return Hyper(
        alpha=float(call.attribute("alpha", 0.9)),
        beta=float(call.attribute("beta", 0.999)),
        epsilon=epsilon,
        norm=norm,
        norm_post=float(call.attribute("norm_coefficient_post", 0.0)),
    )


def _required(call: OpCall, name: str) -> Any:
    value = call.attribute(name)
    if value is None:
        raise ValueError(f"{call.op_type}: attribute {name} is missing")
    return value
