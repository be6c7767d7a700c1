"""Training steps of MNN's MNIST net, with the weights of the zoo's LeNet: the same network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import MNN
import numpy as np
import onnx
from MNN import expr, nn, optim
from onnx import numpy_helper

CLASSES = 10


class Net(nn.Module):
    """MNN's example: conv 20, pool, conv 50, pool, fc 500, fc 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.conv(1, 20, [5, 5])
        self.conv2 = nn.conv(20, 50, [5, 5])
        self.fc1 = nn.linear(800, 500)
        self.fc2 = nn.linear(500, CLASSES)

    def forward(self, x: Any) -> Any:
        """(N, 1, 28, 28) -> (N, 10), probabilities."""
        x = expr.max_pool(expr.relu(self.conv1(x)), [2, 2], [2, 2])
        x = expr.max_pool(expr.relu(self.conv2(x)), [2, 2], [2, 2])
        x = expr.reshape(expr.convert(x, expr.NCHW), [0, -1])
        return expr.softmax(self.fc2(expr.relu(self.fc1(x))), 1)


def with_weights(net: Net, path: str) -> Net:
    """Put an ONNX file's weights in place; MNN lists them from the last to the first.

    Raises:
        RuntimeError: a parameter has no counterpart of its size.
    """
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    layers = ("fc2", "fc1", "conv2", "conv1")
    names = [f"{layer}.{part}" for layer in layers for part in ("bias", "weight")]
    parameters = list(net.parameters)
    if [np.prod(p.shape) for p in parameters] != [tensors[name].size for name in names]:
        raise RuntimeError(f"MNN's parameters are {[p.shape for p in parameters]}")
    loaded = [
        expr.const(tensors[name], list(p.shape), expr.NCHW)
        for name, p in zip(names, parameters, strict=True)
    ]
    for variable in loaded:
        variable.fix_as_trainable()
    net.load_parameters(loaded)
    return net


class Training:
    """SGD with momentum on one batch; the results are the losses of the first two steps."""

    def __init__(self, spec: Mapping[str, Any], threads: int) -> None:
        expr.lazy_eval(True)  # without a graph of expressions there are no gradients
        expr.set_thread_number(threads)
        data = np.load(spec["data"])
        self.x, labels = data["x"], data["labels"]
        self.onehot = np.eye(CLASSES, dtype=np.float32)[labels]
        self.net = with_weights(Net(), spec["onnx"])
        self.net.train(True)
        self.optimizer = optim.SGD(self.net, spec["rate"], 0.9, 0.0)
        self.losses = [self._loss_before_step(), self._loss_before_step()]

    def _loss_before_step(self) -> float:
        """Read after the step, a loss is computed anew, with the new weights."""
        loss = self._loss()
        value = float(np.asarray(loss.read()).reshape(-1)[0])
        self.optimizer.step(loss)
        return value

    def _loss(self) -> Any:
        x = expr.const(self.x, list(self.x.shape), expr.NCHW)
        target = expr.const(self.onehot, list(self.onehot.shape), expr.NCHW)
        predicted = self.net.forward(expr.convert(x, expr.NC4HW4))
        return MNN.nn.loss.cross_entropy(predicted, target)

    def run(self, count: int) -> None:
        """As MNN's example trains: the loss is not read after every step."""
        for _ in range(count):
            self.optimizer.step(self._loss())

    def outputs(self) -> Sequence[Any]:
        return [np.array(self.losses)]

    def facts(self) -> Mapping[str, Any]:
        return {"losses": self.losses}
