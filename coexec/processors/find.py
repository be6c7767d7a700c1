"""Open a processor by its spec, or list all with the reason if absent: the only file with kinds.

A spec is ``kind[:device][?option=value&...]``: ``opencl``, ``opencl:pocl``, ``opencl:intel``,
``opencl:nvidia:1`` (second device of that platform), ``reference``. A kind is a folder with a
module ``plugin`` that has ``candidates() -> list[Candidate]`` and ``open_device(name) -> Processor``.
"""

from __future__ import annotations

import functools
import importlib
from typing import Protocol, cast

from coexec.base.errors import ProcessorError
from coexec.core.processor import Candidate, Processor

# Modules by name: a plug-in's libraries are imported when one of its processors is first wanted.
PLUGINS = {
    "opencl": "coexec.processors.opencl.plugin",
    "reference": "coexec.processors.reference.plugin",
}


class Plugin(Protocol):
    """What the ``plugin`` module of a processor folder offers."""

    def candidates(self) -> list[Candidate]: ...

    def open_device(self, name: str) -> Processor: ...


def list_processors() -> list[Candidate]:
    """Every processor coexec knows, available or not; the default comes first."""
    return [candidate for kind in PLUGINS for candidate in _plugin(kind).candidates()]


@functools.cache
def open_processor(spec: str) -> Processor:
    """Open a processor; the same spec gives the same one.

    Raises:
        ProcessorError: unknown spec (the known ones are listed) or absent device (with the reason).
    """
    name, _, options = spec.partition("?")
    kind = name.partition(":")[0]
    if kind not in PLUGINS:
        known = ", ".join(c.name for c in list_processors() if c.spec is not None)
        raise ProcessorError(f"unknown processor {spec!r}; known on this machine: {known}")
    if options:
        raise ProcessorError(f"processor {spec!r}: option {options!r} is not known to {kind!r}")
    return _plugin(kind).open_device(name)


def _plugin(kind: str) -> Plugin:
    return cast(Plugin, importlib.import_module(PLUGINS[kind]))
