"""Kernels of a GPU one by one: files like ``gpu_ops_tflite.csv``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from coexec.core.soc_file import soc_in
from coexec.cost.calibration.left_out import NO_CHIP, NO_TIME, LeftOut, divided
from coexec.cost.calibration.sample import Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.soc.workload import (
    CONV,
    DENSE,
    DEPTHWISE,
    GROUPED,
    MOVE,
    POOL,
    REDUCE,
    Workload,
)

DATASET = "gpu_ops_tflite"
COLUMNS = (
    "model", "operation", "in_hw", "in_c", "out_hw", "out_c", "kernel", "stride", "group", "flops",
    "soc", "gpu_kernel", "latency_us", "op_row",
)  # fmt: skip
FAMILY = {
    "CONV_2D": CONV,
    "CONV_2D_GROUP": GROUPED,
    "DEPTHWISE_CONV_2D": DEPTHWISE,
    "FULLY_CONNECTED": DENSE,
    "MAX_POOL_2D": POOL,
    "AVERAGE_POOL_2D": REDUCE,
    "MEAN": REDUCE,
    "CONCATENATION": MOVE,
}
OPERANDS = ("_add_", "_mul_")
"""Parts of a fused kernel's name that stand for an operator with another tensor."""


NO_OPERATION = "no such operator is predicted"


def read_kernels(folder: Path) -> tuple[list[Sample], list[LeftOut]]:
    """Samples, and rows of chips and operators that nothing is known of, or without a time.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder / f"{DATASET}.csv"
    if not path.exists():
        return [], []
    return divided(_sample(row) for row in read_rows(path, COLUMNS))


def read_shapes(folder: Path) -> dict[str, tuple[Workload, ...]]:
    """Operators of each network in order, from the rows of any one chip.

    A network with an operator that nothing is known of is left out as a whole.
    """
    path = folder / f"{DATASET}.csv"
    if not path.exists():
        return {}
    found: dict[str, dict[str, Workload | None]] = defaultdict(dict)
    for row in read_rows(path, COLUMNS):
        found[row.text("model")].setdefault(row.text("op_row"), _workload(row))
    complete: dict[str, tuple[Workload, ...]] = {}
    for model, calls in found.items():
        known = tuple(call for call in calls.values() if call is not None)
        if len(known) == len(calls):
            complete[model] = known
    return complete


def _sample(row: Row) -> Sample | LeftOut:
    model, soc, time = row.text("model"), soc_in(row.text("soc")), row.time("latency_us")
    call = _workload(row)
    if call is None:
        return row.left_out(NO_OPERATION, row.text("operation"))
    if soc is None or soc.gpu is None:
        return row.left_out(NO_CHIP, row.text("soc"))
    if time is None:
        return row.left_out(NO_TIME, model)
    return Sample(DATASET, model, soc, "gpu", "float16", "tflite", time, (call,), whole=False)


def _flop(row: Row) -> float:
    flop = row.number("flops", 0)
    if flop < 0:
        raise row.error("flops", "a number of at least 0 is wanted")
    return flop


def _workload(row: Row) -> Workload | None:
    """Sizes of a row, None if nothing is known of its operation.

    What the file leaves out (``-``) follows from that.
    """
    operation = row.text("operation")
    if operation not in FAMILY:
        return None
    family = FAMILY[operation]
    inputs, outputs = row.positive("in_c"), row.positive("out_c", 1)
    side, out_side = row.positive("in_hw", 1), row.positive("out_hw", 1)
    kernel, stride = max(row.number("kernel", 1), 1.0), row.positive("stride", 1)
    groups = row.positive("group", 1)
    if family == DEPTHWISE:  # the file has the number of outputs per input
        outputs, groups = inputs * outputs, inputs
    elif family in {POOL, REDUCE}:
        outputs = inputs
    if operation == "MEAN":  # the file has the number of channels
        out_side = 1.0
    if family == CONV and side == out_side == 1:
        family = DENSE
    weighted = family in {CONV, GROUPED, DENSE, DEPTHWISE}
    pixels = out_side**2
    fused = sum(row.text("gpu_kernel").count(name) for name in OPERANDS)
    return Workload(
        family=family,
        flop=_flop(row),
        in_elements=side**2 * inputs,
        out_elements=pixels * outputs,
        weights=kernel**2 * inputs / groups * outputs if weighted else 0,
        others=float(min(fused, 1)) * pixels * outputs,
        out_pixels=pixels,
        in_channels=inputs,
        out_channels=outputs,
        kernel=kernel,
        stride=stride,
        groups=groups,
    )
