"""Softmax along the innermost axis on GPUs: work-items side by side share a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coexec.processors.opencl.broadcast import power_of_two
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import KernelCall, Operand, c_type, ceil_to, i32

LEAST_OF_LANE = 4
"""Elements of a line for each of the work-items that share it, about."""
SPACE: Mapping[str, tuple[int, ...]] = {"LOCAL": (64, 128, 256, 32)}
"""Work-items of a group."""


def group_call(
    operands: tuple[Operand, ...],
    target: Operand,
    dtype: np.dtype[Any],
    lines: int,
    length: int,
    kind: int,
    params: Mapping[str, int],
) -> KernelCall:
    """``groups`` of one operand (lines, length), or ``grad_groups`` of two, into ``target``."""
    lanes = min(params["LOCAL"], power_of_two(-(-length // LEAST_OF_LANE)))
    together = min(params["LOCAL"] // lanes, power_of_two(lines))
    return KernelCall(
        family="softmax_groups",
        entry="groups" if len(operands) == 1 else "grad_groups",
        args=(*operands, target, i32(lines), i32(length)),
        global_size=(lanes, ceil_to(lines, together)),
        local_size=(lanes, together),
        defines={
            "T": c_type(dtype),
            "C": compute_type(dtype),
            "LANES": lanes,
            "LINES": together,
            "KIND": kind,
        },
    )
