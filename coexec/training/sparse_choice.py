"""``--trainable auto:BYTES``: which parameters to train so that a step fits into so many bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coexec.autodiff.contribution import Chosen, StepMemory, choose_by_contribution, squared
from coexec.autodiff.optimizers import SGD
from coexec.autodiff.selection import Candidates, exactly
from coexec.base.errors import UsageError
from coexec.base.units import bytes_text, parse_bytes
from coexec.core.types import Array
from coexec.passes.schedule import schedule
from coexec.training.data import Dataset
from coexec.training.trainer import Trainer

AUTO = "auto:"
SAMPLES, BATCHES = 8, 4
"""Gradients are those of so many batches of so many samples: small ones, to need little memory."""

ROUNDS = 5
"""Most choices that are planned: the estimate that guides them knows nothing of fusion."""

SLACK = 0.95
"""A choice that fills this part of the budget is good enough."""


@dataclass(frozen=True)
class SparseChoice:
    """What to train: parameters by name, and their share of all parameters' contribution.

    ``planned_bytes`` is the planned peak of such a step, ``full_bytes`` that of training all.
    """

    names: tuple[str, ...]
    share: float
    planned_bytes: int
    full_bytes: int

    @property
    def trainable(self) -> tuple[str, ...]:
        """What a trainer is told to train."""
        return tuple(map(exactly, self.names))


def parse_auto(items: Sequence[str]) -> int | None:
    """The bytes of ``auto:BYTES`` among what is to be trained; none if it is not asked for.

    Raises:
        UsageError: no amount of memory, or other items beside it.
    """
    found = [item for item in items if item.startswith(AUTO)]
    if not found:
        return None
    if len(items) > 1:
        raise UsageError(f"--trainable {found[0]} chooses by itself: leave out the other items")
    try:
        return parse_bytes(found[0].removeprefix(AUTO))
    except ValueError as error:
        raise UsageError(f"--trainable {found[0]}: {error}") from error


def choose_parameters(
    make: Callable[[Sequence[str]], Trainer],
    data: Dataset,
    batch_size: int,
    budget: int,
    observe: Callable[[str], None] = lambda text: None,
) -> SparseChoice:
    """The parameters that contribute most among those whose step fits ``budget`` bytes.

    ``make`` gives a fresh trainer of what it is told to train. Gradients are measured on the first
    samples of ``data``; the same data and model give the same choice. The planned peak of the step
    is kept below the budget, parameters and states included.

    Raises:
        UsageError: not even one parameter can be trained in so few bytes.
    """
    observe("measuring gradients")
    full = make(())
    contributions = measure_contributions(full, data, min(batch_size, SAMPLES))
    batch = data.take(np.arange(batch_size) % len(data)).inputs
    step = full.build_step(batch)
    schedule(step.model.graph)
    memory = StepMemory(step, _state_bytes(step.gradients, step.initial))
    layers = [[str(v.name) for v in layer] for layer in Candidates(full.model).layers().values()]
    whole = full.planned_bytes(batch)
    if whole <= budget:
        return SparseChoice(tuple(step.gradients), 1.0, whole, whole)
    best: SparseChoice | None = None
    target = round(budget * memory.peak(memory.names) / whole)
    for number in range(ROUNDS):
        observe(f"choosing parameters, round {number + 1}")
        chosen = choose_by_contribution(memory, contributions, layers, target)
        if chosen is None:
            chosen = _cheapest(memory, contributions)
        planned = make([*map(exactly, chosen.names)]).planned_bytes(batch)
        found = SparseChoice(chosen.names, chosen.share, planned, whole)
        if planned <= budget and (best is None or found.share > best.share):
            best = found
        if SLACK * budget <= planned <= budget or (planned > budget and len(chosen.names) == 1):
            break
        target = round(chosen.nbytes * budget * (1 + SLACK) / 2 / planned)
    if best is None:
        least = _cheapest(memory, contributions)
        planned = make([exactly(least.names[0])]).planned_bytes(batch)
        raise UsageError(
            f"no parameter can be trained in {bytes_text(budget)}: {least.names[0]} alone takes "
            f"{bytes_text(planned)} at batch size {batch_size}; a smaller --batch-size helps"
        )
    return best


def measure_contributions(trainer: Trainer, data: Dataset, batch_size: int) -> dict[str, float]:
    """Squared gradients of all parameters, the mean over some batches of ``data``."""
    # After a step from zero the momentum is the gradient; at rate 0 nothing else changes.
    recipe = replace(
        trainer.recipe,
        optimizer=SGD(0.0, momentum=0.9),
        clip_norm=None,
        clip_value=None,
        ema=None,
        micro_batches=1,
        precision="float32",
    )
    measuring = Trainer(trainer.model, recipe, trainer.processors, **trainer.options())
    sums: dict[str, float] = {}
    start: Mapping[str, Array] | None = None
    for number in range(BATCHES):
        batch = data.take(np.arange(number * batch_size, (number + 1) * batch_size) % len(data))
        if start is not None:
            measuring.load_state(start, 0)
        measuring.step(batch.inputs, batch.labels)
        state = measuring.state()
        start = start or {n: np.zeros_like(a) if "#" in n else a for n, a in state.items()}
        momenta = {n: a for n, a in state.items() if n.endswith("#momentum")}
        for name, value in squared(momenta).items():
            key = name.removesuffix("#momentum")
            sums[key] = sums.get(key, 0.0) + value / BATCHES
    return sums


def _cheapest(memory: StepMemory, contributions: Mapping[str, float]) -> Chosen:
    """The one parameter whose step needs the fewest bytes."""
    name = min(memory.names, key=lambda n: (memory.peak([n]), -contributions[n]))
    share = contributions[name] / (sum(contributions.values()) or 1.0)
    return Chosen((name,), share, memory.peak([name]))


def _state_bytes(names: Mapping[str, str], initial: Mapping[str, Array]) -> dict[str, int]:
    """Bytes of the optimizer's states of each parameter."""
    return {
        name: sum(a.nbytes for key, a in initial.items() if key.startswith(f"{name}#"))
        for name in names
    }
