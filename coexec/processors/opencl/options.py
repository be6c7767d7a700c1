"""Options of an OpenCL processor, as ``opencl:pocl?kernels=naive&transfer=map&tuned=off``.

The defaults are the fast choices. The others exist to see what each of them buys, and for drivers
on which one of them fails. ``cores`` makes a processor of a part of a device; ``first`` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from coexec.base.errors import ProcessorError
from coexec.core.device_memory import MEMORY, limit_of

KNOWN = {
    "kernels": ("best", "naive"),
    "transfer": ("best", "copy", "map"),
    "bind": ("once", "each"),
    "launch": ("together", "each"),
    "tuned": ("on", "off"),
    "unit": ("best", "gpu"),
    "follow": ("flag", "event"),
    "pages": ("best", "beside"),
}
CORES, FIRST = "cores", "first"
LAST_ONES = -1
MOST_CORES = 1024


@dataclass(frozen=True)
class DeviceOptions:
    """Choices of kernels, transfers, binding and tuned values, and how much of the device to use.

    ``kernels``: the best variants that apply, or the naive ones. ``transfer``: host data is copied
    by the driver (``best``: small tensors by the host itself, where the device computes on its
    memory), or goes through mapped memory. ``bind``: kernels get their arguments once per set of
    buffers, or at every launch. ``launch``: on CPUs, kernels of small networks one behind another
    are one launch, or each is one. ``tuned``: values that ``coexec tune`` found are used, or every
    kernel takes its defaults. ``unit``: kernels are laid out for what the device's compute units
    are, or as for those of a GPU. ``follow``: other processors are waited for by a kernel that
    reads a number in common memory, where that can be, or always by an event. ``pages``: tensors
    leave a CPU by kernels and other devices beside them, or always beside them. ``cores``: how many
    of the device's cores (0: all of it), from the core with number ``first`` on (-1: the last
    ones). ``memory``: the most that buffers and constants may take together, as ``64MiB`` (none:
    all that the device has).
    """

    kernels: str = "best"
    transfer: str = "best"
    bind: str = "once"
    launch: str = "together"
    tuned: str = "on"
    unit: str = "best"
    follow: str = "flag"
    pages: str = "best"
    cores: int = 0
    first: int = LAST_ONES
    memory: str = ""

    def __str__(self) -> str:
        chosen = [
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"?{'&'.join(chosen)}" if chosen else ""


DEFAULT_OPTIONS = DeviceOptions()


def parse_options(spec: str, options: Mapping[str, str]) -> DeviceOptions:
    """Options by name.

    Raises:
        ProcessorError: an unknown option or value; the known ones are listed.
    """
    words = {name: value for name, value in options.items() if name not in (CORES, FIRST, MEMORY)}
    for name, value in words.items():
        if name not in KNOWN or value not in KNOWN[name]:
            known = ", ".join(f"{n}={'|'.join(values)}" for n, values in KNOWN.items())
            raise ProcessorError(
                f"processor {spec!r} has no option {name}={value}; "
                f"known: {known}, {CORES}=COUNT, {FIRST}=NUMBER, {MEMORY}=BYTES"
            )
    memory = options.get(MEMORY, "")
    limit_of(spec, memory)
    cores = _count(spec, options[CORES]) if CORES in options else 0
    first = _first(spec, options, cores)
    return DeviceOptions(**words, cores=cores, first=first, memory=memory)


def _first(spec: str, options: Mapping[str, str], cores: int) -> int:
    text = options.get(FIRST)
    if text is None:
        return LAST_ONES
    if not cores or not text.isdecimal() or int(text) >= MOST_CORES:
        raise ProcessorError(
            f"processor {spec!r}: {FIRST}={text} is the number of a core (0, 1, ..), "
            f"and needs {CORES}=COUNT"
        )
    return int(text)


def _count(spec: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= MOST_CORES:
        raise ProcessorError(f"processor {spec!r}: cores={text} is no count of cores (1, 2, ..)")
    return int(text)
