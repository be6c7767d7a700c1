"""The file of a study: grids of cells, and what the names in them mean.

::

    title = "..."
    seed = 0

    [[grids]]                       # one or more; a study has the cells of all of them
    model = ["mobilenetv2", "detector"]
    machine = ["snapdragon-865"]
    strategy = ["cpu", "gpu", "auto", "adaptive"]
    ...

    [models.detector]               # only where the name is none of the zoo
    zoo = "ssdlite"
    options = { image_size = 320 }

    [machines.without-softmax]
    base = "snapdragon-888"
    npu_without = ["Softmax"]

    [workloads.camera]
    kind = "periodic"               # or sequence, burst
    requests = 15
    fps = 30
    beside = { sensor_cnn = 50 }    # other models on the same phone, so often a second

    [conditions.hot]                # only where there is more to say than the name
    lead_in_s = 3
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coexec.base.names import known_names
from coexec.core.soc_file import soc_names
from coexec.core.toml_table import TomlTable
from coexec.frontend.read import read_model
from coexec.placement.policies.table import AUTO, EXACT, PIPELINE, POLICIES
from coexec.processors.simulated.options import CHOICES, FINISH, ON
from coexec.simulation.condition import CONDITIONS
from coexec.study.cell import AXES, Cell
from coexec.study.techniques import NO_TECHNIQUE, TECHNIQUES
from coexec.zoo.catalog import CATALOG

FILE = "study.toml"
ADAPTIVE = "adaptive"
PROCESSORS = ("cpu", "gpu", "npu")
STRATEGIES = (*PROCESSORS, *POLICIES, PIPELINE, EXACT, AUTO, ADAPTIVE)
SEQUENCE, PERIODIC, BURST = "sequence", "periodic", "burst"
DEFAULTS = {
    "technique": NO_TECHNIQUE,
    "precision": "float32",
    "wait": FINISH,
    "fusion": ON,
    "condition": "idle",
}
"""Values of axes that a grid does not name."""


@dataclass(frozen=True)
class ModelSource:
    """A model of the zoo with the options of its builder, or an ONNX file (absolute path)."""

    source: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MachineVariant:
    """A phone whose NPU lacks some operators more than it does (``Add``, ``Softmax``)."""

    base: str
    npu_without: tuple[str, ...]


@dataclass(frozen=True)
class Workload:
    """How requests for the model come: ``requests`` of them.

    ``sequence``: each ``pause_ms`` after the one before is done. ``periodic``: ``fps`` a second,
    each late if it takes longer than the time between two. ``burst``: all at once. Models
    ``beside`` it run on the same phone meanwhile, each so often a second (or as often as it can).
    """

    kind: str
    requests: int
    fps: float = 0.0
    pause_ms: float = 0.0
    beside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Definition:
    """A study: its cells in order, and what their names mean.

    ``lead_in_s`` is how long the model runs back to back before measuring begins, by condition.
    """

    title: str
    seed: int
    cells: tuple[Cell, ...]
    models: Mapping[str, ModelSource]
    workloads: Mapping[str, Workload]
    lead_in_s: Mapping[str, float]
    machines: Mapping[str, MachineVariant] = field(default_factory=dict)

    def meaning(self, cell: Cell) -> dict[str, Any]:
        """All that a cell's result depends on beside the figures of coexec."""
        workload = self.workloads[cell.workload]
        return {
            "cell": cell.names(),
            "seed": self.seed,
            "models": [vars(self.models[name]) for name in (cell.model, *workload.beside)],
            "workload": vars(workload),
            "lead_in_s": self.lead_in_s.get(cell.condition, 0.0),
            **(
                {"machine": vars(self.machines[cell.machine])}
                if cell.machine in self.machines
                else {}
            ),
        }


def read_definition(folder: Path) -> Definition:
    """The study in a folder.

    Raises:
        UsageError: unreadable, not TOML, or a key or a name that is missing, unknown or makes no
            sense; the message names file and key.
    """
    table = TomlTable.of_file(folder / FILE)
    models = {n: _model(t) for n, t in _tables(table, "models").items()}
    workloads = {n: _workload(t) for n, t in table.tables("workloads").items()}
    machines = {n: _machine(t) for n, t in _tables(table, "machines").items()}
    known_models = (*models, *CATALOG)
    wanted = {
        "model": known_models,
        "technique": tuple(TECHNIQUES),
        "machine": (*machines, *soc_names()),
        "precision": CHOICES["precision"],
        "wait": CHOICES["wait"],
        "fusion": CHOICES["fusion"],
        "strategy": STRATEGIES,
        "workload": tuple(workloads),
        "condition": tuple(CONDITIONS),
    }
    cells = _all_cells(table, wanted)
    _check_beside(workloads, known_models, table)
    used = {name for cell in cells for name in (cell.model, *workloads[cell.workload].beside)}
    conditions = _tables(table, "conditions")
    definition = Definition(
        title=table.text("title"),
        seed=int(table.number("seed")),
        cells=cells,
        models={name: models.get(name, ModelSource(name)) for name in sorted(used)},
        workloads=workloads,
        machines=machines,
        lead_in_s={name: _lead_in_s(name, t, table) for name, t in conditions.items()},
    )
    table.nothing_else()
    return definition


