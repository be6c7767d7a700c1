"""On which cores the caller's thread waits for processors that have cores of their own.

Where processors occupy all cores, that thread is on one of theirs: as long as it hands work over,
the processor there cannot begin, and when it wakes, that processor cannot go on. Left to the
system, that is now one of them and now another one. So it is tied to the cores of the first, which
is given its work last. Once that one has ended, the caller may wait awake for the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coexec.base.cores import Core, cores_of
from coexec.core.processor import Runner
from coexec.core.program import Launch, Program
from coexec.runtime.lane_run import Sides


@dataclass(frozen=True)
class Home:
    """``order`` are the processors as they are waited for, ``cores`` those of the first of them.

    No cores: it is left to the system where the caller's thread is, or it computes itself.
    ``brief`` is whether each processor is given one region, so that nobody waits for another one.
    """

    order: tuple[str, ...]
    cores: tuple[Core, ...]
    brief: bool

    @property
    def cores_of_run(self) -> tuple[Core, ...]:
        """Cores of the caller's thread from the begin of a run on."""
        return self.cores if self.brief else ()


def home_of(program: Program, runners: Mapping[str, Runner], sides: Sides) -> Home:
    """Where the caller of a program on several processors (``runners`` by name) is."""
    launches = [step for step in program.instructions if isinstance(step, Launch)]
    owners = [program.executables[step.executable].processor for step in launches]
    if sides.here is not None or not sides.disjoint or not owners:
        order = sorted(runners, key=lambda name: runners[name] is not sides.here)
        return Home(tuple(order), (), brief=False)
    order = sorted(runners, key=lambda name: name != owners[0])
    cores = cores_of(runners[owners[0]].describe().resources)
    return Home(tuple(order), cores, brief=len(owners) == len(set(owners)))
