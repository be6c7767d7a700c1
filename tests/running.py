"""Running single operator calls on a processor: what kernel and operator tests share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coexec.core.processor import Buffer, Executable, Processor
from coexec.core.types import Array, OpCall, Region
from coexec.ops.opdef import OpDef

HALF = np.dtype(np.float16)


def run_region(
    processor: Processor, region: Region, executable: Executable, values: dict[str, Array]
) -> list[Array]:
    """Run a compiled region on fresh buffers filled with a poison pattern."""
    buffers: list[Buffer] = [
        _filled(processor, np.ascontiguousarray(values[name])) for name in executable.inputs
    ]
    for name in executable.outputs:
        kind = region.types[name]
        buffers.append(_filled(processor, np.full(kind.nbytes, 0xA5, np.uint8)))
    if executable.scratch_bytes:
        poison = np.full(executable.scratch_bytes, 0xA5, np.uint8)
        buffers.append(_filled(processor, poison))
    ticket = processor.submit(executable, buffers, ())
    processor.wait(ticket)
    first = len(executable.inputs)
    return [
        _read(processor, buffers[first + i], region.types[name].shape, region.types[name].dtype)
        for i, name in enumerate(executable.outputs)
    ]


def run_call(processor: Processor, call: OpCall, operands: Sequence[Array | None]) -> list[Array]:
    """Outputs of ``call`` on ``processor``."""
    region = Region.alone(call)
    values = {f"x{i}": value for i, value in enumerate(operands) if value is not None}
    return run_region(processor, region, processor.compile(region), values)


def _filled(processor: Processor, array: Array) -> Buffer:
    buffer = processor.alloc(array.nbytes)
    processor.wait(processor.copy(buffer, array, ()))
    return buffer


def _read(
    processor: Processor, buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> Array:
    result = np.empty(shape, dtype)
    processor.wait(processor.copy(result, buffer, ()))
    return result


def expected_outputs(op: OpDef, call: OpCall, operands: Sequence[Array | None]) -> list[Array]:
    """The reference in float64 for float operands, in the call's own types otherwise."""
    wide = [as_float(operand, "float64") for operand in operands]
    results = op.reference(call, wide)
    return [
        np.asarray(result).astype(kind.dtype)
        for result, kind in zip(results, call.outputs, strict=False)
        if kind is not None
    ]


def as_float(operand: Array | None, dtype: str) -> Array | None:
    """A float operand in another float type; integers, booleans and absent ones as they are."""
    return operand.astype(dtype) if operand is not None and operand.dtype.kind == "f" else operand


def assert_agrees(
    op: OpDef, call: OpCall, actual: Sequence[Array], expected: Sequence[Array]
) -> None:
    """Outputs of ``call`` within the tolerance that the operator has for the call's types."""
    half = any(kind is not None and kind.dtype == HALF for kind in call.inputs + call.outputs)
    relative = op.tolerance.half_relative if half else op.tolerance.relative
    absolute = op.tolerance.half_absolute if half else op.tolerance.absolute
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, relative, absolute)


def assert_close(actual: Array, expected: Array, relative: float, absolute: float) -> None:
    """Equal shape, type and (within tolerance) values; booleans and integers exactly."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if actual.dtype.kind in "biu":
        np.testing.assert_array_equal(actual, expected)
        return
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), np.asarray(expected, np.float64), relative, absolute
    )
