"""Training steps on three processors of one phone: rows of kind ``train`` in ``literature.csv``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from coexec.core.soc_file import find_soc, knows_soc
from coexec.cost.calibration.left_out import NO_CHIP, NO_LAYERS, LeftOut
from coexec.cost.calibration.sample import Sample
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.calibration.zoo_networks import Options, product_layers
from coexec.cost.soc.engine_profile import STOCK_MNN
from coexec.cost.soc.workload import Workload

DATASET, FILE = "training", "literature"
COLUMNS = ("soc", "kind", "workload", "batch", "metric", "cpu", "gpu", "npu_dsp")
COLUMN_OF = {
    "cpu": ("cpu", STOCK_MNN, "float32"),
    "gpu": ("gpu", STOCK_MNN, "float32"),
    "npu": ("npu_dsp", "mandheling", "int8"),
}
PASSES = 3
"""A step does a layer's arithmetic forward, for its input's gradient, and for its weights'."""
DIGIT_US = 1e5
"""Times are printed with one digit behind the second."""
SMALL: Options = (("image_size", 32), ("small", True))
NETWORKS: Mapping[str, tuple[str, Options]] = {
    "VGG11 CIFAR10": ("vgg11", ()),
    "VGG16 CIFAR10": ("vgg16", ()),
    **{f"ResNet{n} CIFAR10": ("residual_network", (("depth", n), *SMALL)) for n in (18, 34, 50)},
    **{f"ResNet{n} ImageNet": ("residual_network", (("depth", n),)) for n in (18, 34, 50)},
    **{f"VGG{n} ImageNet": ("vgg", (("depth", n),)) for n in (11, 16)},
    "AlexNet ImageNet": ("alexnet", (("later", True),)),
}
"""Networks of the zoo. VGG-19 on "ImageNet" is none: at full size it exceeds the CPU's peak."""


def read_training(folder: Path) -> tuple[list[Sample], list[LeftOut]]:
    """Samples, and rows of networks or chips that nothing is known of.

    Raises:
        UsageError: the file is damaged.
    """
    path = folder / f"{FILE}.csv"
    if not path.exists():
        return [], []
    samples: list[Sample] = []
    unknown: list[LeftOut] = []
    for row in read_rows(path, COLUMNS):
        if row.text("kind") != "train" or row.text("metric") != "time":
            continue
        layers = step_of(row.text("workload"), int(row.positive("batch")))
        if not layers:
            unknown.append(row.left_out(NO_LAYERS, row.text("workload")))
        elif not knows_soc(row.text("soc")):
            unknown.append(row.left_out(NO_CHIP, row.text("soc")))
        else:
            samples += _samples(row, layers)
    return samples, unknown


def _samples(row: Row, layers: tuple[Workload, ...]) -> Iterator[Sample]:
    for processor, (column, engine, precision) in COLUMN_OF.items():
        seconds = None if row.text(column) == "OOM" else row.time(column)
        if seconds is None:
            continue
        yield Sample(
            DATASET,
            row.text("workload"),
            find_soc(row.text("soc")),
            processor,
            precision,
            engine,
            seconds * 1e6,
            layers,
        )


def step_of(workload: str, batch: int) -> tuple[Workload, ...]:
    """Layers of ``VGG11 CIFAR10``, each once for every pass; none for unknown networks."""
    if workload not in NETWORKS:
        return ()
    return repeated(product_layers(*NETWORKS[workload], batch))


def repeated(layers: tuple[Workload, ...]) -> tuple[Workload, ...]:
    """Each layer once for every pass."""
    return tuple(layer for layer in layers for _ in range(PASSES))


def ratios(samples: Iterable[Sample], predicted: Iterable[float]) -> list[Mapping[str, object]]:
    """For each network on each chip, measured and predicted time over the CPU's."""
    times: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for sample, guess in zip(samples, predicted, strict=True):
        row = times.setdefault((sample.soc.name, sample.model), {})
        row[sample.processor] = (sample.measured_us, guess)
    found: list[Mapping[str, object]] = []
    for (soc, model), row in times.items():
        for processor in row.keys() - {"cpu"}:
            if "cpu" in row:
                measured = row[processor][0] / row["cpu"][0]
                guess = row[processor][1] / row["cpu"][1]
                found.append(
                    {
                        "soc": soc,
                        "model": model,
                        "ratio": f"{processor}/cpu",
                        "measured": measured,
                        "predicted": guess,
                        "error": guess / measured - 1,
                    }
                )
    return sorted(found, key=lambda each: (str(each["ratio"]), str(each["model"])))
