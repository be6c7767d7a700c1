"""Random networks trained and run on two drivers that wait for each other, beside one alone.

A few each; COEXEC_STRESS=100 asks for that many.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from coexec.base.cores import physical_cores
from tests.runtimes import DRIVERS

NETWORKS = int(os.environ.get("COEXEC_STRESS", "4"))
SPECS = ["opencl:pocl?cores=1&first=0", "opencl:intel?cores=1"]
SECONDS = 90 + 5 * NETWORKS
WANTED = {"steps": ("meet", "again", "early"), "runs": ("divided", "failed")}


@pytest.mark.parametrize("kind", WANTED)
def test_random_networks_give_on_two_drivers_what_they_give_on_one(kind: str) -> None:
    """Also after a step without a loss, and after a run that failed midway; nobody waits long."""
    if len(DRIVERS) < 2 or len(physical_cores()) < 2:
        pytest.skip("no two drivers with a core each")
    command = [sys.executable, "-W", "ignore", "-m", "tests.pipeline.meeting_stress"]
    command += [kind, "0", str(NETWORKS), *SPECS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert all(counts.get(name, 0) >= NETWORKS / 4 for name in WANTED[kind]), counts
    assert "long" not in counts
