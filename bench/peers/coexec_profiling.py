"""What tracing costs: steps with and without a trace, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

import numpy as np

import coexec
from bench.suites.train import CLASSES
from coexec import zoo
from coexec.core.events import Trace
from coexec.profile import traced_step

PAIRS = 4
"""So many steps of each kind make quartiles."""


class Profiling:
    """A training step on random data, or inference of one image.

    A run is a traced and an untraced step; which comes first alternates.
    """

    def __init__(self, processor: str, spec: Mapping[str, Any]) -> None:
        self.step = _step(processor, spec)
        self._pairs: list[tuple[float, float]] = []
        self.run(3)
        self._pairs.clear()

    def run(self, count: int) -> None:
        for _ in range(count):
            if len(self._pairs) % 2:
                traced, plain = self._traced(), self._plain()
            else:
                plain, traced = self._plain(), self._traced()
            self._pairs.append((traced, plain))

    def _traced(self) -> float:
        return traced_step(self.step)[0] / 1e9

    def _plain(self) -> float:
        start = time.perf_counter()
        self.step(None)
        return time.perf_counter() - start

    def outputs(self) -> Sequence[Any]:
        return []

    def facts(self) -> Mapping[str, Any]:
        """Shares of the untraced step: ``trace_cost`` of medians; quartiles are over pairs."""
        if len(self._pairs) < PAIRS:
            return {}
        traced, plain = zip(*self._pairs, strict=True)
        low, _, high = quantiles((with_ / without for with_, without in self._pairs), n=4)
        return {
            "trace_pairs": len(self._pairs),
            "trace_cost": median(traced) / median(plain) - 1,
            "trace_cost_low": low - 1,
            "trace_cost_high": high - 1,
        }


def _step(processor: str, spec: Mapping[str, Any]) -> Callable[[Trace | None], object]:
    name, batch = spec["model"], spec["batch"]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *zoo.CATALOG[name].input_shape), np.float32)
    if not spec["train"]:
        session = coexec.compile(coexec.load(zoo.build(name, batch=batch)), [processor])
        return lambda trace: session.run({"x": x}, trace=trace)
    labels = rng.integers(0, CLASSES, batch)
    trainer = coexec.Trainer(
        coexec.load(zoo.build(name, batch=batch, classes=CLASSES)),
        coexec.losses.SoftmaxCrossEntropy(),
        coexec.optim.SGD(0.01, momentum=0.9),
        [processor],
    )
    return lambda trace: trainer.step({"x": x}, labels, trace)
