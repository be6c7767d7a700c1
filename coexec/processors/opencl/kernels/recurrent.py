"""Steps of recurrent layers, forwards and backwards.

``recurrent.cl`` by lone items, ``recurrent_panels.cl`` for CPUs, ``recurrent_groups.cl`` for GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.recurrent_steps import STATES, StepsCall
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.kernels import recurrent_groups, recurrent_panels

CELLS = ("LSTM", "GRU", "RNN")
FORWARD = ("h0", "c0", "peepholes", "shift", "lengths")
BACKWARD = ("h0", "c0", "peepholes", "lengths", "kept", "y", "dy", "dh", "dc")

Defines = dict[str, str | int | float]


class Arguments:
    """The operands of a call in the order of the kernels, and the scratch that stands in for some.

    An operand that is not there is the first one, which is then never touched under its name. An
    output that nobody reads is scratch: steps keep running values there.
    """

    def __init__(self, call: OpCall) -> None:
        self.s = StepsCall.of(call)
        self.scratch: list[int] = []

    def inputs(self, names: tuple[str, ...]) -> tuple[Argument, ...]:
        found = (self.s.index(name) for name in names)
        return (inp(0), inp(1), *(inp(0 if at is None else at) for at in found))

    def output(self, index: int, nbytes: int) -> Argument:
        """Output ``index``; scratch of as many bytes where it is not in use."""
        if self.s.call.has_output(index):
            return out(index)
        self.scratch.append(nbytes)
        return scratch(len(self.scratch) - 1)

    def outputs(self) -> tuple[Argument, ...]:
        """What steps write (states, last ones, what is saved), or their gradient."""
        s, state, states = self.s, self.s.state.nbytes, self.s.states.nbytes
        if s.is_gradient:
            fed = self.output(0, s.call.input(0).nbytes)
            products = self.output(1, s.call.input(0).nbytes) if s.cell == "GRU" else fed
            first = 2 if s.cell == "GRU" else 1
            d_first = self.output(first, state)
            return fed, products, d_first, self.output(2, state) if s.cell == "LSTM" else d_first
        y, last = self.output(0, states), self.output(1, state)
        cell = self.output(2, state) if s.cell == "LSTM" else last
        if not saves(s):
            return y, last, cell, y, y
        at = 1 + STATES[s.cell]
        gates = self.output(at, s.call.input(0).nbytes)
        return y, last, cell, gates, gates if s.cell == "RNN" else self.output(at + 1, states)

    def sizes(self) -> tuple[Argument, ...]:
        r = self.s.geometry
        return tuple(map(i32, (r.steps, r.batch, r.directions, r.hidden)))


def saves(s: StepsCall) -> bool:
    """Whether steps give what their gradient needs."""
    return s.call.output_count > 1 + STATES[s.cell]


def defines_of(s: StepsCall) -> Defines:
    """What of the call is known when kernels are built."""
    lengths = s.index("lengths")
    return {
        "T": c_type(s.call.input(0).dtype),
        "TL": "int" if lengths is None else c_type(s.call.input(lengths).dtype),
        "CELL": s.geometry.gates,
        "RELU": int(s.cell == "RNN" and s.activation == "relu"),
        "REVERSE": int(s.geometry.direction == "reverse"),
        "HAS_H0": int(s.index("h0") is not None),
        "HAS_C0": int(s.index("c0") is not None),
        "PEEP": int(s.index("peepholes") is not None),
        "SHIFT": int(s.index("shift") is not None),
        "ENDS": int(lengths is not None),
        "SAVE": int(not s.is_gradient and saves(s)),
        "HAS_DY": int(s.index("dy") is not None),
        "HAS_DH": int(s.index("dh") is not None),
        "HAS_DC": int(s.index("dc") is not None),
    }


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per sample and direction."""
    arguments = Arguments(call)
    s, r = arguments.s, arguments.s.geometry
    if not r.batch * r.hidden:
        return Lowering(())
    inputs = arguments.inputs(BACKWARD if s.is_gradient else FORWARD)
    args = (*inputs, *arguments.outputs(), *arguments.sizes())
    defines = {**defines_of(s), "ACC": compute_type(call.input(0).dtype)}
    local = params["LOCAL"]
    grid = (ceil_to(r.batch, local), r.directions)
    entry = "steps_grad" if s.is_gradient else "steps"
    kernel = KernelCall("recurrent", entry, args, grid, (local, 1), defines)
    return Lowering((kernel,), tuple(arguments.scratch))


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    """Types that the device has."""
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower_panels(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Recurrent weights in panels, samples in tiles of registers."""
    arguments = Arguments(call)
    s, r = arguments.s, arguments.s.geometry
    plan = recurrent_panels.Tiling.of(s, facts, params)
    inputs = arguments.inputs(BACKWARD if s.is_gradient else FORWARD)
    outputs = arguments.outputs()
    panels = scratch(len(arguments.scratch))
    words = scratch(len(arguments.scratch) + 1) if plan.words else panels
    defines = {**defines_of(s), **plan.defines()}
    entry = "panels_grad" if s.is_gradient else "panels_steps"
    meeting = () if s.is_gradient else (words,)
    sizes = tuple(map(i32, (r.steps, r.batch, r.directions, r.hidden, plan.share)))
    args = (inputs[0], panels, *inputs[2:], *outputs, *meeting, *sizes)
    grid = (r.directions * plan.blocks * plan.team,)
    calls = (
        plan.pack(inputs[1], panels, words, defines),
        KernelCall("recurrent_panels", entry, args, grid, (1,), defines),
    )
    blocks = (plan.panel_bytes, 4 * plan.words) if plan.words else (plan.panel_bytes,)
    return Lowering(calls, (*arguments.scratch, *blocks))


def lower_groups(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A work-group for a few samples of a direction."""
    arguments = Arguments(call)
    s, r = arguments.s, arguments.s.geometry
    plan = recurrent_groups.Groups.of(s, facts, params)
    inputs = arguments.inputs(BACKWARD if s.is_gradient else FORWARD)
    outputs = arguments.outputs()
    blocks = list(arguments.scratch)
    defines = {**defines_of(s), "ACC": compute_type(call.input(0).dtype), **plan.defines()}
    weights, calls = inputs[1], []
    if not s.is_gradient:
        weights = scratch(len(blocks))
        blocks.append(call.input(1).nbytes)
        calls.append(plan.turn(inputs[1], weights, defines))
    places = outputs[0]  # never touched where the group's memory is local
    if not plan.staged:
        places = scratch(len(blocks))
        blocks.append(plan.count * plan.shared_bytes)
    sizes = tuple(map(i32, (r.steps, r.batch, r.directions)))
    args = (inputs[0], weights, *inputs[2:], *outputs, places, *sizes)
    entry, grid = "group_grad" if s.is_gradient else "group_steps", (plan.count * plan.items,)
    calls.append(KernelCall("recurrent_groups", entry, args, grid, (plan.items,), defines))
    return Lowering(tuple(calls), tuple(blocks))


def applies_groups(call: OpCall, facts: DeviceFacts) -> str | None:
    r = StepsCall.of(call).geometry
    if not r.batch * r.hidden * r.steps:
        return "there is nothing to compute"
    return applies(call, facts)


def applies_panels(call: OpCall, facts: DeviceFacts) -> str | None:
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    if call.input(0).dtype != np.float32:
        return "panels are of float32"
    r = StepsCall.of(call).geometry
    if not r.batch * r.hidden * r.steps:
        return "there is nothing to compute"
    return applies(call, facts)


FAMILY = KernelFamily(
    "recurrent",
    tuple(f"coexec::{cell}Steps{end}" for cell in CELLS for end in ("", "Grad")),
    (
        Variant(
            "panels",
            lower_panels,
            applies_panels,
            {"ROWS": (6, 4, 2, 3, 8), "PER_UNIT": (1, 2), "TEAM": recurrent_panels.TEAMS},
            recurrent_panels.suited,
        ),
        Variant(
            "groups",
            lower_groups,
            applies_groups,
            recurrent_groups.SPACE,
            recurrent_groups.suited,
            units=("gpu",),
        ),
        Variant("naive", lower_naive, applies, {"LOCAL": (1, 8)}),
    ),
)
