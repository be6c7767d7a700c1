"""What the benchmark of launches divides by: the kernels of a run, not those that run only once."""

from __future__ import annotations

from bench.peers.coexec_launch import Launches
from coexec.processors.opencl.executable import OpenCLExecutable
from tests.runtimes import THOROUGH


def test_kernels_that_prepare_constants_are_no_launches_of_a_run() -> None:
    launches = Launches(THOROUGH[0], {"model": "lenet5"})
    ((_, executable, _),) = launches.resident.launches
    assert isinstance(executable, OpenCLExecutable)
    assert executable.preparation
    assert launches.kernels == len(executable.steps)
