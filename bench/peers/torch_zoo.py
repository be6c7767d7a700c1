"""Twins of coexec's zoo in PyTorch: the same networks under the same parameter names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional as f

from bench.peers.torch_vit import ViTTiny

CLASSES = 10


class LeNet(nn.Module):
    """conv 20, pool, conv 50, pool, fc 500, fc 10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, CLASSES)

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
        self.fc = nn.Linear(512, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 10)."""
        x = f.relu(self.bn1(self.conv1(x)))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


class ConvNormClip(nn.Module):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, channels: tuple[int, int], kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(*channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H / stride, W / stride)."""
        return f.relu6(self.bn(self.conv(x)))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes allow."""

    def __init__(self, channels: tuple[int, int], expansion: int, stride: int) -> None:
        super().__init__()
        inputs, outputs = channels
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        if expansion != 1:
            self.expand = ConvNormClip((inputs, hidden), 1, 1, 1)
        self.depthwise = ConvNormClip((hidden, hidden), 3, stride, hidden)
        self.project = nn.ModuleDict(
            {
                "conv": nn.Conv2d(hidden, outputs, 1, bias=False),
                "bn": nn.BatchNorm2d(outputs),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H / stride, W / stride)."""
        h = self.expand(x) if hasattr(self, "expand") else x
        h = self.depthwise(h)
        h = self.project["bn"](self.project["conv"](h))
        return x + h if self.adds else h


class MobileNetV2(nn.Module):
    """Width 1.0, without dropout."""

    STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    """(expansion, channels, blocks, stride of the first block) of each stage."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNormClip((3, 32), 3, 2, 1)]
        channels = 32
        for expansion, width, blocks, first in self.STAGES:
            for block in range(blocks):
                stride = first if block == 0 else 1
                layers.append(InvertedResidual((channels, width), expansion, stride))
                channels = width
        layers.append(ConvNormClip((channels, 1280), 1, 1, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.ModuleDict({"fc": nn.Linear(1280, CLASSES)})

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 10)."""
        y: Tensor = self.classifier["fc"](self.features(x).mean((2, 3)))
        return y


class VGG11(nn.Module):
    """VGG-11 for 32 x 32 images with 512 hidden features, without dropout."""

    STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        for stage, widths in enumerate(self.STAGES, start=1):
            for i, width in enumerate(widths, start=1):
                self.add_module(f"conv{stage}_{i}", nn.Conv2d(channels, width, 3, padding=1))
                channels = width
        self.fc6, self.fc7, self.fc8 = (
            nn.Linear(512, 512),
            nn.Linear(512, 512),
            nn.Linear(512, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 10)."""
        for stage, widths in enumerate(self.STAGES, start=1):
            for i in range(1, len(widths) + 1):
                x = f.relu(self.get_submodule(f"conv{stage}_{i}")(x))
            x = f.max_pool2d(x, 2)
        y: Tensor = self.fc8(f.relu(self.fc7(f.relu(self.fc6(x.flatten(1))))))
        return y


class SensorNet(nn.Module):
    """Four dilated 1-D convolutions on six channels."""

    def __init__(self) -> None:
        super().__init__()
        channels = 6
        for i, dilation in enumerate((1, 2, 4, 8), start=1):
            layers = {
                "conv": nn.Conv1d(
                    channels, 32, 5, padding=2 * dilation, dilation=dilation, bias=False
                ),
                "bn": nn.BatchNorm1d(32),
            }
            self.add_module(f"block{i}", nn.ModuleDict(layers))
            channels = 32
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, L) -> (N, 10)."""
        for i in range(1, 5):
            conv = self.get_submodule(f"block{i}.conv")
            x = f.relu(self.get_submodule(f"block{i}.bn")(conv(x)))
        y: Tensor = self.fc(x.mean(2))
        return y


MODULES: Mapping[str, Callable[[], nn.Module]] = {
    "lenet5": LeNet,
    "resnet18": ResNet18,
    "mobilenetv2": MobileNetV2,
    "vgg11": VGG11,
    "vit_tiny": ViTTiny,
    "sensor_cnn": SensorNet,
}
"""By the name of the ONNX graph."""
