"""Inference on coexec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import coexec


class Inference:
    """A session; a run copies the input, computes and reads the output."""

    def __init__(self, processor: str, spec: Mapping[str, Any]) -> None:
        self.feeds = dict(np.load(spec["data"]))
        self.session = coexec.compile(coexec.load(spec["onnx"]), [processor])
        self._outputs = list(self.session.run(self.feeds).values())
        if self.session.fallbacks:
            raise RuntimeError(f"not all on {processor}: {self.session.fallbacks}")

    def run(self, count: int) -> None:
        for _ in range(count):
            self.session.run(self.feeds)

    def outputs(self) -> Sequence[Any]:
        return [np.ravel(y) for y in self._outputs]

    def facts(self) -> Mapping[str, Any]:
        return {"planned_bytes": self.session.peak_bytes}
