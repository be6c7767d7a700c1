"""From a region to kernels over one arena: fuse, choose variants, plan storage, emit steps."""

from __future__ import annotations

import numpy as np

from coexec.core.types import OpCall, Region, RegionNode
from coexec.processors.opencl.choose import Chooser, by_default, named
from coexec.processors.opencl.emit import Emitter
from coexec.processors.opencl.executable import OpenCLExecutable, ProgramSource
from coexec.processors.opencl.family import DeviceFacts, Lowering
from coexec.processors.opencl.fusion.finished import FINISHED
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.fusion.operators import definition
from coexec.processors.opencl.kernels.epilogue import lower_finished
from coexec.processors.opencl.preparation import divide
from coexec.processors.opencl.storage import Storage
from coexec.processors.opencl.table import KERNELS


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
) -> OpenCLExecutable:
    """Compile ``region``; ``choose`` forces a kernel variant by name or decides for each call.

    Nodes are fused unless a variant is forced, or ``fusing`` forbids it.
    """
    fusing = fusing and not isinstance(choose, str)
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
    storage = Storage.plan(
        region, [None if p is None else p.lowering for p in prepared], facts.alignment
    )
    emitter = Emitter(region, storage, facts.alignment)
    for index, parts in enumerate(prepared):
        if parts is not None:
            emitter.node(index, region.nodes[index], parts)
    emitter.steps += emitter.copies_together() if fusing else emitter.copies()
    return OpenCLExecutable(
        processor=processor,
        inputs=storage.inputs,
        outputs=storage.outputs,
        scratch_bytes=storage.arena_bytes,
        naive_bytes=storage.naive_bytes,
        carried=storage.carried,
        continued=tuple(name for name in region.inputs if name in region.kept),
        programs=tuple(ProgramSource(family, text) for text, family in emitter.programs.items()),
        steps=tuple(emitter.steps),
        constants={
            name: np.ascontiguousarray(region.constants[name]) for name in sorted(emitter.constants)
        },
        preparation=tuple(emitter.preparation),
        prepared_bytes=emitter.prepared_bytes,
    )


def constant_inputs(region: Region, node: RegionNode) -> frozenset[int]:
    """Numbers of the operands of a node whose constants a region may prepare."""
    if not region.prepares:
        return frozenset()
    return frozenset(i for i, name in enumerate(node.inputs) if name in region.constants)
