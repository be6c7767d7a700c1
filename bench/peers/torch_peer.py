"""PyTorch on the CPU.

Options: ``threads``; ``form`` of convolutions and training steps: ``eager``, ``channels-last``; of
training steps also ``compile`` or ``bf16`` (autocast, with channels-last tensors).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bench.peers.torch_ops import OperatorCall
from bench.peers.torch_train import Training
from bench.worker import Job


class TorchPeer:
    """Operators and training steps."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        self.form: str = options.get("form", "eager")
        self.started: float = options.get("started", 0.0)

    def describe(self) -> Mapping[str, Any]:
        return {"library": "PyTorch", "version": torch.__version__}

    def measure(self) -> Mapping[str, Any]:
        raise NotImplementedError("PyTorch's CPU is measured by coexec")

    def prepare(self, case: Mapping[str, Any]) -> Job:
        if case["kind"] == "train":
            return Training(self.form, case["spec"], self.started)
        return OperatorCall(case["kind"], case["spec"], self.form)


def open_peer(options: Mapping[str, Any]) -> TorchPeer:
    """Set the number of threads, which PyTorch takes once."""
    return TorchPeer(options)
