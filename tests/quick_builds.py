"""Programs that are built to be run, and not to be kept. Opens no driver: that is the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pyopencl as cl

from coexec.processors.opencl.programs import POCL, ProgramCache


@contextmanager
def built_to_run() -> Iterator[None]:
    """Programs that are built meanwhile on PoCL are not written to the cache of coexec.

    Their binaries have every kernel for groups of any size too: compiling these takes about half of
    the time from a source to a first result, and tests that run a program once never read them.
    What did run is in PoCL's own cache.
    """
    store = ProgramCache._store

    def unless_pocl(cache: ProgramCache, file: Path, program: cl.Program) -> None:
        if cache.device.platform.name != POCL:
            store(cache, file, program)

    with mock.patch.object(ProgramCache, "_store", unless_pocl):
        yield
