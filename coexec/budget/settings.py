"""What a budget of memory leads to: settings of a step, their programs, and plans of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from coexec.core.program import PAGES, SCRATCH, STATE, Program, combined_bytes
from coexec.memory.build_problem import Measure, build_problem
from coexec.memory.lifetimes import usage
from coexec.memory.problem import StepProblem
from coexec.steps.builder import Recipe


@dataclass(frozen=True)
class Setting:
    """How a step is computed: its recipe, and the activations that are recomputed by name."""

    recipe: Recipe
    recompute: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lowered:
    """The programs of a step under a setting, and its legal graph (nothing recomputed in it)."""

    graph: ir.Graph
    programs: tuple[Program, ...]

    @property
    def peak_bytes(self) -> int:
        return combined_bytes(self.programs)


@dataclass(frozen=True)
class TechniqueUse:
    """A row of the table: what a technique did on top of those before it.

    ``detail`` says with what setting, ``saved_bytes`` of the peak, ``cost_ms`` a step (predicted).
    """

    technique: str
    detail: str
    exact: bool
    saved_bytes: int
    cost_ms: float


@dataclass(frozen=True)
class MemoryPlan:
    """A setting that fits, its planned peak beside that of the plain step, and how it came about.

    Times are predictions in ms a step; ``refused`` are techniques with the reason. ``ran`` are ms a
    step of forms that were run before one was chosen, the fastest first.
    """

    setting: Setting
    budget_bytes: int
    peak_bytes: int
    plain_bytes: int
    step_ms: float
    plain_ms: float
    used: tuple[TechniqueUse, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    ran: Mapping[str, float] = field(default_factory=dict)


Lower = Callable[[Setting], Lowered]


def step_problem(lowered: Lowered, cost_us: Measure) -> StepProblem:
    """The memory problem of a lowered step, with the working memory that its kernels take."""
    program = lowered.programs[0]
    own = {buffer.name.partition("@")[0] for buffer in program.buffers}
    bare = build_problem(lowered.graph, own, cost_us)
    live: dict[str, int] = {}
    for executable in program.executables:
        for name, nbytes in executable.arena_use():
            for part in name.split("+"):
                live[part] = max(live.get(part, 0), nbytes)
    used = usage(bare)
    nodes = list(bare.nodes)
    for event, planned in zip(used.events, used.live, strict=True):
        node = nodes[event.node]
        nodes[event.node] = replace(node, workspace=max(live.get(node.name, 0) - planned, 0))
    return replace(bare, nodes=tuple(nodes))


def beside(lowered: Lowered) -> dict[str, int]:
    """Bytes of what a step has beside its arena and its pages: states together, other buffers."""
    found: dict[str, int] = {}
    for buffer in lowered.programs[0].buffers:
        if buffer.role not in (SCRATCH, PAGES):
            role = {STATE: "parameters and optimizer state"}.get(
                buffer.role, f"{buffer.role} buffers"
            )
            found[role] = found.get(role, 0) + buffer.nbytes
    return found


def holders(
    by_role: Mapping[str, int], problem: StepProblem, recompute: Sequence[str]
) -> list[tuple[str, int]]:
    """What holds most at the peak: states together, working memory, and tensors with their kind.

    ``problem`` is that of the step with nothing recomputed; ``by_role`` is what is :func:`beside`.
    """
    used = usage(problem, *problem.numbers(recompute))
    at_work = problem.nodes[used.events[used.peak_event].node]
    held = {f"working memory of {at_work.name}": at_work.workspace} if at_work.workspace else {}
    for place in used.live_at(used.peak_event):
        held[_title(problem, place, used.origins[place])] = problem.nbytes[used.origins[place]]
    return sorted({**by_role, **held}.items(), key=lambda pair: -pair[1])


def _title(problem: StepProblem, place: int, tensor: int) -> str:
    """A tensor by name, and what it is: memory behind that of all tensors is of repetitions."""
    if place >= len(problem.tensors):
        return f"{problem.tensors[tensor]} recomputed"
    kind = "kept" if tensor in problem.producer else "of the backward pass"
    return f"{problem.tensors[tensor]} {kind}"
