"""What the host pays for handing one kernel over."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

import coexec
from bench.peers.coexec_ops import Resident
from coexec import zoo
from coexec.core.events import Trace


class Launches:
    """Inference of a model of the zoo on one image, again and again, with the input on the device.

    A run is handed over, the host's time for that is taken, and only then is it waited for.
    """

    def __init__(self, processor: str, spec: Mapping[str, Any]) -> None:
        model = coexec.load(zoo.build(spec["model"], batch=1))
        feeds = {"x": np.zeros((1, *zoo.CATALOG[spec["model"]].input_shape), np.float32)}
        session, trace = coexec.compile(model, [processor]), Trace()
        session.run(feeds)  # what prepares constants runs once, and is no part of a run
        session.run(feeds, trace=trace)
        self.kernels = sum(event.kind in ("launch", "layout") for event in trace.leaves())
        self.resident = Resident(model, processor, feeds)
        self._host: list[float] = []
        self.run(3)
        self._host.clear()

    def run(self, count: int) -> None:
        for _ in range(count):
            start = time.perf_counter()
            tickets = self.resident.submit()
            self._host.append(time.perf_counter() - start)
            for runner, ticket in tickets[-1:]:
                runner.wait(ticket)

    def outputs(self) -> Sequence[Any]:
        return self.resident.results

    def facts(self) -> Mapping[str, Any]:
        """``host_us``: the host's median time for one kernel."""
        if not self._host:
            return {"kernels": self.kernels}
        return {"kernels": self.kernels, "host_us": 1e6 * median(self._host) / self.kernels}
