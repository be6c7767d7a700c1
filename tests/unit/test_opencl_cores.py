"""A part of a CPU as a processor: how many threads compute there, where, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pyopencl as cl
import pytest

from coexec.base.cores import physical_cores, resources_of
from coexec.base.errors import ProcessorError
from coexec.processors.find import open_processor
from coexec.processors.opencl.discover import devices
from coexec.processors.opencl.options import DeviceOptions, parse_options
from coexec.processors.opencl.plugin import candidates
from coexec.processors.opencl.sub_devices import divide
from tests.runtimes import RUNTIMES

CPUS = [name for name in ("opencl:intel", "opencl:pocl") if name in RUNTIMES]
LAST = len(physical_cores()) - 1
pytestmark = pytest.mark.skipif(LAST < 1, reason="two cores are needed to have one of them")

BUSY = 0.1
"""Share of all CPU time from which a thread counts: waiting and waking take a little everywhere."""

PROGRAM = """
import json, os, sys
from pathlib import Path
import numpy as np
from coexec.base.errors import ProcessorError
from coexec.core.types import OpCall, Region, RegionNode, TensorType
from coexec.processors.find import list_processors, open_processor

def spent():
    # Nanoseconds of CPU time and logical CPUs of each thread; some end while they are asked.
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            ns = int((task / "schedstat").read_text().split()[0])
            found[int(task.name)] = ns, sorted(os.sched_getaffinity(int(task.name)))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found

def refusal(spec):
    try:
        return open_processor(spec).describe().name
    except ProcessorError as error:
        return str(error)

processor = open_processor(sys.argv[1])
kind = TensorType((640, 640), np.dtype("float32"))
node = RegionNode(OpCall("MatMul", (kind, kind), {}, (kind,), version=21), ("a", "b"), ("c",))
region = Region((node,), ("a", "b"), ("c",), dict.fromkeys("abc", kind))
executable = processor.compile(region)
rng = np.random.default_rng(0)
a, b = (rng.integers(-4, 4, kind.shape).astype(kind.dtype) for _ in "ab")
buffers = [processor.alloc(kind.nbytes) for _ in "abc"]
if executable.scratch_bytes:
    buffers.append(processor.alloc(executable.scratch_bytes))
for buffer, array in zip(buffers, (a, b)):
    processor.wait(processor.copy(buffer, array, ()))
processor.wait(processor.submit(executable, buffers, ()))
before = spent()
for _ in range(20):
    processor.wait(processor.submit(executable, buffers, ()))
after = spent()
c = np.empty_like(a)
processor.wait(processor.copy(c, buffers[2], ()))
described = processor.describe()
print(json.dumps({
    "equal": bool((c == a @ b).all()),
    "units": described.compute_units,
    "resources": described.resources,
    "threads": [
        (ns - before.get(task, (0, []))[0], cpus, task == os.getpid())
        for task, (ns, cpus) in after.items()
    ],
    "variable": os.environ.get("POCL_MAX_PTHREAD_COUNT"),
    "allowed": sorted(os.sched_getaffinity(0)),
    "refusals": {spec: refusal(spec) for spec in sys.argv[2:]},
    "names": [candidate.name for candidate in list_processors()],
}))
"""


def record_of(*specs: str) -> dict[str, Any]:
    """What a process of its own says that opens the first spec and computes there."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *specs],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    return record


@pytest.mark.skipif("opencl:intel" not in CPUS, reason="Intel's runtime is not installed")
def test_a_sub_device_computes_on_one_thread_and_not_on_the_one_that_waits() -> None:
    record = record_of("opencl:intel?cores=1")
    total = sum(ns for ns, _, _ in record["threads"])
    busy = [main for ns, _, main in record["threads"] if ns > BUSY * total]
    assert record["equal"]
    assert (record["units"], record["resources"]) == (1, [f"cpu:{LAST}"])
    assert busy == [False]


@pytest.mark.skipif("opencl:pocl" not in CPUS, reason="PoCL is not installed")
def test_pocl_computes_on_the_cores_it_was_given_and_on_no_other_ever_after() -> None:
    record = record_of("opencl:pocl?cores=1", "opencl:pocl", "opencl:pocl?cores=2")
    total = sum(ns for ns, _, _ in record["threads"])
    busy = [(cpus, main) for ns, cpus, main in record["threads"] if ns > BUSY * total]
    assert record["equal"]
    assert (record["units"], record["resources"]) == (1, [f"cpu:{LAST}"])
    assert busy == [([*physical_cores()[LAST]], False)]
    # Neither programs that this one starts nor the thread that asked are restricted.
    assert record["variable"] == os.environ.get("POCL_MAX_PTHREAD_COUNT")
    assert record["allowed"] == sorted(os.sched_getaffinity(0))
    whole, other = record["refusals"].values()
    assert "write opencl:pocl?cores=1" in whole
    assert "cannot change to 2" in other
    assert "opencl:pocl?cores=1" in record["names"]
    assert "opencl:pocl" not in record["names"]


