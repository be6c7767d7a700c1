"""Trains random networks by random plans on two real processors, and runs others again and again.

``python -m tests.pipeline.meeting_stress KIND FIRST COUNT SPEC SPEC`` in a process of its own: a
driver has its threads on one core only if it began so. Kinds: ``steps``, beside one processor
alone, with a step in between whose loss is not finite; ``runs``, with other inputs and outputs
each time, after which one fails midway. Prints how often each happened.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

import coexec
from coexec.api import LAST_RESORT, open_all
from coexec.base.errors import NonFiniteLoss, ProcessorError
from coexec.core.plan import Plan, Split
from coexec.core.processor import Processor
from coexec.core.program import MEETING
from coexec.core.types import Array
from coexec.frontend import specialise
from coexec.ops.node import call_of
from coexec.ops.split import CannotSplit
from coexec.ops.split_rules import way
from coexec.passes.fold_for_inference import fold_for_inference
from coexec.prepared import Prepared
from coexec.runtime.lanes import Lanes
from coexec.runtime.script import Script
from coexec.session import Session, legalise
from tests.random_nets import random_data, random_net
from tests.random_steps import random_step, set_limits

LONG = 30.0
"""Seconds after which a processor must have waited in vain."""
ROUNDS = 5
Named = Mapping[str, Processor]


def steps(seed: int, on: Named, counts: Counter[str]) -> None:
    """A few steps, beside the same on one processor.

    Raises:
        AssertionError: a loss or a state is another one than there.
    """
    dice = random.Random(seed)
    set_limits(dice)
    case = random_step(dice, on, 2)
    both = case.trainer(on, case.plan)
    name = dice.choice(case.plan.named)
    alone = case.trainer({key: on[key] for key in (name, LAST_RESORT)})
    broken = dice.randrange(ROUNDS)
    for number in range(ROUNDS):
        feeds, labels = random_data(case.model, case.samples, 100 * seed + number)
        if number == broken:
            bad = {key: np.full_like(array, np.nan) for key, array in feeds.items()}
            with contextlib.suppress(NonFiniteLoss):
                both.step(bad, labels)
                raise AssertionError(f"seed {seed}: a loss of NaN was not seen")
        found, expected = both.step(feeds, labels), alone.step(feeds, labels)
        np.testing.assert_allclose(found, expected, 2e-3, 1e-5, err_msg=f"seed {seed}, {number}")
    states = both.state()
    for key, array in alone.state().items():
        near = 5e-3 * float(np.abs(array).max()) + 1e-4
        np.testing.assert_allclose(states[key], array, 0, near, err_msg=f"seed {seed}: {key}")
    counts["meet"] += any(spec.role == MEETING for spec in both.program.buffers)
    counts["again"] += bool(case.plan.recompute)
    counts["early"] += case.plan.early


def runs(seed: int, on: Named, counts: Counter[str]) -> None:
    """Runs of a network with other inputs and outputs each time; one of them fails.

    Raises:
        AssertionError: a result is another one than on one processor.
    """
    dice = random.Random(seed)
    set_limits(dice)
    net = random_net(dice)
    inner = [value for node in net.graph for value in node.outputs if node.op_type == "Conv"]
    for value in dice.sample(inner, min(2, len(inner))):
        value.type = ir.TensorType(ir.DataType.FLOAT)
        net.graph.outputs.append(value)
    samples = dice.randint(1, 3)
    model = coexec.load(net)
    model = coexec.load(
        net, shapes={k: v.shape for k, v in random_data(model, samples, 0)[0].items()}
    )
    names = [name for name in on if name != LAST_RESORT]
    alone = Session(model, {key: on[key] for key in (dice.choice(names), LAST_RESORT)})
    both = Session(model, on, follow=_plan(dice, model, on, names))
    outputs = [str(value.name) for value in model.graph.outputs]
    sets = [None, dice.sample(outputs, 1), dice.sample(outputs, len(outputs))]
    for number in range(3 * ROUNDS):
        if number == 2 * ROUNDS:
            counts["failed"] += _failing(dice, both, random_data(model, samples, 0)[0])
        feeds, _ = random_data(model, samples, 100 * seed + number)
        wanted = dice.choice(sets)
        _alike(both.run(feeds, wanted), alone.run(feeds, wanted), f"seed {seed}, run {number}")
    counts["divided"] += len(both.program.processors) > 1


def _plan(dice: random.Random, model: ir.Model, on: Named, names: list[str]) -> Plan:
    """Nodes anywhere; some are divided along any axis that their operator can be divided along."""
    static = specialise(model, {}, {}, fold_parameters=True)
    fold_for_inference(static)
    graph = legalise(static, on).graph
    shares, splits = dice.choice((0.0, 0.5, 1.0)), {}
    for node in graph:
        axis = dice.choice((0, 1, 2, 3))
        with contextlib.suppress(CannotSplit, IndexError):
            how = way(call_of(node), axis)
            if how.count > 1 and dice.random() < shares:
                one = dice.randint(1, how.count - 1)
                parts = (one * how.quantum, (how.count - one) * how.quantum)
                order = dice.sample(names, 2)
                splits[str(node.name)] = Split(axis, dict(zip(order, parts, strict=True)))
    return Plan({str(node.name): dice.choice(names) for node in graph}, splits=splits)


def _failing(dice: random.Random, session: Session, feeds: Mapping[str, Array]) -> bool:
    """One call of the runs that are repeated by calls fails; whether there were such."""
    last = session._last
    lanes = last.executor._lanes if isinstance(last, Prepared) else None
    known = lanes._scripts if isinstance(lanes, Lanes) else {}
    found = [(wanted, each) for wanted, each in known.items() if each is not None]
    for wanted, script in found:
        _break(dice, script)
        start = time.perf_counter()
        with contextlib.suppress(ProcessorError):
            session.run(feeds, [*wanted])
            raise AssertionError("nothing failed")
        assert time.perf_counter() - start < LONG, "who waited was not let go"
    return bool(found)


def _break(dice: random.Random, script: Script) -> None:
    def pulled_out() -> None:
        raise RuntimeError("pulled out")

    script._calls[dice.randrange(len(script._calls))] = (pulled_out, -1)


def _alike(found: Mapping[str, Array], expected: Mapping[str, Array], where: str) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        near = 1e-4 * float(np.abs(array).max()) + 1e-5
        np.testing.assert_allclose(found[name], array, 1e-4, near, err_msg=f"{where}: {name}")


def main() -> None:
    """Seeds from ``FIRST`` on."""
    kind, first, count, *specs = sys.argv[1:]
    counts: Counter[str] = Counter()
    on = open_all(specs)
    for seed in range(int(first), int(first) + int(count)):
        start = time.perf_counter()
        (steps if kind == "steps" else runs)(seed, on, counts)
        took = time.perf_counter() - start
        if took > LONG:
            counts["long"] += 1
            sys.stderr.write(f"seed {seed} took {took:.0f} s\n")
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
