"""The CPU beside the ladder: PyTorch where it is installed, else coexec's NumPy reference."""

from __future__ import annotations

import importlib.util
import time
from statistics import median
from typing import Any

from nets import NETS

import coexec
from coexec.core.types import Array

WARM_UP, STEPS = 2, 7


def cpu_baseline(name: str, batch: tuple[Array, Array], rate: float) -> dict[str, Any]:
    """Median training step on the CPU in milliseconds, and the engine that ran it."""
    if importlib.util.find_spec("torch") is not None:
        return {"engine": "PyTorch", "step_ms": _torch_step(name, batch, rate)}
    x, labels = batch
    trainer = coexec.Trainer(
        coexec.load(NETS[name]()),
        coexec.losses.SoftmaxCrossEntropy(),
        coexec.optim.SGD(learning_rate=rate),
        processors=["reference"],
    )
    return {"engine": "NumPy", "step_ms": _median(lambda: trainer.step({"x": x}, labels))}


def _torch_step(name: str, batch: tuple[Array, Array], rate: float) -> float:
    import torch  # noqa: PLC0415  optional, and heavy
    from torch_nets import build  # noqa: PLC0415  needs torch

    torch.set_num_threads(2)
    x, labels = (torch.from_numpy(array) for array in batch)
    net = build(name).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), labels).backward()
        optimizer.step()

    return _median(step)


def _median(step: Any) -> float:
    times = []
    for number in range(WARM_UP + STEPS):
        start = time.perf_counter()
        step()
        if number >= WARM_UP:
            times.append((time.perf_counter() - start) * 1e3)
    return median(times)
