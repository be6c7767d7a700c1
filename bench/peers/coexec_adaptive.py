"""Two processors when one of them becomes slow, or is not there any more.

``adapted`` goes through it, ``best`` is what it is held against: the best of some plans that are
run under the same load, and a training that goes on without the processor and loses no step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import numpy as np

from bench.busy_loop import BusyLoop
from bench.peers.coexec_pair import Pair, options
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.types import Array
from coexec.placement.policies.table import AUTO, BATCH_PARALLEL
from coexec.planning.adaptive import AdaptiveSession, AdaptiveTrainer, adaptive
from coexec.planning.planner import PlanOptions, plan_inference, plan_training
from coexec.planning.replanning import inference_planner, training_planner
from coexec.planning.turns import in_turns
from coexec.serving.threads import own_cores
from coexec.training.trainer import Trainer

SINGLE_BEST = "single_best"
BEFORE, AFTER = 60, 20
"""Steps until other plans are ready and tried, at most; and those within which a load on one
processor's core should be answered."""
SLOWER = (1.0, 2.0, 3.0)
"""How many times slower plans take the loaded processor to be, to find the best one."""
ROUNDS = 2
HELD, WITHOUT = 5, 5
"""Steps before and after a processor is taken away."""
SUBMIT = "submit"
ASKED = ("alloc", "alloc_for_host", "adopt", "copy", SUBMIT)
"""What a processor is asked for."""


class Gone(RuntimeError):
    """What is asked of a processor that was taken away."""


class Steps:
    """Calls of one function, after something was done with it.

    ``results`` are arrays to be compared, ``found`` is what was measured meanwhile.
    """

    def __init__(
        self, step: Callable[[], object], results: Sequence[Any], found: Mapping[str, Any]
    ) -> None:
        self._step, self._results, self._found = step, results, found

    def run(self, count: int) -> None:
        for _ in range(count):
            self._step()

    def outputs(self) -> Sequence[Any]:
        return self._results

    def facts(self) -> Mapping[str, Any]:
        return self._found


class Adapted(Steps):
    """Runs that plan again when another process takes half of the second processor's core."""

    def __init__(self, pair: Pair) -> None:
        self.runs = _adaptive(pair)
        step = _step(self.runs, pair)
        before: list[float] = []
        while not self.runs.is_steady and len(before) < BEFORE:
            before.append(_ms(step))
        self.began = len(before)
        cpus = [cpu for core in own_cores(pair.processors[pair.names[1]]) for cpu in core]
        pair.load = BusyLoop(cpus, os.getpid())
        after = [_ms(step) for _ in range(AFTER)]
        super().__init__(step, [], {"before_ms": before, "steps_ms": after})

    def facts(self) -> Mapping[str, Any]:
        """With what happened: steps after the load began, what was decided then, in words."""
        happened = [
            (event.step - self.began, event.kind, event.text) for event in self.runs.adaptations
        ]
        return {**super().facts(), "adaptations": happened}


class BestLoaded(Steps):
    """The fastest of several plans under the load that is there."""

    def __init__(self, pair: Pair) -> None:
        if pair.load is None:
            raise RuntimeError("there is no load to be the best plan for")
        actions = {str(plan.policy): action for plan, action in _candidates(pair)}
        measured = in_turns(actions, 0.0, least_rounds=ROUNDS)
        best = min(measured, key=lambda name: measured[name])
        tried = {name: us / 1e3 for name, us in measured.items()}
        super().__init__(actions[best], [], {"tried_ms": tried, "plan": best})


def _adaptive(pair: Pair) -> AdaptiveTrainer | AdaptiveSession:
    how = options(AUTO)
    if pair.trains:
        plain = pair.trainer(pair.processors)
        return adaptive(plain, training_planner(plain, pair.feeds, how), pair.names)
    planner = inference_planner(pair.model, pair.feeds, pair.processors, how)
    return AdaptiveSession(pair.model, pair.processors, planner, planned=pair.names)


def _step(runs: Trainer | AdaptiveSession, pair: Pair) -> Callable[[], object]:
    if isinstance(runs, Trainer):
        return lambda: runs.step(pair.feeds, pair.data["labels"])
    return lambda: runs.run(pair.feeds)


