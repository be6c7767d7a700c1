"""Open a processor by its spec, or list all with the reason if absent: the only file with kinds.

A spec is ``kind[:device][?option=value&...]``: ``opencl``, ``opencl:pocl``, ``opencl:intel``,
``opencl:nvidia:1`` (second device of that platform), ``ort:cpu?threads=1``, ``reference``,
``sim:snapdragon-865/gpu``. A kind is a folder with a module ``plugin`` (see :class:`Plugin`).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from coexec.base.collection import collection_paused
from coexec.base.errors import ProcessorError
from coexec.core.machine import Rates
from coexec.core.processor import Candidate, Executable, Processor, Runner
from coexec.core.tuning import Tuner, TunerModule
from coexec.core.types import Array

# Modules by name: a plug-in's libraries are imported when one of its processors is first wanted.
PLUGINS = {
    "opencl": "coexec.processors.opencl.plugin",
    "ort": "coexec.processors.ort.plugin",
    "reference": "coexec.processors.reference.plugin",
    "sim": "coexec.processors.simulated.plugin",
}


RUN_ONLY = {"opencl": "coexec.processors.opencl.run_only"}
"""Modules that run saved programs without the compiling half (see :class:`RunOnly`)."""

TUNERS = {"opencl": "coexec.processors.opencl.tune"}
"""Modules of processors whose kernels have tunables (see :class:`TunerModule`)."""

STARTED_ONCE, CORES = "opencl:pocl", "cores"
"""The processor that makes its threads once in a process, and the option that says where."""

QUANTISER = "coexec.processors.ort.plugin"
"""Module with quantisers (see :func:`quantise`)."""


class RunOnly(Protocol):
    """What a ``run_only`` module offers."""

    def open_runner(self, name: str, options: Mapping[str, str]) -> Runner: ...

    def load_executable(
        self, record: Mapping[str, Any], arrays: Mapping[str, Array], processor: str
    ) -> Executable: ...


class Plugin(Protocol):
    """What the ``plugin`` module of a processor folder offers."""

    def candidates(self) -> list[Candidate]: ...

    def open_device(self, name: str, options: Mapping[str, str]) -> Processor: ...

    def measure(self, name: str, options: Mapping[str, str]) -> Rates: ...


def list_processors() -> list[Candidate]:
    """Every processor coexec knows, available or not; the default comes first."""
    return [candidate for kind in PLUGINS for candidate in _candidates(kind)]


@functools.cache
@collection_paused()
def open_processor(spec: str) -> Processor:
    """Open a processor; the same spec gives the same one.

    Raises:
        ProcessorError: unknown spec (the known ones are listed) or absent device (with the reason).
    """
    plugin, name, options = _resolve(spec)
    return plugin.open_device(name, options)


def open_processors(specs: Sequence[str]) -> list[Processor]:
    """Open several; the order of the specs is that of the result, not that of opening.

    PoCL runs on some cores only if nothing has asked it for devices before, as other OpenCL
    processors do: what wants that comes first.

    Raises:
        ProcessorError: as :func:`open_processor`.
    """
    opened = {spec: open_processor(spec) for spec in sorted(specs, key=_opened_late)}
    return [opened[spec] for spec in specs]


def _opened_late(spec: str) -> bool:
    name, _, options = spec.partition("?")
    return name != STARTED_ONCE or CORES not in _parse_options(spec, options)


def measure_processor(spec: str) -> Rates:
    """Measure a processor's limits; takes a few seconds.

    Of the options, only those count that say how many cores or threads it has.

    Raises:
        ProcessorError: as :func:`open_processor`.
    """
    plugin, name, options = _resolve(spec)
    return plugin.measure(name, options)


def _resolve(spec: str) -> tuple[Plugin, str, dict[str, str]]:
    """The plug-in of a spec, the spec without options, and the options."""
    name, _, options = spec.partition("?")
    kind = name.partition(":")[0]
    if "," in name:
        each = " ".join(f"-p {part.strip()}" for part in spec.split(","))
        raise ProcessorError(f"processor {spec!r}: name one at a time, as in {each}")
    if kind not in PLUGINS:
        known = ", ".join(c.name for c in list_processors() if c.spec is not None)
        raise ProcessorError(f"unknown processor {spec!r}; known on this machine: {known}")
    return _plugin(kind), name, _parse_options(spec, options)


def _parse_options(spec: str, text: str) -> dict[str, str]:
    """``kernels=naive&bind=each`` as a mapping."""
    options: dict[str, str] = {}
    for item in filter(None, text.split("&")):
        name, separator, value = item.partition("=")
        if not (separator and name and value):
            raise ProcessorError(f"processor {spec!r}: write options as ?name=value&name=value")
        options[name] = value
    return options


def run_only(spec: str) -> RunOnly:
    """The module that runs saved programs of a processor.

    Raises:
        ProcessorError: programs of this kind of processor cannot be saved.
    """
    kind = spec.partition(":")[0]
    if kind not in RUN_ONLY:
        raise ProcessorError(f"saved programs run on {', '.join(RUN_ONLY)}, not on {spec!r}")
    return cast(RunOnly, importlib.import_module(RUN_ONLY[kind]))


def open_runner(spec: str) -> Runner:
    """The half of a processor that runs saved programs.

    Raises:
        ProcessorError: as :func:`open_processor`, or programs of this kind cannot be saved.
    """
    name, _, options = spec.partition("?")
    return run_only(spec).open_runner(name, _parse_options(spec, options))


def open_tuner(spec: str) -> Tuner:
    """A tuner for the kernels of a processor.

    Raises:
        ProcessorError: as :func:`open_processor`, or this kind of processor has no tunables.
    """
    _, name, options = _resolve(spec)
    return _tuner_module(spec).open_tuner(name, options)


def merge_tuned(paths: Sequence[Path], out: Path) -> int:
    """Merge files of tuned values of one device; the number of entries written.

    Raises:
        UsageError: a file cannot be read, or they are of different devices.
        SaveError: ``out`` cannot be written.
    """
    return _tuner_module(next(iter(TUNERS))).merge_tuned(list(paths), out)


def quantise(model: bytes, batches: Sequence[Mapping[str, Array]]) -> bytes:
    """The 8-bit form of an ONNX file's bytes; ``batches`` are typical inputs by name.

    Raises:
        ProcessorError: the quantiser's library is not installed.
        ModelError: it cannot run or quantise the model.
    """
    return bytes(importlib.import_module(QUANTISER).quantise(model, batches))


def quantise_dynamically(model: bytes) -> bytes:
    """An ONNX file's bytes with linear layers in 8 bits whose ranges are found in each run.

    Raises:
        ProcessorError: the quantiser's library is not installed.
        ModelError: it cannot run or quantise the model.
    """
    return bytes(importlib.import_module(QUANTISER).quantise_dynamically(model))


def _tuner_module(spec: str) -> TunerModule:
    kind = spec.partition("?")[0].partition(":")[0]
    if kind not in TUNERS:
        known = ", ".join(TUNERS)
        raise ProcessorError(f"processor {spec!r} has no kernels to tune; those of {known} have")
    return cast(TunerModule, importlib.import_module(TUNERS[kind]))


def _candidates(kind: str) -> list[Candidate]:
    """All of a kind, or why there are none."""
    try:
        return _plugin(kind).candidates()
    except ProcessorError as error:
        return [Candidate(kind, None, str(error))]


def _plugin(kind: str) -> Plugin:
    """The module of a kind of processors.

    Raises:
        ProcessorError: a library that it needs cannot be imported.
    """
    try:
        return cast(Plugin, importlib.import_module(PLUGINS[kind]))
    except (ImportError, OSError) as error:
        if isinstance(error, ImportError) and (error.name or "").startswith("coexec"):
            raise
        raise ProcessorError(
            f"{kind}: its library cannot be imported ({error}); pip install coexec brings what it "
            "needs, and XDG_CACHE_HOME has to name a folder that libraries can write to where the "
            "home cannot be written"
        ) from error
