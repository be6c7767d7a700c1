"""coexec on one processor.

Options: ``processor``, its spec, such as ``opencl:pocl``; ``precision`` of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import coexec
from bench.peers.coexec_infer import Inference
from bench.peers.coexec_launch import Launches
from bench.peers.coexec_ops import OperatorCall
from bench.peers.coexec_profiling import Profiling
from bench.peers.coexec_train import Training
from bench.worker import Job
from coexec.processors.find import measure_processor, open_processor
from coexec.steps.builder import Precision


class CoexecPeer:
    """Cases of every kind on one processor."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.processor: str = options["processor"]
        self.precision: Precision = options.get("precision", "float32")
        self.started: float = options.get("started", 0.0)
        self.device = open_processor(self.processor).describe()

    def describe(self) -> Mapping[str, Any]:
        return {
            "library": "coexec",
            "version": coexec.__version__,
            "device": self.device.device,
            "driver": self.device.driver,
        }

    def measure(self) -> Mapping[str, Any]:
        """Limits of the device, as ``coexec devices --measure`` has them."""
        rates = measure_processor(self.processor)
        return {
            "peak_gflops": rates.peak_gflops["float32"],
            "bandwidth_gbps": rates.bandwidth_gbps,
            "launch_us": rates.launch_us,
            "sync_us": rates.sync_us,
        }

    def prepare(self, case: Mapping[str, Any]) -> Job:
        match case["kind"]:
            case "train":
                return Training(self.processor, case["spec"], self.precision, self.started)
            case "infer":
                return Inference(self.processor, case["spec"])
            case "launch":
                return Launches(self.processor, case["spec"])
            case "profiling":
                return Profiling(self.processor, case["spec"])
        return OperatorCall(self.processor, case["kind"], case["spec"])


def open_peer(options: Mapping[str, Any]) -> CoexecPeer:
    """Open the processor.

    Raises:
        ProcessorError: it is not there.
    """
    return CoexecPeer(options)
