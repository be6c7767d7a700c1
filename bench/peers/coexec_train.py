"""Training steps on coexec."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import coexec
from bench.resident import forget_peak, peak_bytes
from coexec.steps.builder import Precision


class Training:
    """SGD with momentum on one batch; the results are the losses of the first two steps."""

    def __init__(
        self, processor: str, spec: Mapping[str, Any], precision: Precision, started: float
    ) -> None:
        self.before_bytes = forget_peak()
        data = np.load(spec["data"])
        self.x, self.labels = data["x"], data["labels"]
        self.trainer = coexec.Trainer(
            coexec.load(spec["onnx"], shapes={"x": self.x.shape}),
            coexec.losses.SoftmaxCrossEntropy(),
            coexec.optim.SGD(spec["rate"], momentum=0.9),
            [processor],
            precision=precision,
        )
        self.losses = [self._step()]
        self.first_step_s = time.time() - started
        self._until_updated()
        self.losses.append(self._step())
        if self.trainer.plan.table():
            raise RuntimeError(f"not all on {processor}: {self.trainer.plan.table()}")

    def _step(self) -> float:
        return self.trainer.step({"x": self.x}, self.labels)

    def _until_updated(self) -> None:
        """Repeat a first step whose scaled gradients overflowed: it changed only the scale."""
        seen = 0
        while self.trainer.loss_scale.overflows > seen:
            seen = self.trainer.loss_scale.overflows
            self._step()

    def run(self, count: int) -> None:
        for _ in range(count):
            self._step()

    def outputs(self) -> Sequence[Any]:
        return [np.array(self.losses)]

    def facts(self) -> Mapping[str, Any]:
        return {
            "first_step_s": self.first_step_s,
            "losses": self.losses,
            "planned_bytes": self.trainer.peak_bytes,
            "naive_bytes": self.trainer.program.naive_bytes,
            "process_bytes": peak_bytes(),
            "grown_bytes": peak_bytes() - self.before_bytes,
        }
