"""The first processor in the user's order that supports a node gets it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from coexec.base.errors import ProcessorError
from coexec.core.plan import Plan, Refusal
from coexec.core.processor import Processor
from coexec.ops.node import call_of


def place(graph: ir.Graph, processors: Mapping[str, Processor]) -> Plan:
    """Place every node; each refusal on the way is kept with its reason.

    Raises:
        ProcessorError: a node that no processor supports.
    """
    placed: dict[str, str] = {}
    refusals: list[Refusal] = []
    for node in graph:
        call = call_of(node)
        for name, processor in processors.items():
            support = processor.supports(call)
            if support.yes:
                placed[call.name] = name
                break
            refusals.append(Refusal(call.name, call.identifier, name, support.reason))
        else:
            reasons = "; ".join(f"{r.processor}: {r.reason}" for r in refusals[-len(processors) :])
            raise ProcessorError(
                f"no processor executes {call.identifier} {call.name!r}: {reasons}"
            )
    return Plan(placed, tuple(refusals))
