"""Random small networks: convolutions with norms, residual blocks, branches, several inputs."""

from __future__ import annotations

import random

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array
from coexec.zoo.builder import Net, batch_norm, conv, linear, relu

CLASSES = 3
SIDES = (4, 5, 6, 8)
CHANNELS = (4, 6, 8)
WIDE = 160
"""Features of a hidden layer whose update is large enough to come early."""


def random_net(dice: random.Random) -> ir.Model:
    """Logits of three classes for images ``x``, and perhaps a second input ``z`` of that shape."""
    return _Random(dice).build()


def random_data(model: ir.Model, batch: int, seed: int) -> tuple[dict[str, Array], Array]:
    """Inputs by name and labels."""
    rng = np.random.default_rng(seed)
    shapes = {str(value.name): value.shape or () for value in model.graph.inputs}
    feeds = {
        name: rng.standard_normal((batch, *map(int, [*shape][1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
    return feeds, rng.integers(0, CLASSES, batch)


class _Random:
    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.channels, side = dice.choice(CHANNELS), dice.choice(SIDES)
        self.net = Net("random", [None, self.channels, side, side], seed=dice.randrange(99))
        self.count = 0
        # Tensors that later blocks may read again, all of one shape.
        self.known = [self.net.x]
        if dice.random() < 0.3:
            self.known.append(ir.Value(name="z", shape=self.net.x.shape, type=self.net.x.type))
            self.net.graph.inputs.append(self.known[-1])

    def build(self) -> ir.Model:
        x = self.net.x
        if len(self.known) > 1:
            x = self._append(self.net.op("Add", "both", self.known))
        for _ in range(self.dice.randint(1, 4)):
            block = self.dice.choice((self._chain, self._residual, self._branches, self._again))
            x = self._append(block(x))
        features = self.channels
        pooled = self.net.op("GlobalAveragePool", "pool", [x])
        x = self.net.op("Flatten", "flatten", [pooled], {"axis": 1})
        if self.dice.random() < 0.4:
            x = linear(self.net, x, "hidden", (features, WIDE), rectified=True)
            x = linear(self.net, relu(self.net, x, "hidden.relu"), "wide", (WIDE, WIDE))
            features = WIDE
        return self.net.finish(linear(self.net, x, "head", (features, CLASSES)), CLASSES)

    def _append(self, x: ir.Value) -> ir.Value:
        self.known.append(x)
        return x

    def _name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def _layer(self, x: ir.Value) -> ir.Value:
        """A convolution, mostly with a norm, often with a ReLU."""
        kernel, name = self.dice.choice((1, 3)), self._name("conv")
        groups = self.channels if kernel > 1 and self.dice.random() < 0.3 else 1
        both = (self.channels, self.channels)
        # A bias before a norm has no gradient but rounding, which Adam would make steps of.
        norm, how = self.dice.random() < 0.8, {"pad": kernel // 2, "groups": groups}
        x = conv(self.net, x, name, both, (kernel, kernel), bias=not norm, **how)
        if norm:
            x = batch_norm(self.net, x, self._name("norm"), self.channels)
        return relu(self.net, x, self._name("relu")) if self.dice.random() < 0.7 else x

    def _chain(self, x: ir.Value) -> ir.Value:
        for _ in range(self.dice.randint(1, 3)):
            x = self._layer(x)
        return x

    def _residual(self, x: ir.Value) -> ir.Value:
        made = self.net.op("Add", self._name("add"), [self._chain(x), x])
        return relu(self.net, made, self._name("relu"))

    def _branches(self, x: ir.Value) -> ir.Value:
        """Side by side, joined and narrowed."""
        branches = [self._chain(x) for _ in range(self.dice.randint(2, 3))]
        joined = self.net.op("Concat", self._name("join"), branches, {"axis": 1})
        channels = (len(branches) * self.channels, self.channels)
        return conv(self.net, joined, self._name("narrow"), channels, (1, 1))

    def _again(self, x: ir.Value) -> ir.Value:
        """Beside it, something that was made, or fed, long before."""
        old = self.dice.choice(self.known)
        return self.net.op("Add", self._name("add"), [self._layer(x), self._layer(old)])
