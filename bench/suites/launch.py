"""What the host pays for handing one kernel over: coexec alone, on networks of small kernels."""

from __future__ import annotations

from bench.case import Case, Suite


def _case(title: str, model: str, quick: bool = False) -> Case:
    return Case(f"{title}, one image", "launch", {"model": model}, quick=quick)


SUITE = Suite(
    "launch",
    "Host time of a kernel launch",
    (
        _case("LeNet 28x28", "lenet5"),
        _case("ResNet-18 32x32", "resnet18", quick=True),
        _case("sensor net 6x100", "sensor_cnn"),
    ),
    minutes=0.3,
)
