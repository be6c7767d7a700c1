"""Random training steps in shares: nobody waits in a circle, no memory is taken over too early.

COEXEC_STRESS=1000 asks for that many of them.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace

import pytest

from coexec.core.processor import ProcessorSpec, Runner
from coexec.core.program import MEETING, SCRATCH, Program, Write
from coexec.passes import order_for_memory
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.runtime import partition
from coexec.steps.resident import ResidentPrograms
from tests.program_course import BACK, check_course
from tests.random_steps import RandomStep, random_step, set_limits

STEPS = int(os.environ.get("COEXEC_STRESS", "40"))
AT_ONCE = 20


class Meeting(ReferenceProcessor):
    """The reference, as if its operators could wait for those of another one, if ``able``.

    If it ``lends``, others read in its arena.
    """

    def __init__(self, name: str, *, able: bool, lends: bool) -> None:
        super().__init__()
        self.name, self.able, self.lends = name, able, lends

    def describe(self) -> ProcessorSpec:
        return ProcessorSpec(self.name, "cpu", "test")

    def meets(self, other: Runner) -> bool:
        return self.able

    def sees_host_memory(self) -> bool:
        return self.lends


def lowered(step: RandomStep, there: dict[str, Meeting]) -> Program:
    graph = replace(step.graph, model=step.graph.model.clone())
    return ResidentPrograms(there, follow=step.plan).lower("step", graph, builds=False).program


@pytest.mark.parametrize("first", range(0, STEPS, AT_ONCE))
def test_random_steps_come_to_an_end_and_nothing_is_overwritten_before_it_is_read(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "LIGHT_BYTES", partition.LIGHT_BYTES)
    monkeypatch.setattr(order_for_memory, "SMALL", order_for_memory.SMALL)
    seen: Counter[str] = Counter()
    for seed in range(first, first + AT_ONCE):
        dice = random.Random(seed)
        set_limits(dice)
        able, parts = dice.random() < 0.8, dice.choice((2, 2, 3))
        lends = seed % 4 > 0
        there = {name: Meeting(name, able=able, lends=lends) for name in "abc"[:parts]}
        step = random_step(dice, there, parts)
        program = lowered(step, there)
        try:
            check_course(program, step.graph.state)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        seen["meets"] += any(buffer.role == MEETING for buffer in program.buffers)
        writes = [each for each in program.instructions if isinstance(each, Write)]
        seen["takes over"] += any(BACK in each.tensor for each in writes)
        seen["in arenas"] += any(is_scratch(program, each.shares) for each in program.buffers)
    assert min(seen.values()) > AT_ONCE / 4


def is_scratch(program: Program, name: str) -> bool:
    return any(each.name == name and each.role == SCRATCH for each in program.buffers)
