"""Cells that share their plans, simulated one after the other: a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.api import load
from coexec.base.errors import CoexecError
from coexec.core.soc_file import find_soc
from coexec.placement.policies.table import AUTO
from coexec.processors.simulated.options import NONE, SimulatedOptions
from coexec.processors.simulated.phone import Phone
from coexec.runtime.executor import Executor
from coexec.simulate import build_ms, require_memory
from coexec.study.adapt import Adapted, adapt
from coexec.study.cell import Cell, Group
from coexec.study.definition import (
    ADAPTIVE,
    PERIODIC,
    PROCESSORS,
    Definition,
    MachineVariant,
    Workload,
)
from coexec.study.plans import Desk, Placed
from coexec.study.serve import Running, Served, serve
from coexec.study.techniques import NO_TECHNIQUE, TECHNIQUES
from coexec.zoo.catalog import CATALOG, build

Row = dict[str, Any]
REMEMBERED_MODELS, REMEMBERED_DESKS = 24, 8
"""By process. Cells come by phone, so that the models beside are planned once for each."""
REFUSED, FAILED = "refused", "failed"
"""A result that says why there is none, and a cell that has to be tried again."""


@dataclass(frozen=True)
class Task:
    """Cells of one group, all of one study, with their identifiers."""

    definition: Definition
    group: Group
    cells: tuple[tuple[str, Cell], ...]


def measure(task: Task) -> list[Row]:
    """A row per cell. Whatever goes wrong with a cell stands in its row."""
    rows = []
    bench: _Bench | None = None
    for identifier, cell in task.cells:
        try:
            bench = bench or _Bench(task.definition, task.group)
            rows.append({**_named(identifier, cell), **bench.measure(cell)})
        except CoexecError as error:
            rows.append(error_row(identifier, cell, REFUSED, error))
        except Exception as error:  # noqa: BLE001  one cell of thousands: it is told, and tried again
            rows.append(error_row(identifier, cell, FAILED, error))
    return rows


def error_row(identifier: str, cell: Cell, outcome: str, error: BaseException) -> Row:
    """A row that says why there is no result."""
    kind = "" if outcome == REFUSED else f"{type(error).__name__}: "
    return {**_named(identifier, cell), "outcome": outcome, "error": f"{kind}{error}"}


def _named(identifier: str, cell: Cell) -> Row:
    return {"id": identifier, **cell.names(), "outcome": "", "error": ""}


class _Bench:
    """The plans of a group, and what was measured with them: equal plans are measured once."""

    def __init__(self, definition: Definition, group: Group) -> None:
        self.definition = definition
        self.group = group
        self.desk = self._desk(group.model)
        self._adapted: dict[tuple[str, tuple[str, ...]], Adapted] = {}
        self._measured: dict[tuple[str, ...], Row] = {}

    def measure(self, cell: Cell) -> Row:
        """What a cell's row says beside its names."""
        workload = self.definition.workloads[cell.workload]
        replanned = 0
        if cell.strategy == ADAPTIVE:
            found = self._adapt(cell, workload)
            placed, replanned = found.placed, found.replanned
        else:
            placed = self.desk.placed(cell.strategy)
        # Models beside an adaptive one stay as they are.
        others = [(desk, desk.placed(_static(cell.strategy))) for desk in self._beside(workload)]
        key = (cell.workload, cell.condition, placed.key, *(each.key for _, each in others))
        if key not in self._measured:
            self._measured[key] = self._serve(cell, workload, placed, others)
        return {**placed.record(), **self._measured[key], "replanned": replanned}

    def _serve(
        self,
        cell: Cell,
        workload: Workload,
        placed: Placed,
        others: Sequence[tuple[Desk, Placed]],
    ) -> Row:
        phone, main, beside = self._stage(cell, placed, others)
        constants = sum(each.program.constant_bytes for _, each in others)
        require_memory(phone, placed.program, constants)
        served = serve(phone, main, beside, workload, self._lead_in_s(cell))
        built = build_ms(self.desk.soc, placed.program)
        return {**_figures(served, workload), "build_ms": built}

    def _adapt(self, cell: Cell, workload: Workload) -> Adapted:
        key = (cell.condition, tuple(workload.beside))
        if key not in self._adapted:
            others = [(desk, desk.placed(AUTO)) for desk in self._beside(workload)]
            self._adapted[key] = adapt(
                self.desk, lambda placed: self._stage(cell, placed, others), self._lead_in_s(cell)
            )
        return self._adapted[key]

    def _lead_in_s(self, cell: Cell) -> float:
        return self.definition.lead_in_s.get(cell.condition, 0.0)

    def _stage(
        self, cell: Cell, placed: Placed, others: Sequence[tuple[Desk, Placed]]
    ) -> tuple[Phone, Running, list[Running]]:
        """A phone under a condition with all programs on it, none of which has run."""
        phone = self.desk.phone(cell.condition)
        rates = self.definition.workloads[cell.workload].beside.values()
        beside = [_bind(d, phone, p, fps) for (d, p), fps in zip(others, rates, strict=True)]
        return phone, _bind(self.desk, phone, placed), beside

    def _beside(self, workload: Workload) -> list[Desk]:
        return [self._desk(name) for name in workload.beside]

    def _desk(self, model: str) -> Desk:
        group = self.group
        source = self.definition.models[model]
        built_with = tuple(source.options.items())
        technique = group.technique if model == group.model else NO_TECHNIQUE
        loaded = _loaded(source.source, built_with, technique)
        variant = self.definition.machines.get(group.machine, MachineVariant(group.machine, ()))
        options = SimulatedOptions(
            precision=group.precision, numerics=NONE, wait=group.wait, fusion=group.fusion
        )
        return _desk_of(loaded, variant, options, self.definition.seed)


