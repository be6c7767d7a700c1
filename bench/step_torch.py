"""The same training step in PyTorch on the CPU: a worker of training_step.py (see step_coexec.py).

The modules have the parameter names of coexec's zoo, so the ONNX file's weights load into them
one by one. Needs torch and onnx, not coexec: it may run in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as f


class LeNet(nn.Module):
    """conv 20, pool, conv 50, pool, fc 500, fc 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) -> (N, 10)."""
        x = f.max_pool2d(f.relu(self.conv1(x)), 2)
        x = f.max_pool2d(f.relu(self.conv2(x)), 2)
        y: Tensor = self.fc2(f.relu(self.fc1(x.flatten(1))))
        return y


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.ModuleDict()
        if stride != 1 or inputs != width:
            self.downsample["conv"] = nn.Conv2d(inputs, width, 1, stride, bias=False)
            self.downsample["bn"] = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Channels grow and the image shrinks where the stride says so."""
        h = f.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        for layer in self.downsample.values():
            x = layer(x)
        return f.relu(h + x)


class ResNet18(nn.Module):
    """ResNet-18 with the stem for 32 x 32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for number, width in enumerate((64, 128, 256, 512), start=1):
            stride = 1 if number == 1 else 2
            blocks = BasicBlock(inputs, width, stride), BasicBlock(width, width, 1)
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            inputs = width
        self.fc = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 10)."""
        x = f.relu(self.bn1(self.conv1(x)))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


MODULES: dict[str, type[nn.Module]] = {"lenet5": LeNet, "resnet18": ResNet18}


def module_of(path: str) -> nn.Module:
    """The module of an ONNX file of the zoo, with its weights."""
    graph = onnx.load(path).graph
    module = MODULES[graph.name]()
    weights = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in graph.initializer}
    missing, unexpected = module.load_state_dict(weights, strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise SystemExit(f"{graph.name}: missing {missing}, unexpected {unexpected}")
    return module


def main() -> None:
    """Build, make the first step, then serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="ONNX file of the zoo")
    parser.add_argument("data", help=".npz with x and labels: one batch")
    parser.add_argument("form", choices=("eager", "channels-last"))
    parser.add_argument("--started", type=float, required=True, help="time.time() of the launch")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = np.load(arguments.data)
    x, labels = torch.tensor(data["x"]), torch.tensor(data["labels"])
    module = module_of(arguments.model).train()
    if arguments.form == "channels-last":
        module, x = (
            module.to(memory_format=torch.channels_last),
            x.to(memory_format=torch.channels_last),
        )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)

    def step() -> float:
        optimizer.zero_grad()
        loss = f.cross_entropy(module(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    loss = step()
    ready = {"first_step_s": time.time() - arguments.started, "loss_first": loss}
    print(json.dumps({**ready, "version": torch.__version__}), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            loss = step()
            times.append((time.perf_counter() - start) * 1e3)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"ms": times, "loss": loss, "process_bytes": rss}), flush=True)


if __name__ == "__main__":
    main()