def _candidates(pair: Pair) -> list[tuple[Plan, Callable[[], object]]]:
    """Plans for a second processor that is slower, and each processor alone."""
    plans = []
    for slower in SLOWER:
        how = replace(options(AUTO), seconds=0.0, factors={pair.names[1]: slower})
        plan = _planned(pair, pair.processors, how)
        plans.append(replace(plan, policy=f"{plan.policy}, {slower:g} times slower"))
    for number, name in enumerate(pair.names):
        plan = _planned(pair, pair.alone(number), options(SINGLE_BEST))
        plans.append(replace(plan, policy=f"only {name}"))
    return [(plan, _runs(pair, plan)) for plan in pair.different(plans)]


def _planned(pair: Pair, processors: Mapping[str, Processor], how: PlanOptions) -> Plan:
    if pair.trains:
        return plan_training(pair.trainer(processors), pair.feeds, how).plan
    return plan_inference(pair.model, pair.feeds, processors, how).plan


def _runs(pair: Pair, plan: Plan) -> Callable[[], object]:
    if pair.trains:
        return _step(pair.trainer(pair.processors).with_plan(plan), pair)
    session = pair.session(plan)
    return lambda: session.run(pair.feeds)


class TakenAway(Steps):
    """A training whose second processor is taken away in the middle of a step.

    Results are the losses of all steps and all states behind them.
    """

    def __init__(self, pair: Pair) -> None:
        plug = Plug(pair.processors[pair.names[1]])
        trainer = _in_shares(pair)
        step = _step(trainer, pair)
        losses = [step() for _ in range(HELD)]
        plug.pull()
        start = time.perf_counter()
        losses.append(step())
        repeated = time.perf_counter() - start
        losses += [step() for _ in range(WITHOUT - 1)]
        found = {
            "steps": trainer.steps,
            "steps_wanted": HELD + WITHOUT,
            "lost_at": [each.step for each in trainer.adaptations if each.kind == "lost"],
            "lost_step_s": repeated,
        }
        super().__init__(step, _results(losses, trainer.state()), found)


class Undisturbed(Steps):
    """The same steps on both processors, then on the first alone, of which none is lost.

    A training on one processor from its first step rounds otherwise, which states whose sum is
    close to zero show after ten steps.
    """

    def __init__(self, pair: Pair) -> None:
        both = _in_shares(pair)
        step = _step(both, pair)
        losses = [step() for _ in range(HELD)]
        alone = pair.trainer(pair.alone(0))
        alone.load_state(both.state(), HELD)
        step = _step(alone, pair)
        losses += [step() for _ in range(WITHOUT)]
        super().__init__(step, _results(losses, alone.state()), {})


def _in_shares(pair: Pair) -> AdaptiveTrainer:
    """A training of which each processor has a share of the batch."""
    plain = pair.trainer(pair.processors)
    planner = training_planner(plain, pair.feeds, options(BATCH_PARALLEL))
    return adaptive(plain, planner, pair.names)


class Plug:
    """What a processor hangs on: plugged in before it is given any work, pulled out later.

    Regions that it was given once are submitted again past its own ``submit``: these ask, too.
    """

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self._left: int | None = None
        for name in ASKED:
            self._guard(name)
        again = processor.again

        def checked(*arguments: Any) -> Callable[[], Any] | None:
            submit = again(*arguments)
            return None if submit is None else partial(self._launch, submit)

        setattr(processor, "again", checked)  # noqa: B010 - in the place of the method

    def pull(self, launches: int = 1) -> None:
        """Let it begin so many launches, and from then on fail whatever it is asked for."""
        self._left = launches

    def _guard(self, name: str) -> None:
        action = getattr(self.processor, name)

        def asked(*arguments: Any, **named: Any) -> Any:
            if name == SUBMIT:
                self._launched()
            elif self._left is not None and self._left < 0:
                self._gone()
            return action(*arguments, **named)

        setattr(self.processor, name, asked)

    def _launch(self, submit: Callable[[], Any]) -> Any:
        self._launched()
        return submit()

    def _launched(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._gone()

    def _gone(self) -> NoReturn:
        raise Gone(f"{self.processor.describe().name} was taken away")


def _results(losses: Sequence[object], states: Mapping[str, Array]) -> list[Any]:
    return [np.array(losses), *(np.ravel(states[name]) for name in sorted(states))]


def _ms(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3
