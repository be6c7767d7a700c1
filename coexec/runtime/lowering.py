"""What lowering needs to know beside the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.runtime.mode import DEFAULT, ExecutionMode


@dataclass(frozen=True)
class Lowering:
    """What lowering needs to know beside the graph.

    ``state`` maps state outputs to state inputs; ``state_inputs`` are all inputs that live on a
    device between runs; ``homes`` fixes the processor of states that other programs share.
    ``gate`` names outputs to look at before the first region of phase ``gated_phase``; with
    ``early`` updates, which stand between other nodes, before all but the forward pass.
    ``prepares``: rearranged copies of constants may be kept from run to run. ``builds``: the code
    of regions is built; plans are made without. ``reuses``: tensors between processors take over
    the memory of those that nobody reads any more, once all who read them have done so.
    ``sparing``: the process stays small, even where more code has to be built for that.
    ``workspace``: kernels that take more bytes to work in do with less (0: all as they like).
    """

    plan: Plan
    processors: Mapping[str, Processor]
    state: Mapping[str, str] = field(default_factory=dict)
    state_inputs: frozenset[str] = frozenset()
    homes: Mapping[str, str] = field(default_factory=dict)
    gate: tuple[str, ...] = ()
    gated_phase: str = "optimizer"
    early: bool = False
    mode: ExecutionMode = DEFAULT
    prepares: bool = True
    builds: bool = True
    reuses: bool = False
    sparing: bool = False
    workspace: int = 0