def _all_cells(table: TomlTable, wanted: Mapping[str, Collection[str]]) -> tuple[Cell, ...]:
    """The cells of all grids in order, each once."""
    cells: dict[Cell, None] = {}
    for number, values in enumerate(table.array("grids")):
        if not isinstance(values, dict):
            raise table.error("grids", "is no list of tables; write [[grids]]")
        grid = TomlTable(values, f"grids[{number}].", table.path)
        cells |= dict.fromkeys(_cells(grid, wanted))
    if not cells:
        raise table.error("grids", "is empty: the study has no cell")
    return tuple(cells)


def _check_beside(
    workloads: Mapping[str, Workload], models: Collection[str], table: TomlTable
) -> None:
    """Refuse workloads beside which an unknown model runs."""
    for name, workload in workloads.items():
        for other in workload.beside:
            if other not in models:
                raise table.error(f"workloads.{name}.beside", f"has {_unknown(other, models)}")


def _cells(grid: TomlTable, wanted: Mapping[str, Collection[str]]) -> list[Cell]:
    """The product of a grid's axes."""
    axes = []
    for axis in AXES:
        if axis in DEFAULTS and not _has(grid, axis):
            axes.append([DEFAULTS[axis]])
            continue
        values = grid.array(axis)
        for value in values:
            if value not in wanted[axis]:
                raise grid.error(axis, f"has {_unknown(value, wanted[axis])}")
        if not values:
            raise grid.error(axis, "is empty: such a grid has no cell")
        axes.append(values)
    grid.nothing_else()
    return [Cell(*values) for values in itertools.product(*axes)]


def _model(table: TomlTable) -> ModelSource:
    if _has(table, "onnx"):
        path = (table.path.parent / table.text("onnx")).absolute()
        if not path.is_file():
            raise table.error("onnx", f"is {table.text('onnx')!r}; there is no file {path}")
        table.nothing_else()
        if found := _open_inputs(path):
            raise table.error("onnx", f"has {found}: studies need fixed shapes")
        return ModelSource(str(path))
    name = table.text("zoo")
    if name not in CATALOG:
        raise table.error("zoo", "is " + _unknown(name, CATALOG))
    options = dict(table.table("options").values) if _has(table, "options") else {}
    table.nothing_else()
    return ModelSource(name, options)


def _open_inputs(path: Path) -> str:
    """The inputs of a model whose shapes are open, in words.

    Raises:
        ModelError: no model can be read from the file.
    """
    graph = read_model(path).graph
    fed = (value for value in graph.inputs if value.name not in graph.initializers)
    return ", ".join(
        f"input {value.name!r} of shape {value.shape}"
        for value in fed
        if value.shape is None or not value.shape.is_static()
    )


def _machine(table: TomlTable) -> MachineVariant:
    base = table.text("base")
    if base not in soc_names():
        raise table.error("base", "is " + _unknown(base, soc_names()))
    found = MachineVariant(base, tuple(map(str, table.array("npu_without"))))
    table.nothing_else()
    return found


def _workload(table: TomlTable) -> Workload:
    kind = table.text("kind")
    if kind not in (SEQUENCE, PERIODIC, BURST):
        raise table.error("kind", "is " + _unknown(kind, (SEQUENCE, PERIODIC, BURST)))
    requests = table.number("requests", above_zero=True)
    if requests != int(requests):
        raise table.error("requests", f"is {requests:g}; a whole number is wanted")
    fps = table.number("fps", above_zero=True) if kind == PERIODIC else 0.0
    paused = kind == SEQUENCE and _has(table, "pause_ms")
    pause_ms = table.number("pause_ms") if paused else 0.0
    beside = table.numbers("beside") if _has(table, "beside") else {}
    table.nothing_else()
    return Workload(kind, int(requests), fps, pause_ms, beside)


def _lead_in_s(name: str, table: TomlTable, study: TomlTable) -> float:
    if name not in CONDITIONS:
        raise study.error("conditions", f"has {_unknown(name, CONDITIONS)}")
    if CONDITIONS[name].loads:
        raise table.error("lead_in_s", "is only for conditions in which nothing else runs")
    seconds = table.number("lead_in_s")
    table.nothing_else()
    return seconds


def _has(table: TomlTable, key: str) -> bool:
    """Whether an optional key is there; known it is in any case."""
    table.seen.add(key)
    return key in table.values


def _tables(table: TomlTable, key: str) -> Mapping[str, TomlTable]:
    """The tables under an optional key."""
    return table.tables(key) if _has(table, key) else {}


def _unknown(name: object, known: Collection[str]) -> str:
    return f"{name!r}, which is unknown; {known_names(str(name), known)}"
