"""Threads that drive processors: each on the cores of its own, where it has some.

A thread that hands work over takes time of a core. On the core of its own processor it takes it
from that one; elsewhere from another processor that counts on the core.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from coexec.base.cores import Core, physical_cores, pin_this_thread
from coexec.core.processor import Runner

Cores = tuple[Core, ...]


def own_cores(processor: Runner) -> Cores:
    """Cores that a processor consists of; none if it is all of them, or something else."""
    resources = processor.describe().resources
    names = {f"cpu:{number}": core for number, core in enumerate(physical_cores())}
    found = tuple(names[name] for name in resources if name in names)
    return found if len(found) == len(resources) < len(names) else ()


def thread_for(name: str, cores: Cores) -> ThreadPoolExecutor:
    """A thread for the work of a processor, tied to ``cores`` if there are any."""

    def prepare() -> None:
        if cores:
            pin_this_thread(cores)

    return ThreadPoolExecutor(1, f"coexec {name}", initializer=prepare)
