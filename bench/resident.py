"""Memory of this process: the largest resident size since it was last forgotten."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> int:
    """Start the peak anew from what is resident now; returns that, in bytes.

    Where the system cannot forget, the peak goes on and growth is understated.
    """
    with contextlib.suppress(OSError):
        FORGET.write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """The largest resident size in bytes.

    ``getrusage`` serves only where there is no ``/proc``: its figure starts at the parent's.
    """
    if STATUS.exists():
        found = re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    factor = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor
