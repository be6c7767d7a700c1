"""Starting PoCL on some cores only.

PoCL makes its threads once per process, when it is first asked for devices, and its sub-devices
run on all of them. It takes their number from ``POCL_MAX_PTHREAD_COUNT``; the cores they may use
are inherited from the thread that asks. So a thread tied to these cores asks PoCL's own library,
ahead of the loader, through the table of functions that every driver gives to loaders. Neither the
variable nor the caller's cores are different afterwards.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coexec.base.cores import Core, pin_this_thread
from coexec.base.errors import ProcessorError
from coexec.base.interrupts import interrupts_held
from coexec.processors.opencl.runtimes import pocl_libraries, prepare_loader

COUNT = "POCL_MAX_PTHREAD_COUNT"
TASKS = Path("/proc/self/task")
GET_DEVICES = 2
"""Place of ``clGetDeviceIDs`` in a driver's table (``cl_icd_dispatch`` of the OpenCL headers)."""
CPU = 1 << 1
SUCCESS = 0

_limits: list[tuple[Core, ...]] = []
"""The cores that PoCL was started on, if this module did it."""


def pocl_limit() -> int:
    """How many cores PoCL was restricted to in this process; 0: it was not."""
    return len(_limits[0]) if _limits else 0


def limit_pocl(cores: Sequence[Core]) -> None:
    """Start PoCL on these cores; nothing happens if it runs on them already.

    Raises:
        ProcessorError: PoCL is absent, or it already runs with other threads.
    """
    if _limits == [tuple(cores)]:
        return
    if _limits:
        raise ProcessorError(
            f"PoCL runs with cores={pocl_limit()} ({_limits[0]}) and cannot change to {len(cores)} "
            f"({tuple(cores)}): it makes its threads once in a process; use another one"
        )
    prepare_loader()
    libraries = pocl_libraries()
    if not libraries:
        raise ProcessorError("cores=COUNT needs PoCL's library, and no driver file names one")
    with (
        interrupts_held(),
        ThreadPoolExecutor(1, initializer=pin_this_thread, initargs=(tuple(cores),)) as tied,
    ):
        started = [tied.submit(_start, library, len(cores)).result() for library in libraries]
    if not all(started):
        raise ProcessorError(
            f"PoCL already runs in this process, on all cores: open opencl:pocl?cores={len(cores)} "
            "before any other OpenCL device and before listing processors, or use another process"
        )
    _limits.append(tuple(cores))


def _start(library: str, threads: int) -> bool:
    """Have a PoCL library make its threads from this one; false if it had made them before."""
    before = _tasks()
    known = os.environ.get(COUNT)
    os.environ[COUNT] = str(threads)
    try:
        _ask_for_devices(ctypes.CDLL(library))
    finally:
        del os.environ[COUNT]
        if known is not None:
            os.environ[COUNT] = known
    made = [task for task in _tasks() - before if _allowed(task) == os.sched_getaffinity(0)]
    return len(made) == threads


def _ask_for_devices(pocl: ctypes.CDLL) -> None:
    """Call the library's ``clGetDeviceIDs`` as a loader does."""
    find = pocl.clGetExtensionFunctionAddress
    find.restype = ctypes.c_void_p
    address = find(b"clIcdGetPlatformIDsKHR")
    count, platform = ctypes.c_uint(0), ctypes.c_void_p()
    get_platforms = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_uint)
    )(address)
    if (
        get_platforms(1, ctypes.byref(platform), ctypes.byref(count)) != SUCCESS
        or not platform.value
    ):
        raise ProcessorError("PoCL's library has no platform")
    # A platform begins with the address of the table.
    table = ctypes.cast(platform, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    get_devices = ctypes.CFUNCTYPE(
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_uint),
    )(table[GET_DEVICES])
    if get_devices(platform, CPU, 0, None, ctypes.byref(count)) != SUCCESS:
        raise ProcessorError("PoCL's library has no CPU device")


def _tasks() -> set[int]:
    """The threads of this process."""
    return {int(task.name) for task in TASKS.iterdir()}


def _allowed(task: int) -> set[int]:
    """Logical CPUs that a thread may use; none if it has ended."""
    try:
        return os.sched_getaffinity(task)
    except ProcessLookupError:
        return set()
