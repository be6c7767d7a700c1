"""Training steps in PyTorch, with the weights of an ONNX file of coexec's zoo."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as f

from bench.peers.torch_zoo import MODULES
from bench.resident import forget_peak, peak_bytes

Step = Callable[[], torch.Tensor]


def module_of(path: str) -> nn.Module:
    """The twin of an ONNX file of the zoo, with its weights.

    Raises:
        RuntimeError: a weight has no counterpart, or one of the module's is missing.
    """
    graph = onnx.load(path).graph
    weights = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in graph.initializer}
    module = MODULES[graph.name]()
    missing, unexpected = module.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if unexpected or missing:
        raise RuntimeError(f"{graph.name}: missing {missing}, unexpected {unexpected}")
    return module


def step_of(
    module: nn.Module, x: torch.Tensor, labels: torch.Tensor, form: str, rate: float
) -> Step:
    """One step of SGD with momentum in the form that is wanted; returns its loss.

    In the form ``compile``, forward and backward are compiled; the update is PyTorch's own.
    """
    if form in ("channels-last", "bf16") and x.ndim == 4:
        module = module.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9)
    forward: Callable[[torch.Tensor], torch.Tensor] = (
        torch.compile(module) if form == "compile" else module
    )

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=form == "bf16"):
            y = forward(x)
        loss = f.cross_entropy(y.float(), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


class Training:
    """SGD with momentum on one batch; the results are the losses of the first two steps."""

    def __init__(self, form: str, spec: Mapping[str, Any], started: float) -> None:
        data = np.load(spec["data"])
        x, labels = torch.tensor(data["x"]), torch.tensor(data["labels"])
        self.before_bytes = forget_peak()
        module = module_of(spec["onnx"]).train()
        self._step = step_of(module, x, labels, form, spec["rate"])
        self.losses = [self._step().item()]
        self.first_step_s = time.time() - started
        self.losses.append(self._step().item())

    def run(self, count: int) -> None:
        for _ in range(count):
            self._step().item()

    def outputs(self) -> Sequence[Any]:
        return [np.array(self.losses)]

    def facts(self) -> Mapping[str, Any]:
        """``grown_bytes``: how much more memory the process took at most than before the model."""
        return {
            "first_step_s": self.first_step_s,
            "losses": self.losses,
            "process_bytes": peak_bytes(),
            "grown_bytes": peak_bytes() - self.before_bytes,
        }
