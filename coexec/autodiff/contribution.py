"""Which parameters to train within a budget of memory: the most contribution that fits.

After Lin et al., "On-Device Training Under 256KB Memory", 2022 (arXiv 2206.15472), who choose the
tensors to update by what each contributes, under a bound on the memory of activations, gradients
and states that updating them needs. There contribution is measured by training each tensor; here it
is the first-order fall of the loss that a step of gradient descent on the parameter makes, which is
the rate times its summed squared gradient: the diagonal Fisher information that Kwon et al.,
"TinyTrain", 2024 (arXiv 2307.09988) rank by. The rate is the same for all and drops out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coexec.autodiff.step import StepGraph
from coexec.core.types import Array
from coexec.ops.builder import PHASE
from coexec.ops.node import call_of, type_of
from coexec.ops.table import OPERATORS


@dataclass(frozen=True)
class Chosen:
    """Parameters to train, their part of the contribution of all, and the bytes of such a step.

    ``nbytes`` is estimated from the graph: no fusion, nothing in place.
    """

    names: tuple[str, ...]
    share: float
    nbytes: int


class StepMemory:
    """Bytes that are live in a step which trains some of the parameters.

    Read off the graph of a step that trains all of them (in execution order): a step that trains
    fewer is made of the nodes that the gradients of these need.
    """

    def __init__(self, step: StepGraph, state_bytes: Mapping[str, int]) -> None:
        """``state_bytes``: of the optimizer's states of each parameter."""
        self.names = tuple(step.gradients)
        self.state_bytes = state_bytes
        nodes = [n for n in step.model.graph if n.metadata_props.get(PHASE) != "optimizer"]
        self.count = len(nodes)
        self.forward = np.array([n.metadata_props.get(PHASE) == "forward" for n in nodes])
        index = {node: number for number, node in enumerate(nodes)}
        by_name = {str(v.name): v for node in nodes for v in node.outputs}
        self._tensors(nodes)
        self.needs = {
            name: _ancestors(by_name[value].producer(), index, self.count)
            for name, value in step.gradients.items()
        }
        self.gradients = {n: self.number[self.root[by_name[v]]] for n, v in step.gradients.items()}
        self.fixed = sum(array.nbytes for array in step.initial.values()) - sum(
            state_bytes.values()
        )

    def _tensors(self, nodes: Sequence[ir.Node]) -> None:
        """What is made and read where; a view is the tensor that it shows."""
        self.root: dict[ir.Value, ir.Value] = {}
        self.number: dict[ir.Value, int] = {}
        made: list[int] = []
        sizes: list[int] = []
        reads: list[tuple[int, int]] = []
        for position, node in enumerate(nodes):
            operands = [v for v in node.inputs if v is not None and v in self.root]
            reads += [(self.number[self.root[v]], position) for v in operands]
            view = OPERATORS[call_of(node).identifier].view and operands
            for value in node.outputs:
                if view:
                    self.root[value] = self.root[operands[0]]
                    continue
                self.root[value] = value
                self.number[value] = len(made)
                made.append(position)
                sizes.append(type_of(value).nbytes if value.name else 0)
        self.made, self.sizes = np.array(made), np.array(sizes)
        self.read_tensor, self.read_at = np.array(reads).T

    def peak(self, names: Collection[str]) -> int:
        """Most bytes live at once, with parameters, and states of the trained ones."""
        needed = self.forward.copy()
        for name in names:
            needed |= self.needs[name]
        last = self.made.copy()
        counted = needed[self.read_at]
        np.maximum.at(last, self.read_tensor[counted], self.read_at[counted])
        last[[self.gradients[name] for name in names]] = self.count - 1
        here = needed[self.made]
        changes = np.zeros(self.count + 1, np.int64)
        np.add.at(changes, self.made[here], self.sizes[here])
        np.subtract.at(changes, last[here] + 1, self.sizes[here])
        states = sum(self.state_bytes[name] for name in names)
        return int(np.cumsum(changes).max()) + self.fixed + states

    def own_bytes(self) -> dict[str, int]:
        """What each parameter costs by itself: gradient, states, activations only it reads."""
        readers = sum(self.needs[name].astype(int) for name in self.names) + 2 * self.forward
        kept_by_others = np.zeros(len(self.sizes), bool)
        kept_by_others[
            self.read_tensor[(readers[self.read_at] > 1) & ~self.forward[self.read_at]]
        ] = 1
        own = {}
        for name in self.names:
            alone = self.needs[name] & (readers == 1)
            read = np.unique(self.read_tensor[alone[self.read_at]])
            kept = [t for t in read if self.forward[self.made[t]] and not kept_by_others[t]]
            gradient = int(self.sizes[self.gradients[name]])
            own[name] = gradient + self.state_bytes[name] + int(self.sizes[kept].sum())
        return own


def choose_by_contribution(
    memory: StepMemory,
    contributions: Mapping[str, float],
    layers: Sequence[Collection[str]],
    budget: int,
) -> Chosen | None:
    """The parameters with the largest joint contribution found whose step fits ``budget`` bytes.

    For each layer to end the backward pass at (``layers`` in the order in which the model reads
    them), parameters from there on are added by contribution per byte while the step still fits.
    ``None``: not one parameter does.
    """
    own = memory.own_bytes()
    total = sum(contributions.values()) or 1.0
    best: Chosen | None = None
    eligible: list[str] = []
    for layer in reversed(layers):
        eligible += [name for name in layer if name in own]
        order = sorted(eligible, key=lambda n: (-contributions[n] / max(own[n], 1), n))
        chosen: list[str] = []
        for name in order:
            if memory.peak([*chosen, name]) <= budget:
                chosen.append(name)
        share = sum(contributions[name] for name in chosen) / total
        if chosen and (best is None or share > best.share):
            best = Chosen(tuple(chosen), share, memory.peak(chosen))
    return best


def squared(gradients: Mapping[str, Array]) -> dict[str, float]:
    """Sum of squares of each gradient."""
    return {n: float(np.sum(np.square(g, dtype=np.float64))) for n, g in gradients.items()}


def _ancestors(node: ir.Node | None, index: Mapping[ir.Node, int], count: int) -> Array:
    """Which of ``count`` nodes a node needs, itself included."""
    found = np.zeros(count, bool)
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if here is None or here not in index or found[index[here]]:
            continue
        found[index[here]] = True
        waiting += [value.producer() for value in here.inputs if value is not None]
    return found
