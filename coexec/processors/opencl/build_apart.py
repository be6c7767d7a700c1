"""Programs built by another process: a compiler stays in the process that called it.

Its own code and what it has read and made take hundreds of MiB for as long as that process lives; a
program that was compiled elsewhere and is loaded takes about one.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence

from coexec.base.knobs import BUILD_APART
from coexec.processors.opencl.executable import ProgramSource

BUILT = "built"
"""What it says once all programs are in the cache: behind that, it makes binaries smaller."""

log = logging.getLogger(__name__)


def worth_a_process(count: int, *, again: bool) -> bool:
    """Whether so many programs are to be compiled by another process, maybe not for the first time.

    The first program that this process compiles itself costs as much memory as all that follow.
    """
    least = BUILD_APART.number
    return bool(sys.executable) and least > 0 and count >= (1 if again else least)


def build_apart(name: str, sources: Sequence[ProgramSource]) -> bool:
    """Have another process compile ``sources`` into the cache, and make their binaries smaller.

    ``name`` is the processor name of the device. What does not get built (the log says why) is left
    to the caller, who then hears the compiler's own complaint. False if smaller binaries were tried
    and the driver does not take them.
    """
    start = f"import sys; sys.path[:] = {sys.path!r}"
    worker = "from coexec.processors.opencl.build_worker import main; main()"
    try:
        done = subprocess.run(  # noqa: S603  this very interpreter
            [sys.executable, "-c", f"{start}; {worker}", name],
            input=json.dumps([[source.family, source.text] for source in sources]),
            capture_output=True,
            text=True,
            check=False,
            process_group=0,  # Ctrl-C is for this process, which then ends the other one
        )
    except OSError as error:
        log.warning("no other process to build kernels in (%s): they are built here", error)
        return True
    why = " ".join(done.stderr.strip().splitlines()[-1:])
    if done.returncode and BUILT in done.stdout.split():
        log.warning("%s takes no smaller binaries (%s): they stay as they are", name, why)
        return False
    if done.returncode:
        log.warning("another process could not build all kernels (%s): the rest is built here", why)
    return True
