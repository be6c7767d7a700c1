"""Races: random graphs by random plans on real processors, by every way to wait for each other.

A few graphs each; COEXEC_STRESS=1000 asks for that many.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from coexec.base.cores import physical_cores
from tests.runtimes import DRIVERS

pytest.importorskip("onnxruntime")
GRAPHS = int(os.environ.get("COEXEC_STRESS", "3"))
ORT, INTEL = "ort:cpu?threads=1&cores=0", "opencl:intel?cores=1"
POCL = "opencl:pocl?cores=1&kernels=naive"
"""The same few kernels for all graphs: PoCL takes long to build what is fused for each of them."""
FIRST_POCL = f"{POCL}&first=0"
EVENTS = "&follow=event"
WAYS = {
    "two drivers, flags": ("flag", "", (FIRST_POCL, INTEL)),
    "two drivers, events": ("event", "", (FIRST_POCL + EVENTS, INTEL + EVENTS)),
    "two drivers, maps": ("map", "apart", (FIRST_POCL, INTEL)),
    "ONNX Runtime and Intel, flags": ("flag", "", (ORT, INTEL)),
    "ONNX Runtime and Intel, events": ("event", "", (ORT, INTEL + EVENTS)),
    "ONNX Runtime and Intel, maps": ("map", "apart", (ORT, INTEL)),
    "ONNX Runtime and PoCL, flags": ("flag", "", (ORT, POCL)),
    "ONNX Runtime and PoCL, events": ("event", "", (ORT, POCL + EVENTS)),
    "ONNX Runtime and PoCL, maps": ("map", "apart", (ORT, POCL)),
    "three, two on one core": ("flag", "", (ORT, FIRST_POCL, INTEL)),
}
"""How processors have to wait for each other, how the run is set up, and on which."""
THOROUGH = "COEXEC_STRESS" in os.environ
QUICK = ("ONNX Runtime and Intel, flags", "ONNX Runtime and Intel, maps")
SECONDS = 60 + 2 * GRAPHS


@pytest.mark.parametrize("way", WAYS if THOROUGH else QUICK)
def test_random_graphs_on_real_processors_compute_what_the_operators_do(way: str) -> None:
    """Poisoned memory, results to the bit, and the way to wait that was meant."""
    wanted, options, specs = WAYS[way]
    needed = {spec.partition("?")[0] for spec in specs} - {"ort:cpu"}
    if not needed <= set(DRIVERS) or len(physical_cores()) < 2:
        pytest.skip(f"needs {', '.join(sorted(needed))} with a core each")
    command = [sys.executable, "-W", "ignore", "-m", "tests.pipeline.executor_stress"]
    command += ["0", str(GRAPHS), options, *specs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["divided"] > GRAPHS / 2
    # Where only results of one are left to fetch, nobody waits for anybody.
    assert counts.get(wanted, 0) >= counts["divided"] / 2
    if wanted != "flag":
        assert "flag" not in counts
