"""Inputs of a run: which of them lie in memory of the host that several processors read."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.program import INPUT, BufferSpec, Program, Write
from coexec.core.types import TensorType
from coexec.runtime.run import Binding

X = TensorType((4, 3), np.dtype(np.float32))
FEEDS = {"x": np.arange(12, dtype=np.float32).reshape(X.shape)}


def binding(*writes: Write, memory: dict[str, int]) -> Binding:
    """A program of ``writes`` alone; ``memory`` has the bytes of the buffers in common memory."""
    buffers = tuple(BufferSpec(write.buffer, "cpu", X.nbytes, INPUT) for write in writes)
    program = Program(writes, (), buffers, ("x",), (), (), {"x": X, "t#staged": X})
    common = {name: np.zeros(nbytes, np.uint8) for name, nbytes in memory.items()}
    return Binding(program, {}, {}, {}, memory=common)


@pytest.mark.parametrize("others", [(), (Write("x", "x@gpu"),)])
def test_an_input_that_several_read_in_common_memory_is_copied_there(
    others: tuple[Write, ...],
) -> None:
    bound = binding(Write("x", "x@cpu"), *others, memory={"x@cpu": X.nbytes})
    placed = bound.placed(FEEDS)["x"]
    np.testing.assert_array_equal(placed, FEEDS["x"])
    assert np.shares_memory(placed, bound.memory["x@cpu"])


def test_a_part_of_an_input_in_common_memory_is_not_where_the_whole_one_fits() -> None:
    part = Write("x", "half@cpu", (0, 0, 2))
    bound = binding(part, memory={"half@cpu": X.nbytes // 2})
    assert bound.placed(FEEDS)["x"] is FEEDS["x"]
    assert not bound.memory["half@cpu"].any()


def test_what_is_no_input_stays_where_it_is() -> None:
    bound = binding(Write("t#staged", "t@cpu"), memory={"t@cpu": X.nbytes})
    assert bound.placed(FEEDS) == FEEDS
