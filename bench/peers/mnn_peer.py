"""MNN on the CPU: inference of converted models, training of its MNIST net. Option ``threads``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import MNN
import numpy as np
import onnx
from MNN import expr

from bench.peers.convert import convert
from bench.peers.mnn_train import Training
from bench.worker import Job


class Inference:
    """A model that MNN's converter made of the ONNX file."""

    def __init__(self, spec: Mapping[str, Any], threads: int) -> None:
        ((self.name, image),) = dict(np.load(spec["data"])).items()
        output = onnx.load(spec["onnx"], load_external_data=False).graph.output[0].name
        with tempfile.TemporaryDirectory(prefix="coexec-bench-") as name:
            arguments = ["-f", "ONNX", "--modelFile", spec["onnx"], "--MNNModel", "model.mnn"]
            converted = convert(
                "mnnconvert", [*arguments, "--bizCode", "bench"], Path(name), "model.mnn"
            )
            self.net = MNN.nn.load_module_from_file(
                str(converted),
                [self.name],
                [output],
                thread_num=threads,
                precision_mode=expr.PrecisionMode.High,
            )
        self.image = image
        self._output = np.ravel(self._compute())

    def _compute(self) -> Any:
        x = expr.const(self.image, list(self.image.shape), expr.NCHW)
        (y,) = self.net.forward([x])
        return np.array(expr.convert(y, expr.NCHW).read())

    def run(self, count: int) -> None:
        for _ in range(count):
            self._compute()

    def outputs(self) -> Sequence[Any]:
        return [self._output]

    def facts(self) -> Mapping[str, Any]:
        return {}


class MnnPeer:
    """Inference, and training of LeNet."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def describe(self) -> Mapping[str, Any]:
        return {"library": "MNN", "version": MNN.version()}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("only coexec measures devices")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        if case["kind"] == "train":
            return Training(case["spec"], self.threads)
        return Inference(case["spec"], self.threads)


def open_peer(options: Mapping[str, Any]) -> MnnPeer:
    """Nothing is opened before the first case."""
    return MnnPeer(options["threads"])
