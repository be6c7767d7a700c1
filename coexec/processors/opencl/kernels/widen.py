"""Operands of 16 bits as float32 in scratch, for kernels that read them one element at a time.

A vector of 16-bit numbers is widened by one instruction, a single one by three or four: products
whose inner loop broadcasts elements of an operand take three times as long on it. It is widened
before, which is done once where it never changes.
"""

from __future__ import annotations

import numpy as np

from coexec.processors.opencl.family import KernelCall, Operand, c_type, ceil_to, i32
from coexec.processors.opencl.kernels.products import accumulator

WIDTH, LOCAL = 16, 16
"""Elements of a work-item, work-items of a group."""


def is_narrow(dtype: np.dtype[np.generic]) -> bool:
    """Whether sums of this type are kept in a wider one."""
    return accumulator(dtype) != dtype.name


def widened_bytes(size: int, dtype: np.dtype[np.generic]) -> int:
    """Of so many elements in the type of sums."""
    return size * np.dtype(accumulator(dtype)).itemsize


def widen(source: Operand, size: int, dtype: np.dtype[np.generic], to: Operand) -> KernelCall:
    """The kernel that writes ``size`` elements of ``source`` to ``to`` in the type of sums."""
    sums = np.dtype(accumulator(dtype))
    return KernelCall(
        family="cast",
        entry="cast",
        args=(source, to, i32(size)),
        global_size=(ceil_to(-(-size // WIDTH), LOCAL),),
        local_size=(LOCAL,),
        defines={"T": c_type(dtype), "U": c_type(sums), "W": WIDTH},
        bytes=size * (dtype.itemsize + sums.itemsize),
        layout=True,
    )
