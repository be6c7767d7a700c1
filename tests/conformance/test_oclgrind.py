"""Kernels under oclgrind: no access out of bounds, no data race, right results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coexec.processors.opencl.runtimes import OCLGRIND_DRIVER
from coexec.processors.opencl.table import FAMILIES

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not OCLGRIND_DRIVER.exists(), reason="oclgrind is not installed (Debian: oclgrind)"
)
@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_kernels_have_no_race_and_stay_in_bounds(family: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "OCLGRIND_LOG": str(tmp_path / "log"),
        "COEXEC_OCLGRIND": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.conformance.oclgrind_worker", family],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["ran"] > 0, f"no example of {family} is small enough for oclgrind"
    assert not report["findings"], json.dumps(report["findings"], indent=1)
