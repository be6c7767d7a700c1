"""What NumPy can do at most on this host, measured in about a second."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import numpy as np

from coexec.base.bursts import quiet_latency
from coexec.core.machine import Link, Rates

SIDE = 768
"""Side of the matrices multiplied: large enough for BLAS to reach its best."""
LARGE_BYTES = 64 << 20
REPEATS = 5

Action = Callable[[], object]


def measure() -> Rates:
    """GEMM peaks, bandwidth of an array addition, cost of a call, and memory copies."""
    call = _latency(_add(1)) * 1e6
    return Rates(
        peak_gflops={name: _gemm_gflops(name) for name in ("float32", "float64")},
        bandwidth_gbps=3 * LARGE_BYTES / _least_seconds(_add(LARGE_BYTES // 4)) / 1e9,
        launch_us=call,
        # NumPy returns when it is done: a call is its own wait.
        sync_us=call,
        links={"write": _copy_link(), "read": _copy_link()},
        driver=f"Python {platform.python_version()}, NumPy {np.__version__}",
    )


def _gemm_gflops(dtype: str) -> float:
    left = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(dtype)
    result = np.empty_like(left)
    return 2 * SIDE**3 / _least_seconds(lambda: np.matmul(left, left, out=result)) / 1e9


def _add(size: int) -> Action:
    left, right = np.ones(size, np.float32), np.ones(size, np.float32)
    result = np.empty(size, np.float32)
    return lambda: np.add(left, right, out=result)


def _copy_link() -> Link:
    source = np.ones(LARGE_BYTES, np.uint8)
    target = np.empty_like(source)
    tiny = _latency(lambda: np.copyto(target[:64], source[:64]))
    large = _least_seconds(lambda: np.copyto(target, source))
    return Link(latency_us=tiny * 1e6, gbps=LARGE_BYTES / (large - tiny) / 1e9)


def _seconds(action: Action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _least_seconds(action: Action) -> float:
    """Best of several calls, after one that warms up."""
    action()
    return min(_seconds(action) for _ in range(REPEATS))


def _latency(action: Action) -> float:
    """Seconds of a short action in quiet moments."""
    return quiet_latency(lambda: _seconds(action))
