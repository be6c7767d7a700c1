"""What it takes to move a tensor off a device and back, to where its pages lie.

Pages in a file count as moved when they are on storage: as long as they are in the system's cache,
they take as much of the same memory as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from coexec.core.pages import PageLink, Pages
from coexec.core.processor import Processor
from coexec.cost.distribution import Distribution
from coexec.cost.model import ProcessorCosts
from coexec.cost.store import Entry

SMALL_BYTES, LARGE_BYTES = 1 << 12, 16 << 20
REPEATS = 3
OUT, IN = "#page out", "#page in"
"""Keys among a processor's times; time per byte stands in the features."""
HOST_MEMORY, STORAGE = "host memory", "storage"


def page_link(costs: ProcessorCosts) -> PageLink:
    """The way to a processor's pages: measured before, else now.

    Raises:
        DeviceMemoryError: there is no room for a few pages.
    """
    if costs.store.get(OUT) is None or costs.store.get(IN) is None:
        out, back = _measured(costs.processor)
        costs.store.put(OUT, out)
        costs.store.put(IN, back)
        costs.store.save()
    out, back = costs.store.entries[OUT], costs.store.entries[IN]
    spec = costs.processor.describe()
    return PageLink(
        STORAGE if spec.unified_memory else HOST_MEMORY,
        out.features[0],
        back.features[0],
        max(out.time.median_us, back.time.median_us),
        # A CPU copies with its own cores.
        1 / max(spec.compute_units, 1) if spec.kind == "cpu" else 0.0,
        beside=costs.processor.pages == "beside",
    )


def _measured(processor: Processor) -> tuple[Entry, Entry]:
    """Both directions, alternating, so that what comes back had left."""
    pages, buffer = processor.alloc_pages(LARGE_BYTES), processor.alloc(LARGE_BYTES)
    assert isinstance(pages, Pages)
    memory, file = pages.memory, pages.file

    def leave() -> None:
        processor.wait(processor.copy(memory, buffer, ()))
        if file is not None:
            file.to_storage()

    def come_back() -> None:
        processor.wait(processor.copy(buffer, memory, ()))

    leave()
    come_back()
    large = [(_us(leave), _us(come_back)) for _ in range(REPEATS)]
    few, small = memory[:SMALL_BYTES], processor.alloc(SMALL_BYTES)
    tiny_out = [_us(lambda: processor.wait(processor.copy(few, small, ()))) for _ in range(REPEATS)]
    tiny_in = [_us(lambda: processor.wait(processor.copy(small, few, ()))) for _ in range(REPEATS)]
    return _entry([out for out, _ in large], tiny_out), _entry([in_ for _, in_ in large], tiny_in)


def _entry(large: list[float], tiny: list[float]) -> Entry:
    per_byte = max(median(large) - median(tiny), 0.0) / LARGE_BYTES
    return Entry(Distribution.of(tiny), "", (per_byte,))


def _us(action: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - start) / 1e3
