"""LeNet: the small convolution networks of handwritten digits.

Sources: LeCun et al., "Gradient-based learning applied to document recognition", 1998 (classic);
the conv 20 / conv 50 / fc 500 form is the one of Caffe's MNIST example, with a ReLU behind each
convolution.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import (
    Net,
    average_pool,
    batch_norm,
    conv,
    flatten,
    linear,
    max_pool,
    relu,
    require,
)


def lenet5(batch: int | None = None, classes: int = 10, *, seed: int = 0) -> ir.Model:
    """(N, 1, 28, 28) -> (N, classes): conv 20, pool, conv 50, pool, fc 500, fc classes."""
    net = Net("lenet5", (batch, 1, 28, 28), seed=seed)
    h = relu(net, conv(net, net.x, "conv1", (1, 20), (5, 5)), "relu1")
    h = max_pool(net, h, "pool1", (2, 2), stride=2)
    h = relu(net, conv(net, h, "conv2", (20, 50), (5, 5)), "relu2")
    h = flatten(net, max_pool(net, h, "pool2", (2, 2), stride=2))
    h = relu(net, linear(net, h, "fc1", (50 * 4 * 4, 500), rectified=True), "relu3")
    return net.finish(linear(net, h, "fc2", (500, classes)), classes)


def lenet5_classic(batch: int | None = None, classes: int = 10, *, seed: int = 0) -> ir.Model:
    """(N, 1, 28, 28) -> (N, classes): 6, 16, 120, 84 with tanh and average pooling, as in 1998.

    The 28 x 28 image is padded to the paper's 32 x 32; C3 sees all maps, S2 and S4 have no
    parameters of their own.
    """
    net = Net("lenet5_classic", (batch, 1, 28, 28), seed=seed)
    h = net.op("Tanh", "tanh1", [conv(net, net.x, "c1", (1, 6), (5, 5), pad=2)])
    h = average_pool(net, h, "s2", (2, 2), stride=2)
    h = net.op("Tanh", "tanh3", [conv(net, h, "c3", (6, 16), (5, 5))])
    h = average_pool(net, h, "s4", (2, 2), stride=2)
    h = flatten(net, net.op("Tanh", "tanh5", [conv(net, h, "c5", (16, 120), (5, 5))]))
    h = net.op("Tanh", "tanh6", [linear(net, h, "f6", (120, 84))])
    return net.finish(linear(net, h, "output", (84, classes)), classes)


def digits_cnn(
    batch: int | None = None, classes: int = 10, *, width: int = 32, seed: int = 0
) -> ir.Model:
    """(N, 1, 8, 8) -> (N, classes): three 3 x 3 convolutions and two poolings, for 8 x 8 digits.

    BatchNormalization buys margin on scikit-learn's digits: eight runs in PyTorch (Adam, 15 to 20
    epochs, several seeds and splits) held out 98.9 to 99.7 %; eight without it 98.1 to 99.7 %.
    """
    require(width > 0, f"width must be positive, not {width}")
    net = Net("digits_cnn", (batch, 1, 8, 8), seed=seed)
    h = _conv_norm_relu(net, net.x, 1, (1, width))
    h = _conv_norm_relu(net, h, 2, (width, width))
    h = max_pool(net, h, "pool2", (2, 2), stride=2)
    h = _conv_norm_relu(net, h, 3, (width, 2 * width))
    h = flatten(net, max_pool(net, h, "pool3", (2, 2), stride=2))
    h = relu(net, linear(net, h, "fc1", (2 * width * 2 * 2, 128), rectified=True), "relu4")
    return net.finish(linear(net, h, "fc2", (128, classes)), classes)


def _conv_norm_relu(net: Net, x: ir.Value, number: int, channels: tuple[int, int]) -> ir.Value:
    h = conv(net, x, f"conv{number}", channels, (3, 3), pad=1, bias=False)
    return relu(net, batch_norm(net, h, f"bn{number}", channels[1]), f"relu{number}")
