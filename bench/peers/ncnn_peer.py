"""ncnn on the CPU. Option ``threads``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from bench.peers.convert import convert
from bench.worker import Job


class Inference:
    """A network that pnnx converted; ``in0`` and ``out0`` are its names for the ends."""

    def __init__(self, spec: Mapping[str, Any], threads: int) -> None:
        (image,) = dict(np.load(spec["data"])).values()
        self.image = image[0]
        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        self.net.opt.use_vulkan_compute = False
        with tempfile.TemporaryDirectory(prefix="coexec-bench-") as name:
            folder = Path(name)
            (folder / "model.onnx").symlink_to(spec["onnx"])
            shape = ",".join(map(str, image.shape))
            arguments = ["model.onnx", f"inputshape=[{shape}]", "fp16=0"]
            parameters = convert("pnnx", arguments, folder, "model.ncnn.param")
            self.net.load_param(str(parameters))
            self.net.load_model(str(folder / "model.ncnn.bin"))
        self._output = np.ravel(self._compute()).copy()

    def _compute(self) -> Any:
        extractor = self.net.create_extractor()
        extractor.input("in0", ncnn.Mat(self.image))
        status, result = extractor.extract("out0")
        if status:
            raise RuntimeError(f"ncnn's extract: status {status}")
        return np.array(result)

    def run(self, count: int) -> None:
        for _ in range(count):
            self._compute()

    def outputs(self) -> Sequence[Any]:
        return [self._output]

    def facts(self) -> Mapping[str, Any]:
        return {}


class NcnnPeer:
    """Inference only."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def describe(self) -> Mapping[str, Any]:
        return {"library": "ncnn", "version": ncnn.__version__}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("only coexec measures devices")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        return Inference(case["spec"], self.threads)


def open_peer(options: Mapping[str, Any]) -> NcnnPeer:
    """Nothing is opened before the first case."""
    return NcnnPeer(options["threads"])
