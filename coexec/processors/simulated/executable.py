"""A region on a simulated processor: its operators in groups that the engine runs as one kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from coexec.core.arena import Lifetime, plan_arena
from coexec.core.processor import Executable
from coexec.core.types import OpCall, Region, RegionNode
from coexec.cost.distribution import Distribution
from coexec.cost.soc.cost import SocCost
from coexec.cost.soc.workload import ELEMENTWISE, workload
from coexec.ops.table import opdef
from coexec.simulation.work import Work

ALIGNMENT = 64
"""Of tensors in an arena, in bytes."""


@dataclass(frozen=True)
class Kernel:
    """Nodes that run as one: the first with its cost, the others on what it has in registers."""

    nodes: tuple[RegionNode, ...]
    cost: SocCost

    @property
    def call(self) -> OpCall:
        return self.nodes[0].call

    @property
    def layer(self) -> tuple[str, str]:
        """The layer of the user's model that it belongs to, and whether forward or backward."""
        provenance = self.nodes[0].provenance
        return provenance.get("source", ""), provenance.get("phase", "")


@dataclass(frozen=True)
class SimulatedExecutable(Executable):
    """The region with its kernels; ``work`` has median times.

    ``weights_bytes`` is the memory of its constants.
    """

    region: Region = field(default_factory=lambda: Region((), (), (), {}))
    kernels: tuple[Kernel, ...] = ()
    work: Work = field(default_factory=lambda: Work([0.0], [0.0], [0.0], [0.0]))
    weights_bytes: int = 0

    @property
    def constant_bytes(self) -> int:
        return self.weights_bytes

    @property
    def touched_bytes(self) -> int:
        """Memory that a run goes through: arguments, intermediate tensors, constants."""
        types = self.region.types
        arguments = sum(types[name].nbytes for name in (*self.inputs, *self.outputs))
        return arguments + self.scratch_bytes + self.weights_bytes


def groups_of(region: Region, fuses: bool) -> list[tuple[RegionNode, ...]]:
    """Nodes in groups of one kernel each; views are none and do not appear.

    With ``fuses``, an elementwise node joins the kernel that makes its largest operand if nobody
    else reads that.
    """
    readers: dict[str, int] = {}
    for node in region.nodes:
        for name in filter(None, node.inputs):
            readers[name] = readers.get(name, 0) + 1
    groups: list[list[RegionNode]] = []
    ends: dict[str, int] = {}
    for node in region.nodes:
        if opdef(node.call).view:
            continue
        group = ends.pop(_largest(node), None) if fuses and follows(node.call) else None
        if group is None:
            group = len(groups)
            groups.append([])
        groups[group].append(node)
        for name in node.outputs:
            if name and readers.get(name) == 1 and name not in region.outputs:
                ends[name] = group
    return [tuple(group) for group in groups]


def follows(call: OpCall) -> bool:
    """Whether an engine computes this on the way out of the kernel before it."""
    if workload(call).family != ELEMENTWISE or not call.has_output(0):
        return False
    shape = call.output(0).shape
    return any(kind is not None and kind.shape == shape for kind in call.inputs)


def _largest(node: RegionNode) -> str:
    kinds = [(kind.nbytes, -i) for i, kind in enumerate(node.call.inputs) if kind is not None]
    return node.inputs[-max(kinds)[1]]


def waiting_by_layer(kernels: Sequence[Kernel], queued: Distribution) -> tuple[Kernel, ...]:
    """Kernels of an engine that waits once for each layer, and queues what else the layer has.

    What is elementwise belongs to the layer before it.
    """
    found: list[Kernel] = []
    layer: tuple[str, str] | None = None
    for kernel in kernels:
        same = kernel.layer == layer or (layer is not None and follows(kernel.call))
        found.append(
            replace(kernel, cost=replace(kernel.cost, dispatch=queued)) if same else kernel
        )
        layer = layer if same else kernel.layer
    return tuple(found)


def work_of(kernels: Sequence[Kernel], before_us: float) -> Work:
    """Phases of kernels at median times; ``before_us`` comes before the first."""
    if not kernels:  # views alone: nothing but the launch
        return Work([before_us], [0.0], [0.0], [0.0])
    costs = [kernel.cost for kernel in kernels]
    fixed = [cost.dispatch.median_us for cost in costs]
    fixed[0] += before_us
    return Work(
        fixed,
        [max(cost.compute_us - cost.memory_us, 0.0) for cost in costs],
        [cost.memory_us for cost in costs],
        [cost.memory_bytes for cost in costs],
    )


def arena_of(region: Region, groups: Sequence[Sequence[RegionNode]]) -> tuple[int, int]:
    """Bytes of intermediate tensors, with reuse of memory and without."""
    lifetimes = intermediate_lifetimes(region, groups)
    plan = plan_arena(lifetimes, ALIGNMENT)
    return plan.nbytes, plan.naive_bytes


def intermediate_lifetimes(
    region: Region, groups: Sequence[Sequence[RegionNode]]
) -> Mapping[str, Lifetime]:
    """Tensors that neither enter nor leave a region nor stay in registers, by kernel numbers."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    outside = {*region.inputs, *region.outputs, *region.constants}
    for number, group in enumerate(groups):
        for node in group:
            for name in node.outputs:
                first.setdefault(name, number)
            for name in (*node.inputs, *node.outputs):
                last[name] = number
    return {
        name: Lifetime(region.types[name].nbytes, start, last[name])
        for name, start in first.items()
        if name and name not in outside and (last[name] > start)
    }


def constant_bytes_of(region: Region) -> int:
    """Memory of what is known before running."""
    return int(sum(np.asarray(value).nbytes for value in region.constants.values()))
