"""A workload: which models are asked for, how often, by when, and on which processors.

::

    duration_s = 5
    processors = ["ort:cpu?threads=1&cores=0", "opencl:intel?cores=1"]

    [models.camera]
    model = "mobilenetv2"                          # of the zoo, or an ONNX file beside this one
    arrivals = { kind = "periodic", fps = 30 }
    deadline_ms = 33
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coexec.base.errors import UsageError
from coexec.core.toml_table import TomlTable
from coexec.serving.arrivals import Arrivals, Burst, Periodic, Poisson, Stream
from coexec.zoo.catalog import CATALOG


@dataclass(frozen=True)
class Asked:
    """A model that is asked for.

    ``source`` is a name of the zoo, or the path of an ONNX file; ``shapes`` bind what it leaves
    open. ``processor`` is its own for the scheduler ``fixed``. ``times_ms`` are its times alone by
    processor where they need not be measured. With ``plan`` (a file of ``coexec plan --save``) it
    runs as that says, and in no other way.
    """

    name: str
    source: str | Path
    arrivals: Arrivals
    deadline_ms: float = math.inf
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    processor: str = ""
    times_ms: Mapping[str, float] = field(default_factory=dict)
    plan: Path | None = None


@dataclass(frozen=True)
class Workload:
    """Models and processors (specs). Requests that can no longer be in time are dropped or not."""

    models: tuple[Asked, ...]
    processors: tuple[str, ...]
    duration_ms: float
    seed: int = 0
    drop_late: bool = False


def read_workload(path: Path) -> Workload:
    """The workload of a TOML file.

    Raises:
        UsageError: unreadable, not TOML, or a key that is missing, unknown or makes no sense; the
            message names file and key.
    """
    table = TomlTable.of_file(path)
    processors = _specs(table)
    workload = Workload(
        models=tuple(_asked(name, t, processors) for name, t in table.tables("models").items()),
        processors=processors,
        duration_ms=table.number("duration_s", above_zero=True) * 1e3,
        seed=_whole(table, "seed", 0) if _given(table, "seed") else 0,
        drop_late=table.truth("drop_late") if _given(table, "drop_late") else False,
    )
    table.nothing_else()
    if not workload.models:
        raise table.error("models", "has no model; write a table [models.NAME] for each")
    return workload


def _given(table: TomlTable, key: str) -> bool:
    """Whether an optional key is there; known it is in any case."""
    table.seen.add(key)
    return key in table.values


def _specs(table: TomlTable) -> tuple[str, ...]:
    specs = table.array("processors")
    if not specs or not all(isinstance(spec, str) and spec for spec in specs):
        raise table.error("processors", f"is {specs!r}; a list of processors is wanted")
    if len(set(specs)) < len(specs):
        raise table.error("processors", f"names a processor twice: {', '.join(specs)}")
    return tuple(specs)


def _asked(name: str, table: TomlTable, processors: tuple[str, ...]) -> Asked:
    asked = Asked(
        name=name,
        source=_source(table),
        arrivals=_arrivals(table.table("arrivals")),
        deadline_ms=table.number("deadline_ms", above_zero=True)
        if _given(table, "deadline_ms")
        else math.inf,
        shapes=_shapes(table.table("shapes")) if _given(table, "shapes") else {},
        processor=_one_of(table, "processor", processors) if _given(table, "processor") else "",
        times_ms=table.numbers("times_ms") if _given(table, "times_ms") else {},
        plan=_file(table, "plan") if _given(table, "plan") else None,
    )
    table.nothing_else()
    strangers = [spec for spec in asked.times_ms if spec not in processors]
    if strangers:
        raise table.error(f"times_ms.{strangers[0]}", f"is none of {', '.join(processors)}")
    if asked.plan is not None and (asked.processor or asked.times_ms):
        raise table.error("plan", "says where the model runs: leave out processor and times_ms")
    return asked


def _source(table: TomlTable) -> str | Path:
    text = table.text("model")
    if text in CATALOG:
        return text
    if text.endswith(".onnx"):
        return _file(table, "model")
    known = ", ".join(CATALOG)
    raise table.error("model", f"is {text!r}: neither a file .onnx nor in the zoo ({known})")


def _file(table: TomlTable, key: str) -> Path:
    """A file that is there; a relative path begins at the workload's folder."""
    path = table.path.parent / table.text(key)
    if not path.is_file():
        raise table.error(key, f"is {table.text(key)!r}; there is no file {path}")
    return path


def _one_of(table: TomlTable, key: str, known: tuple[str, ...]) -> str:
    text = table.text(key)
    if text not in known:
        raise table.error(key, f"is {text!r}; it must be one of {', '.join(known)}")
    return text


def _shapes(table: TomlTable) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name in table.values:
        dims = table.array(name)
        if not all(isinstance(dim, int) and not isinstance(dim, bool) and dim > 0 for dim in dims):
            raise table.error(name, f"is {dims!r}; a list of sizes above 0 is wanted")
        shapes[name] = tuple(dims)
    return shapes


def _arrivals(table: TomlTable) -> Arrivals:
    kind = _one_of(table, "kind", ("periodic", "burst", "poisson", "stream"))
    start = table.number("start_ms") if _given(table, "start_ms") else 0.0
    if start and kind in ("poisson", "stream"):
        raise table.error("start_ms", f"is only for periodic and burst arrivals, not for {kind}")
    arrivals: Arrivals
    match kind:
        case "periodic":
            arrivals = Periodic(table.number("fps", above_zero=True), start)
        case "burst":
            every = table.number("every_ms", above_zero=True)
            arrivals = Burst(_whole(table, "size", 1), every, start)
        case "poisson":
            arrivals = Poisson(table.number("rate", above_zero=True))
        case _:
            arrivals = Stream(_whole(table, "in_flight", 1))
    table.nothing_else()
    return arrivals


def _whole(table: TomlTable, key: str, least: int) -> int:
    number = table.number(key)
    if number != int(number) or number < least:
        raise table.error(key, f"is {number:g}; a whole number from {least} on is wanted")
    return int(number)


def with_duration(workload: Workload, seconds: float | None) -> Workload:
    """The workload for so many seconds instead of its own.

    Raises:
        UsageError: the time is not above 0.
    """
    if seconds is None:
        return workload
    if not seconds > 0 or not math.isfinite(seconds):
        raise UsageError(f"--duration {seconds:g}: it must be above 0 seconds")
    models, specs = workload.models, workload.processors
    return Workload(models, specs, seconds * 1e3, workload.seed, workload.drop_late)
