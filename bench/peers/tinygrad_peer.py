"""tinygrad on one of coexec's OpenCL devices.

Options: ``processor``, its spec; ``site``, the folder in which tinygrad is installed. The worker
runs where coexec does, because coexec finds the OpenCL runtimes and names their devices.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from bench.worker import Job
from coexec.processors.find import open_processor

CONVOLUTIONS, PRODUCTS = ("conv1", "conv2"), ("fc1", "fc2")


class Training:
    """SGD with momentum on one batch of LeNet, as one captured step."""

    def __init__(self, tinygrad: Any, spec: Mapping[str, Any], started: float) -> None:
        data = np.load(spec["data"])
        tensor = tinygrad.Tensor
        self.x, self.labels = data["x"], data["labels"].astype(np.int32)
        weights = {
            t.name: tensor(np.array(numpy_helper.to_array(t))).contiguous().realize().is_param_()
            for t in onnx.load(spec["onnx"]).graph.initializer
        }
        optimizer = importlib.import_module("tinygrad.nn.optim").SGD(
            list(weights.values()), lr=spec["rate"], momentum=0.9
        )

        def step(x: Any, labels: Any) -> Any:
            with tinygrad.Context(TRAINING=1):
                optimizer.zero_grad()
                loss = lenet(x, weights).sparse_categorical_crossentropy(labels).backward()
                return loss.realize(*optimizer.schedule_step())

        self._tensor, self._captured = tensor, tinygrad.TinyJit(step)
        self.losses = [self._step()]
        self.first_step_s = time.time() - started
        self.losses.append(self._step())
        self._step()  # the third call is the first that repeats the captured kernels

    def _step(self) -> float:
        x = self._tensor(self.x).realize()
        return float(self._captured(x, self._tensor(self.labels).realize()).item())

    def run(self, count: int) -> None:
        for _ in range(count):
            self._step()

    def outputs(self) -> Sequence[Any]:
        return [np.array(self.losses)]

    def facts(self) -> Mapping[str, Any]:
        return {"first_step_s": self.first_step_s, "losses": self.losses}


def lenet(x: Any, w: Mapping[str, Any]) -> Any:
    """(N, 1, 28, 28) -> (N, 10) with weights under the zoo's names."""
    for name in CONVOLUTIONS:
        x = x.conv2d(w[f"{name}.weight"], w[f"{name}.bias"]).relu().max_pool2d()
    x = x.flatten(1)
    for name in PRODUCTS:
        x = x.relu() if name != PRODUCTS[0] else x
        x = x.linear(w[f"{name}.weight"].T, w[f"{name}.bias"])
    return x


class TinygradPeer:
    """Training of LeNet."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        sys.path.append(options["site"])  # behind coexec's own packages
        self.started: float = options["started"]
        device = open_processor(options["processor"]).device  # type: ignore[attr-defined]
        os.environ |= {"CL": "1", "DEV": "CL", "OPENCL_PATH": str(opencl_loader())}
        self.tinygrad = importlib.import_module("tinygrad")
        runtime = importlib.import_module("tinygrad.runtime.ops_cl")
        types = importlib.import_module("tinygrad.runtime.autogen.opencl")
        handle = ctypes.cast(device.int_ptr, types.cl_device_id)
        runtime.CLDevice.device_ids = (types.cl_device_id * 1)(handle)

    def describe(self) -> Mapping[str, Any]:
        version = importlib.import_module("importlib.metadata").version("tinygrad")
        return {"library": "tinygrad", "version": version}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("only coexec measures devices")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        return Training(self.tinygrad, case["spec"], self.started)


def opencl_loader() -> Path:
    """The loader that this process has loaded: handles of devices are its own.

    Raises:
        RuntimeError: there is none.
    """
    found = re.search(r"/\S*libOpenCL\S*", Path("/proc/self/maps").read_text())
    if found is None:
        raise RuntimeError("no OpenCL loader in this process")
    return Path(found[0])


def open_peer(options: Mapping[str, Any]) -> TinygradPeer:
    """Open the device.

    Raises:
        ProcessorError: it is not there.
        ModuleNotFoundError: tinygrad is not.
    """
    return TinygradPeer(options)
