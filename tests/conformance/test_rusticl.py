"""Kernels for GPUs under Mesa's Rusticl: the compiler that GPUs of Mesa have, here for the CPU.

clang makes SPIR-V of a kernel and Mesa lowers it, as it does for a phone's GPU: no builtins of x86,
other rules for barriers, alignment and private arrays than LLVM alone has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coexec.processors.opencl.table import FAMILIES
from tests.conformance.rusticl_worker import LEFT_OUT

ROOT = Path(__file__).parents[2]
REGISTERED = Path("/etc/OpenCL/vendors/rusticl.icd")
ENVIRONMENT = {**os.environ, "RUSTICL_ENABLE": "llvmpipe", "PYTHONPATH": str(ROOT)}
pytestmark = pytest.mark.skipif(
    not REGISTERED.exists(), reason="Rusticl is not installed (Debian: mesa-opencl-icd)"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh process in which the driver has a device."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_kernels_for_gpus_are_right_on_mesa() -> None:
    done = run("-m", "tests.conformance.rusticl_worker")
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert not report["findings"], json.dumps(report["findings"], indent=1)
    wanted = {family.name for family in FAMILIES if set(family.operators) - LEFT_OUT.keys()}
    assert set(report["families"]) == wanted


def test_a_rasteriser_is_the_last_choice() -> None:
    done = run(
        "-c",
        "from coexec.processors.opencl.discover import devices; print(*devices())",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = done.stdout.split()
    assert "opencl:rusticl" in names
    assert names.index("opencl:rusticl") == len(names) - 1
