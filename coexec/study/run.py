"""Run a study: the cells that have no result yet, in tasks over processes, part by part to disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coexec.base.errors import UsageError
from coexec.placement.policies.exact import MISSING, solver_is_there
from coexec.placement.policies.table import EXACT
from coexec.study.calls import Call, add_call, processor_seconds
from coexec.study.cell import Cell, Group
from coexec.study.definition import Definition
from coexec.study.measure import FAILED, Row, Task, error_row, measure
from coexec.study.parts import basis, identifiers, read_parts, write_part
from coexec.study.spread import HERE, Spread

Observer = Callable[[int], None]
"""Hears of so many cells more that have a result on disk."""


@dataclass(frozen=True)
class Results:
    """Rows of all cells that have a result, in the order of the study.

    ``found`` of them were there before, ``left`` cells have none yet, of which ``failed`` were
    tried in vain (their rows say why; they are tried again the next time).
    """

    rows: tuple[Row, ...]
    found: int
    left: int
    failed: tuple[Row, ...]


def run_study(
    definition: Definition,
    folder: Path,
    spread: Spread = HERE,
    limit: int | None = None,
    observe: Observer = lambda _cells: None,
) -> Results:
    """Simulate what has no result in ``folder`` yet, at most ``limit`` cells of it.

    Raises:
        SaveError: a part, or how long this took, cannot be written.
        DataError: a part is damaged.
        UsageError: processes cannot be had, or the study asks for ``exact`` without its solver.
    """
    if any(cell.strategy == EXACT for cell in definition.cells) and not solver_is_there():
        raise UsageError(MISSING)
    names = identifiers(definition, basis())
    known = read_parts(folder)
    pending = [
        (name, cell)
        for name, cell in zip(names, definition.cells, strict=True)
        if name not in known
    ]
    found = len(names) - len(pending)
    observe(found)
    failed: list[Row] = []
    new, began, computed = 0, time.perf_counter(), processor_seconds()
    try:
        for task, result in spread.map(measure, list(_tasks(definition, pending[:limit]))):
            if isinstance(result, BaseException):
                rows = [error_row(name, cell, FAILED, result) for name, cell in task.cells]
            else:
                rows = result
            write_part(folder, rows)
            failed += [row for row in rows if row["outcome"] == FAILED]
            new += len(rows)
            observe(len(rows))
    finally:  # an interrupted call took its time, too
        seconds, computing = time.perf_counter() - began, processor_seconds() - computed
        add_call(folder, Call(new, seconds, computing, spread.processes, spread.scheduler))
    after = read_parts(folder)
    done = tuple(after[name] for name in names if name in after)
    return Results(done, found, len(names) - len(done), tuple(failed))


def _tasks(definition: Definition, cells: Sequence[tuple[str, Cell]]) -> Iterator[Task]:
    """A task per group, what a killed run loses of each process; groups of one phone in a row."""
    groups: dict[Group, list[tuple[str, Cell]]] = {}
    for name, cell in cells:
        groups.setdefault(cell.group, []).append((name, cell))
    for group in sorted(groups, key=_similar):
        yield Task(definition, group, tuple(groups[group]))


def _similar(group: Group) -> tuple[str, ...]:
    """Tasks in this order find models beside planned already."""
    how = (group.precision, group.wait, group.fusion)
    return (group.machine, *how, group.technique, group.model)


def summary(results: Results) -> Mapping[str, int]:
    """Numbers of cells by what came of them."""
    refused = sum(row["outcome"] != "" for row in results.rows)
    return {
        "cells": len(results.rows) + results.left,
        "done": len(results.rows),
        "found": results.found,
        "refused": refused,
        "failed": len(results.failed),
        "left": results.left,
    }
