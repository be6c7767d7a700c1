"""Options of ``ort:cpu``, as ``ort:cpu?threads=1&cores=0``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from coexec.base.cores import Core
from coexec.base.errors import ProcessorError

FORM = "threads=COUNT, cores=LIST with a list as 0, 0-3 or 0+2"


@dataclass(frozen=True)
class OrtOptions:
    """``threads`` compute inside an operator (0: one per core); ``cores`` by number, () for any."""

    threads: int = 0
    cores: tuple[int, ...] = ()

    def __str__(self) -> str:
        chosen = [f"threads={self.threads}"] if self.threads else []
        chosen += [f"cores={'+'.join(map(str, self.cores))}"] if self.cores else []
        return f"?{'&'.join(chosen)}" if chosen else ""

    def thread_count(self, available: tuple[Core, ...]) -> int:
        """Threads to start, the calling one included."""
        return self.threads or len(self.cores) or len(available) or os.cpu_count() or 1


DEFAULT_OPTIONS = OrtOptions()


def parse_options(
    spec: str, options: Mapping[str, str], available: tuple[Core, ...], known: tuple[str, ...]
) -> OrtOptions:
    """Options by name; ``available`` are the cores of the host, ``known`` the options there are.

    Raises:
        ProcessorError: an unknown option, or a value that makes no sense on this host.
    """
    for name in options:
        if name not in known:
            form = FORM if known else "none"
            raise ProcessorError(f"processor {spec!r} has no option {name!r}; known: {form}")
    threads = _count(spec, options["threads"]) if "threads" in options else 0
    cores = _cores(spec, options["cores"], available) if "cores" in options else ()
    if cores and threads > len(cores):
        raise ProcessorError(
            f"processor {spec!r}: {threads} threads on {len(cores)} cores would wait for each other"
        )
    return OrtOptions(threads, cores)


def _count(spec: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise ProcessorError(
            f"processor {spec!r}: threads={text} is no count of threads (1, 2, ..)"
        )
    return int(text)


def _cores(spec: str, text: str, available: tuple[Core, ...]) -> tuple[int, ...]:
    if not available:
        raise ProcessorError(f"processor {spec!r}: this system does not tie threads to cores")
    chosen: set[int] = set()
    for item in text.split("+"):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", item)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ProcessorError(f"processor {spec!r}: cores={text} is no list; write {FORM}")
        chosen.update(range(first, last + 1))
    unknown = sorted(core for core in chosen if core >= len(available))
    if unknown:
        raise ProcessorError(
            f"processor {spec!r}: this process has the cores 0 to {len(available) - 1}, "
            f"not {', '.join(map(str, unknown))}"
        )
    return tuple(sorted(chosen))
