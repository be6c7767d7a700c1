"""Inputs of a run: which of them lie in memory of the host that processors read."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.program import INPUT, BufferSpec, Program, Write
from coexec.core.types import TensorType
from coexec.runtime.run import Binding, Run

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


def test_a_part_of_an_input_is_copied_to_where_it_is_read_and_not_again_in_the_run() -> None:
    """The whole input stays what others cut theirs out of."""
    parts = [Write("x", "first@cpu", (1, 0, 2)), Write("x", "second@gpu", (1, 2, 3))]
    bound = binding(*parts, memory={"first@cpu": 32, "second@gpu": 16})
    assert bound.placed(FEEDS)["x"] is FEEDS["x"]
    first, second = (bound.memory[write.buffer].view(np.float32) for write in parts)
    np.testing.assert_array_equal(first.reshape(4, 2), FEEDS["x"][:, :2])
    np.testing.assert_array_equal(second.reshape(4, 1), FEEDS["x"][:, 2:])
    Run(bound, FEEDS, set(), None).follow(parts)  # there is no processor that could be asked


def test_two_processors_that_read_the_same_part_both_have_it() -> None:
    parts = [Write("x", f"part@{name}", (0, 1, 3)) for name in ("cpu", "gpu")]
    bound = binding(*parts, memory={part.buffer: 24 for part in parts})
    bound.placed(FEEDS)
    for part in parts:
        found = bound.memory[part.buffer].view(np.float32).reshape(2, 3)
        np.testing.assert_array_equal(found, FEEDS["x"][1:3])


def test_what_is_no_input_stays_where_it_is() -> None:
    bound = binding(Write("t#staged", "t@cpu"), memory={"t@cpu": X.nbytes})
    assert bound.placed(FEEDS) == FEEDS
