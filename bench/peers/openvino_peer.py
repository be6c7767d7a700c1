"""OpenVINO on the CPU. Option ``threads``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino

from bench.worker import Job


class Inference:
    """One request of a model compiled for latency, in float32."""

    def __init__(self, core: Any, spec: Mapping[str, Any], threads: int) -> None:
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.feeds = dict(np.load(spec["data"]))
        compiled = core.compile_model(core.read_model(spec["onnx"]), "CPU", settings)
        self.request = compiled.create_infer_request()
        self._outputs = [np.array(y) for y in self.request.infer(self.feeds).values()]

    def run(self, count: int) -> None:
        for _ in range(count):
            self.request.infer(self.feeds)

    def outputs(self) -> Sequence[Any]:
        return [np.ravel(y) for y in self._outputs]

    def facts(self) -> Mapping[str, Any]:
        return {}


class OpenVinoPeer:
    """Inference only."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.core = openvino.Core()

    def describe(self) -> Mapping[str, Any]:
        return {"library": "OpenVINO", "version": openvino.__version__}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("only coexec measures devices")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        return Inference(self.core, case["spec"], self.threads)


def open_peer(options: Mapping[str, Any]) -> OpenVinoPeer:
    """Load the CPU plug-in."""
    return OpenVinoPeer(options["threads"])
