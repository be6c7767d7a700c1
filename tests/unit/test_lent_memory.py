"""Memory of an arena that others read in: when who made a tensor has it back."""

from __future__ import annotations

import numpy as np

from coexec.base.pages import PAGE
from coexec.core.program import Instruction, Write
from coexec.core.types import TensorType
from coexec.runtime.lent_memory import Lent, LentMemory
from coexec.runtime.returns import Returns

KIND = TensorType((4,), np.dtype(np.float32))


def lent(*, meet: bool) -> tuple[LentMemory, Returns, list[Instruction]]:
    """``b`` has read tensor ``t``, which region 0 of ``a`` has made, in its first launch."""
    instructions: list[Instruction] = []
    held = {("t", "a"): "t@a", ("t", "b"): "t@b", ("u", "b"): "u@b"}
    returns = Returns(instructions, {"t": KIND, "u": KIND}, held)
    found = LentMemory(returns, {"a"}, meet=meet)
    found.lend("a", "t", "t@a", 16, 0)
    found.lend("b", "u", "u@b", 16, 0)
    returns.launched("a", ())
    returns.launched("b", ())
    returns.tell("t", "b")
    return found, returns, instructions


def waits(instructions: list[Instruction]) -> list[str]:
    return [step.buffer for step in instructions if isinstance(step, Write)]


def test_what_is_not_read_yet_stays_lent_and_others_lend_nothing() -> None:
    memory, _, instructions = lent(meet=False)
    memory.take_back("a", 1)
    memory.take_back("b", 1)
    assert memory.blocks() == {"a": [Lent("t@a", PAGE, 0, None)]}
    assert not waits(instructions)


def test_who_never_meets_others_waits_for_them_before_its_next_region() -> None:
    memory, _, instructions = lent(meet=False)
    memory.was_read("a", "t@a", {"b": 1}, 0)
    memory.take_back("a", 3)
    memory.take_back("a", 4)
    assert memory.blocks() == {"a": [Lent("t@a", PAGE, 0, 2)]}
    assert waits(instructions) == ["t@a"]


def test_who_meets_others_has_its_memory_back_once_they_have_met_again() -> None:
    memory, returns, instructions = lent(meet=True)
    returns.met["a"] = 5
    memory.was_read("a", "t@a", {"b": 1}, 5)
    memory.take_back("a", 1)
    assert not waits(instructions)
    returns.met["a"] = 6
    memory.take_back("a", 2)
    assert memory.blocks() == {"a": [Lent("t@a", PAGE, 0, 1)]}
    assert waits(instructions) == ["t@a"]


def test_nobody_waits_for_what_is_known_by_a_later_tensor() -> None:
    memory, returns, instructions = lent(meet=True)
    memory.was_read("a", "t@a", {"b": 1}, 5)
    returns.sent("u", "b")
    returns.came("u", "a")
    memory.take_back("a", 1)
    assert memory.blocks() == {"a": [Lent("t@a", PAGE, 0, 0)]}
    assert not waits(instructions)
