"""Random training steps in shares of a batch, by random plans."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

import coexec
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD, Adam, Optimizer
from coexec.autodiff.step import StepGraph
from coexec.core.plan import ALONE, Plan
from coexec.core.processor import Processor
from coexec.passes import order_for_memory
from coexec.passes.rematerialise import is_forward, rematerialise
from coexec.runtime import partition
from coexec.session import legalise
from coexec.steps.builder import Recipe
from coexec.training.trainer import Trainer
from tests.random_nets import random_data, random_net

OPTIMIZERS = (SGD(0.01), SGD(0.01, momentum=0.9), Adam(0.01, epsilon=1e-2))
"""Adam would make steps of rounding where a gradient is none, as before norms."""


@dataclass(frozen=True)
class RandomStep:
    """A training of a network on ``samples``, its step, and a plan of that."""

    model: ir.Model
    optimizer: Optimizer
    samples: int
    graph: StepGraph
    plan: Plan

    def trainer(self, there: Mapping[str, Processor], plan: Plan | None = None) -> Trainer:
        return Trainer(self.model, Recipe(SoftmaxCrossEntropy(), self.optimizer), there, plan=plan)


def random_step(dice: random.Random, there: Mapping[str, Processor], parts: int) -> RandomStep:
    """Any number of samples on the first ``parts`` processors, nodes that stay whole anywhere.

    Some activations are made again, none, or all; large updates may come early.
    """
    names = [*there][:parts]
    shares = {name: dice.randint(1, 3) for name in names}
    model, optimizer = coexec.load(random_net(dice)), dice.choice(OPTIMIZERS)
    trainer = Trainer(model, Recipe(SoftmaxCrossEntropy(), optimizer), there)
    feeds, _ = random_data(model, sum(shares.values()), 0)
    early = dice.random() < 0.5
    graph = replace(trainer.build_step(feeds), early=early)
    recompute = _again(dice, graph.model.graph)
    whole = legalise(graph.model.clone(), there)
    if recompute or early:
        order_for_memory.order_for_memory(whole.graph, graph.state, early=early)
    rematerialise(whole.graph, recompute)
    first, spread = dice.choice(names), dice.choice((0.0, 0.1, 1.0))
    homes = {
        str(node.name): dice.choice(names) if dice.random() < spread else first
        for node in whole.graph
    }
    batch = shares if dice.random() < 0.9 else {}
    plan = Plan(homes, batch=batch, recompute=recompute, early=early)
    return RandomStep(model, optimizer, sum(shares.values()), graph, plan)


def set_limits(dice: random.Random) -> None:
    """Small networks are divided as large ones: regions end anywhere, any update may come early."""
    partition.LIGHT_BYTES = dice.choice((0, 1 << 12, 1 << 20))
    order_for_memory.SMALL = dice.choice((0, 1 << 10, 1 << 16))


def _again(dice: random.Random, graph: ir.Graph) -> tuple[str, ...]:
    share = dice.choice((0.0, 0.2, 0.5, 1.0))
    made = [str(node.outputs[0].name) for node in graph if is_forward(node)]
    chosen = [name for name in made if dice.random() < share]
    return tuple(f"{name}{ALONE}" if dice.random() < 0.2 else name for name in chosen)
