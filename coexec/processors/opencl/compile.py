"""From a region to kernels over one arena: fuse, choose variants, plan storage, emit steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coexec.core.types import OpCall, Region, RegionNode
from coexec.processors.opencl.choose import Chooser, by_default, named, sparing
from coexec.processors.opencl.concatenation import joined, parts_across, parts_of_results
from coexec.processors.opencl.emit import Emitter
from coexec.processors.opencl.executable import OpenCLExecutable, ProgramSource
from coexec.processors.opencl.family import DeviceFacts, Lowering
from coexec.processors.opencl.fusion.finished import FINISHED
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.fusion.operators import definition
from coexec.processors.opencl.kernels.epilogue import lower_finished
from coexec.processors.opencl.preparation import Prepared, divide
from coexec.processors.opencl.storage import Storage
from coexec.processors.opencl.table import KERNELS

COPY_ITEMS = 64
"""Work-items of a group that copies small outputs on a GPU."""
MOST_GROWTH = 1.1
"""Arena with Concat done in place, in terms of the arena with copies."""


def lower_node(
    node: RegionNode, facts: DeviceFacts, choose: str | Chooser | None = None
) -> Lowering:
    """The kernels of one node: by default, by the variant named, or as a chooser decides."""
    chooser = named(choose) if isinstance(choose, str) else choose or by_default

    def lower(call: OpCall) -> Lowering:
        return chooser(KERNELS[call.identifier], call, facts).lower(call, facts)

    if node.call.identifier == FINISHED.identifier:
        return lower_finished(node.call, lower)
    return lower(node.call)


def compile_region(
    region: Region,
    facts: DeviceFacts,
    processor: str,
    choose: str | Chooser | None = None,
    fusing: bool = True,
    pages: str = "beside",
) -> OpenCLExecutable:
    """Compile ``region``; ``choose`` forces a kernel variant by name or decides for each call.

    Nodes are fused unless a variant is forced, or ``fusing`` forbids it. ``pages``: tensors leave
    the device ``beside`` kernels, or by kernels ``between`` them.
    """
    fusing = fusing and not isinstance(choose, str)
    facts = replace(facts, prepares=region.prepares)
    if region.workspace and not isinstance(choose, str):
        choose = sparing(choose or by_default, region.workspace)
    if fusing:
        region = fuse(region, facts)
    lowerings = [
        None if definition(node.call).view else lower_node(node, facts, choose)
        for node in region.nodes
    ]
    prepared = [
        None if lowering is None else divide(lowering, constant_inputs(region, node))
        for node, lowering in zip(region.nodes, lowerings, strict=True)
    ]
    storage = plan_storage(region, prepared, facts.alignment, joining=fusing)
    vector = facts.vector_bytes if pages == "between" else 0
    items = COPY_ITEMS if facts.unit_kind == "gpu" else 1
    emitter = Emitter(region, storage, facts.alignment, vector, items)
    for index, parts in enumerate(prepared):
        if parts is not None and not joined(region.nodes[index], storage.parts):
            emitter.node(index, region.nodes[index], parts)
        elif parts is None:
            emitter.transfers(index, region.nodes[index])
    emitter.steps += emitter.copies_together() if fusing else emitter.copies()
    return OpenCLExecutable(
        processor=processor,
        inputs=storage.inputs,
        outputs=storage.outputs,
        scratch_bytes=storage.arena_bytes,
        naive_bytes=storage.naive_bytes,
        carried=storage.carried,
        blocks=storage.blocks,
        continued=tuple(name for name in region.inputs if name in region.kept),
        page_bytes=storage.paged.nbytes,
        programs=tuple(ProgramSource(family, text) for text, family in emitter.programs.items()),
        steps=tuple(emitter.steps),
        constants={
            name: np.ascontiguousarray(region.constants[name]) for name in sorted(emitter.constants)
        },
        preparation=tuple(emitter.preparation),
        prepared_bytes=emitter.prepared_bytes,
    )


def plan_storage(
    region: Region, prepared: Sequence[Prepared | None], alignment: int, joining: bool
) -> Storage:
    """Places of all tensors; with ``joining``, operands of Concat are made in its result.

    Not where that takes more memory: a result that waits long for its last operand is large.
    """
    lowerings = [None if parts is None else parts.lowering for parts in prepared]
    across = parts_across(region, alignment) if joining else {}
    parts = parts_of_results(region, alignment) if joining else {}
    apart = Storage.plan(region, lowerings, alignment, across)
    if not parts:
        return apart
    together = Storage.plan(region, lowerings, alignment, {**parts, **across})
    return together if together.arena_bytes <= MOST_GROWTH * apart.arena_bytes else apart


def constant_inputs(region: Region, node: RegionNode) -> frozenset[int]:
    """Numbers of the operands of a node whose constants a region may prepare."""
    if not region.prepares:
        return frozenset()
    return frozenset(i for i, name in enumerate(node.inputs) if name in region.constants)
