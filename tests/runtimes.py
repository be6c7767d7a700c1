"""OpenCL runtimes of this machine, and how much each of them is asked to run.

Nearly every case of the conformance suites has programs of its own, and PoCL takes four times as
long as Intel's runtime to build one. So where both are installed, Intel's runs every case, and PoCL
every operator and every kernel variant at least once (test_kernels.py) and some of the models.
COEXEC_TEST_ALL=1 asks both for everything.
"""

from __future__ import annotations

import os

from coexec.processors.find import list_processors, open_processor
from coexec.processors.opencl.processor import OpenCLProcessor

RUNTIMES = [
    c.name for c in list_processors() if c.spec is not None and c.name.startswith("opencl:")
]
"""For single kernels; with COEXEC_OCLGRIND=1, oclgrind is one of them."""
DRIVERS = [name for name in RUNTIMES if name != "opencl:oclgrind"]
"""For whole models, which oclgrind interprets too slowly."""
SLOW_TO_BUILD = "opencl:pocl"


def runs_everything(runtime: str) -> bool:
    """Whether a runtime runs all cases, and not only some of every kind."""
    return runtime != SLOW_TO_BUILD or [runtime] == RUNTIMES or "COEXEC_TEST_ALL" in os.environ


THOROUGH = [name for name in DRIVERS if runs_everything(name)]
"""Runtimes that run all cases."""


def open_opencl(runtime: str) -> OpenCLProcessor:
    """The processor of a runtime, with what only OpenCL ones have."""
    processor = open_processor(runtime)
    assert isinstance(processor, OpenCLProcessor)
    return processor
