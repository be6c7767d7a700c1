"""Single layers from their sizes alone, for measurements of operators."""

from __future__ import annotations

from coexec.cost.soc.workload import CONV, DENSE, Workload


def convolution(batch: int, side: int, inputs: int, outputs: int, kernel: int) -> Workload:
    """A convolution whose output is ``side`` x ``side``; its input counts as of the same size."""
    pixels = batch * side * side
    return Workload(
        family=CONV,
        flop=2.0 * pixels * inputs * outputs * kernel**2,
        in_elements=pixels * inputs,
        out_elements=pixels * outputs,
        weights=kernel**2 * inputs * outputs,
        out_pixels=pixels,
        in_channels=inputs,
        out_channels=outputs,
        kernel=kernel,
    )


def dense(batch: int, inputs: int, outputs: int) -> Workload:
    """A product of matrices: many rows count as pixels of a convolution."""
    return Workload(
        family=DENSE if batch == 1 else CONV,
        flop=2.0 * batch * inputs * outputs,
        in_elements=batch * inputs,
        out_elements=batch * outputs,
        weights=inputs * outputs,
        out_pixels=batch,
        in_channels=inputs,
        out_channels=outputs,
    )
