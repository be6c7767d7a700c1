"""ONNX Runtime on the CPU. Option ``threads``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from bench.worker import Job


class Inference:
    """A session with every optimisation that it has."""

    def __init__(self, spec: Mapping[str, Any], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.feeds = dict(np.load(spec["data"]))
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(spec["onnx"], options, providers=providers)
        self._outputs = self.session.run(None, self.feeds)

    def run(self, count: int) -> None:
        for _ in range(count):
            self.session.run(None, self.feeds)

    def outputs(self) -> Sequence[Any]:
        return [np.ravel(y) for y in self._outputs]

    def facts(self) -> Mapping[str, Any]:
        return {}


class OnnxRuntimePeer:
    """Inference only."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def describe(self) -> Mapping[str, Any]:
        return {"library": "ONNX Runtime", "version": onnxruntime.__version__}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("only coexec measures devices")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        return Inference(case["spec"], self.threads)


def open_peer(options: Mapping[str, Any]) -> OnnxRuntimePeer:
    """Nothing is opened before the first case."""
    return OnnxRuntimePeer(options["threads"])