@pytest.mark.skipif(len(CPUS) < 2, reason="two runtimes are needed")
def test_parts_are_opened_in_any_order() -> None:
    """PoCL is asked first, whatever place it has: another runtime's processor would start it."""
    specs = ["opencl:intel?cores=1", "opencl:pocl?cores=1&first=0"]
    program = (
        "import sys; from coexec.api import open_all;"
        "print(*[p.describe().resources for p in open_all(sys.argv[1:]).values()][:2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *specs],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip() == f"('cpu:{LAST}',) ('cpu:0',)", done.stderr


@pytest.mark.skipif("opencl:pocl" not in CPUS, reason="PoCL is not installed")
def test_pocl_that_already_runs_is_not_restricted() -> None:
    assert RUNTIMES  # found by asking every runtime for its devices
    with pytest.raises(ProcessorError, match="PoCL already runs in this process, on all cores"):
        open_processor("opencl:pocl?cores=1")
    assert open_processor("opencl:pocl").describe().compute_units > 1


@pytest.mark.skipif("opencl:intel" not in CPUS, reason="Intel's runtime is not installed")
def test_parts_are_opened_once_and_a_part_of_all_cores_is_the_device() -> None:
    part = open_processor("opencl:intel?cores=1")
    assert part is open_processor("opencl:intel?cores=1")
    assert part.describe().name == "opencl:intel?cores=1"
    whole = open_processor(f"opencl:intel?cores={LAST + 1}").describe()
    assert whole.resources == open_processor("opencl:intel").describe().resources
    assert whole.compute_units == open_processor("opencl:intel").describe().compute_units


@pytest.mark.parametrize("runtime", CPUS)
def test_whole_devices_occupy_every_core(runtime: str) -> None:
    found = {candidate.name: candidate.spec for candidate in candidates()}[runtime]
    assert found is not None
    assert found.resources == resources_of() == tuple(f"cpu:{i}" for i in range(LAST + 1))


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "two", "99999", "0-1"])
def test_a_count_of_cores_is_a_positive_number(count: str) -> None:
    with pytest.raises(ProcessorError, match=f"cores={count} is no count of cores"):
        parse_options("opencl:pocl", {"cores": count})


def test_options_with_cores_are_read_and_written() -> None:
    options = parse_options("opencl:pocl", {"kernels": "naive", "cores": "3"})
    assert options == DeviceOptions(kernels="naive", cores=3)
    assert str(options) == "?kernels=naive&cores=3"
    with pytest.raises(ProcessorError, match=r"no option core=3; known: .*, cores=COUNT"):
        parse_options("opencl:pocl", {"core": "3"})


@pytest.mark.parametrize("runtime", CPUS)
def test_more_cores_than_there_are_are_refused(runtime: str) -> None:
    with pytest.raises(ProcessorError, match=f"has {LAST + 1} cores, not {LAST + 2}"):
        open_processor(f"{runtime}?cores={LAST + 2}")


@pytest.mark.skipif("opencl:intel" not in CPUS, reason="its driver makes sub-devices")
def test_a_part_may_begin_at_any_core() -> None:
    part = open_processor("opencl:intel?cores=1&first=0").describe()
    assert (part.name, part.resources) == ("opencl:intel?cores=1&first=0", ("cpu:0",))
    last = open_processor(f"opencl:intel?cores=1&first={LAST}").describe()
    assert last.resources == open_processor("opencl:intel?cores=1").describe().resources
    with pytest.raises(ProcessorError, match=f"no 1 cores from number {LAST + 1} on"):
        open_processor(f"opencl:intel?cores=1&first={LAST + 1}")


@pytest.mark.parametrize("options", [{"first": "0"}, {"cores": "1", "first": "-1"}])
def test_first_is_the_number_of_a_core_of_a_part(options: dict[str, str]) -> None:
    with pytest.raises(ProcessorError, match="is the number of a core"):
        parse_options("opencl:pocl", options)


def test_cores_of_no_runtime_in_particular_are_refused() -> None:
    with pytest.raises(ProcessorError, match=r"write opencl:<runtime>\?cores=1"):
        open_processor("opencl?cores=1")


class Undivided:
    """A GPU whose driver has no partitions, as most do."""

    name = "Some GPU"
    type = cl.device_type.GPU
    max_compute_units = 8
    partition_properties = (0,)


class Divided(Undivided):
    """A GPU whose driver says it has partitions and then does not make them."""

    partition_properties = (cl.device_partition_property.BY_COUNTS,)

    def create_sub_devices(self, _counts: list[int]) -> list[cl.Device]:
        raise cl.RuntimeError(
            "clCreateSubDevices failed: DEVICE_PARTITION_FAILED",
        )


def test_devices_that_cannot_be_divided_say_so() -> None:
    with pytest.raises(ProcessorError, match="Some GPU does not divide it; leave cores=1 out"):
        divide("opencl:some", Undivided(), 1)
    with pytest.raises(ProcessorError, match="1 of 8 compute units are refused"):
        divide("opencl:some", Divided(), 1)
    with pytest.raises(ProcessorError, match="has 8 compute units, not 9"):
        divide("opencl:some", Undivided(), 9)


def test_the_device_of_a_process_is_divided_only_where_a_part_was_asked_for() -> None:
    assert all(device.parent_device is None for device in devices().values())