@lru_cache(REMEMBERED_MODELS)
def _loaded(source: str, options: tuple[tuple[str, Any], ...], technique: str) -> ir.Model:
    """A model of the zoo for one sample, or of a file, whose shapes must not be open."""
    built = build(source, 1, **dict(options)) if source in CATALOG else Path(source)
    model = load(built)
    TECHNIQUES[technique](model)
    return model


@lru_cache(REMEMBERED_DESKS)
def _desk_of(
    model: ir.Model, machine: MachineVariant, options: SimulatedOptions, seed: int
) -> Desk:
    soc = find_soc(machine.base)
    if machine.npu_without and soc.npu is not None:
        operators = soc.npu.operators.less(machine.npu_without)
        soc = replace(soc, npu=replace(soc.npu, operators=operators))
    return Desk(model, soc, options, seed)


def _bind(desk: Desk, phone: Phone, placed: Placed, fps: float = 0.0) -> Running:
    executor = Executor(placed.program, desk.opened(phone))
    inputs = placed.program.inputs
    feeds = {name: array for name, array in desk.feeds.items() if name in inputs}
    return Running(executor, feeds, fps, placed.under_way)


def _static(strategy: str) -> str:
    return AUTO if strategy == ADAPTIVE else strategy


def _figures(served: Served, workload: Workload) -> Row:
    """Milliseconds, millijoules a request of the whole phone, shares."""
    times = served.latencies_ms
    late = sum(ms > 1e3 / workload.fps for ms in times) if workload.kind == PERIODIC else 0
    return {
        "ms": median(times),
        "p90_ms": float(np.quantile(times, 0.9)),
        "first_ms": times[0],
        "last_ms": times[-1],
        "per_s": len(times) / served.seconds,
        "late": late / len(times),
        "mj": served.joules * 1e3 / len(times),
        **{f"busy_{name}": served.busy.get(name, 0.0) for name in PROCESSORS},
        "others_per_s": len(served.others_ms) / served.seconds,
        "others_ms": fmean(served.others_ms) if served.others_ms else 0.0,
        "celsius": served.celsius,
    }
