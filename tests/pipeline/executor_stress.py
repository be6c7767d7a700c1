"""Runs random graphs by random plans on real processors, and compares every result to the bit.

``python -m tests.pipeline.executor_stress FIRST COUNT OPTION,.. SPEC..`` in a process of its own: a
driver has its threads on one core only if it began so. Options: ``apart``, as if no device computed
on memory of the host: buffers are mapped and unmapped. Prints how often each way to wait was taken.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyopencl as cl

from coexec.api import LAST_RESORT, open_all
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.processors.opencl import common_memory, mapping
from coexec.processors.opencl.flags import Flags
from coexec.processors.ort.flags import OrtFlags
from coexec.runtime.executor import Executor
from coexec.runtime.lower import lower
from coexec.runtime.lowering import Lowering
from tests.graphs import evaluate
from tests.random_graphs import random_model

POISON = 0xA5
SIZES = (5, 20_011)
"""Of vectors: work that is over at once, and work that still runs when others are told of it."""
ROUNDS = 3


def counted(counts: Counter[str], owner: Any, name: str, kind: str) -> None:
    """Count calls of a function or method under a name."""
    whole: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        counts[kind] += 1
        return whole(*arguments, **named)

    setattr(owner, name, call)


def poisoned(processor: Processor) -> None:
    """Memory that the processor gives out or takes over is never clean."""
    alloc, adopt = processor.alloc, processor.adopt

    def dirty(nbytes: int) -> Any:
        buffer = alloc(nbytes)
        processor.wait(processor.copy(buffer, np.full(nbytes, POISON, np.uint8), ()))
        return buffer

    def dirty_host(memory: Any) -> Any:
        memory[:] = POISON
        return adopt(memory)

    for name, function in (("alloc", dirty), ("adopt", dirty_host)):
        setattr(processor, name, function)


def run(seed: int, on: dict[str, Processor]) -> bool:
    """A graph by a plan, in several rounds; whether several processors had a part.

    Raises:
        AssertionError: a result is not that of the operators, one after the other.
    """
    dice = random.Random(seed)
    size = dice.choice(SIZES)
    model = random_model(dice, size)
    names = [name for name in on if name != LAST_RESORT]
    plan = {str(node.name): dice.choice(names) for node in model.graph}
    # Half of the programs write tensors between processors where others were.
    how = Lowering(Plan(plan), on, reuses=dice.random() < 0.5)
    executor = Executor(lower(model.graph, how), on)
    for number in range(ROUNDS):
        rng = np.random.default_rng([seed, number])
        feeds = {n: rng.standard_normal(size).astype(np.float32) for n in ("a", "b")}
        feeds = {str(v.name): feeds[str(v.name)] for v in model.graph.inputs}
        found = executor.run(feeds)
        for name, expected in evaluate(model, feeds).items():
            np.testing.assert_array_equal(
                found[name], expected, err_msg=f"seed {seed}, round {number}: {name}"
            )
    return len(set(plan.values())) > 1


def main() -> None:
    """Seeds from ``FIRST`` on."""
    first, count, options, *specs = sys.argv[1:]
    counts: Counter[str] = Counter()
    if "apart" in options.split(","):
        setattr(common_memory, "is_host_memory", lambda *_: False)  # noqa: B010
    counted(counts, Flags, "wait_for", "flag")
    counted(counts, OrtFlags, "wait_for", "flag")
    counted(counts, cl, "UserEvent", "event")
    counted(counts, mapping, "_map", "map")
    on = open_all(specs)
    for processor in on.values():
        poisoned(processor)
    for seed in range(int(first), int(first) + int(count)):
        counts["divided"] += run(seed, on)
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
