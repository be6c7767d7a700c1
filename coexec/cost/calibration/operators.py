"""Published operators and training steps that nothing is fitted to, in other engines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from coexec.core.soc_file import find_soc, knows_soc, soc_in
from coexec.cost.calibration.check import Check, checked, left_out_checks
from coexec.cost.calibration.left_out import NO_CHIP, LeftOut
from coexec.cost.calibration.single_layers import dense
from coexec.cost.calibration.table import Row, read_rows
from coexec.cost.calibration.training import repeated
from coexec.cost.calibration.zoo_networks import Options, product_layers
from coexec.cost.soc.coefficients import Coefficients
from coexec.cost.soc.engine_profile import COEXEC, QNN, STOCK_MNN
from coexec.cost.soc.estimate import calls_us, network_us

COLUMNS = ("soc", "kind", "workload", "batch", "metric", "cpu", "gpu", "npu_dsp", "note")
TRAINING_COLUMNS = ("soc", "model", "batch", "train_step_ms")
NETWORKS: Mapping[str, tuple[str, Options]] = {
    "Alexnet": ("alexnet", (("later", True),)),
    "GoogLenet": ("googlenet", (("kernel", 5),)),
}
"""Networks of the zoo."""
SQUARE = re.compile(r"(\d+)x\1x\1 naive")
MATMUL = re.compile(r"matmul (\d+)x(\d+) \* \d+x(\d+)")
COLUMN_OF = {
    "cpu": ("int8", COEXEC),
    "gpu": ("float16", COEXEC),
    "npu_dsp": ("int8", QNN),
}
"""Element type and engine of the columns of rows of matrix products."""
Pairs = list[tuple[float, float]]
REASONS = {
    "train-backward": "not one cost: simulated as a whole (docs/simulation.md)",
    "op": "the convolutions of layout_sd855.csv again",
    "train": "AlexNet on images of unknown size, energy; the others are under training",
}


def literature(path: Path, fitted: Coefficients) -> Iterator[Check]:
    """Products of one study in its stock engine, and of another one on three processors."""
    rows = list(read_rows(path, COLUMNS))
    yield from _square_products(fitted, path.name, rows)
    yield from _wide_products(fitted, path.name, rows)
    kinds = dict.fromkeys(row.text("kind") for row in rows)
    yield from (
        Check(path.name, kind, f"not compared: {REASONS.get(kind, 'unknown kind of rows')}")
        for kind in kinds
        if kind != "sgemm"
    )


def _square_products(fitted: Coefficients, file: str, rows: list[Row]) -> Iterator[Check]:
    """The CPU column is the same for all kernels of the GPU."""
    found: dict[str, Pairs] = {"cpu": [], "gpu": []}
    for row in rows:
        soc = row.text("soc").partition("/")[0]
        square = SQUARE.match(row.text("workload"))
        if row.text("kind") != "sgemm" or square is None or not knows_soc(soc):
            continue
        work = dense(*[int(square[1])] * 3)
        for processor, pairs in found.items():
            if (rate := row.number(processor, 0.0)) > 0:
                us = calls_us(fitted, find_soc(soc), processor, "float32", STOCK_MNN, [work])
                pairs.append((work.flop / rate / 1e3, float(us[0])))
    for processor, pairs in found.items():
        note = f"as {STOCK_MNN}, whose factor is of training CNNs"
        yield checked(file, f"square products, {processor}", note, pairs)


def _wide_products(fitted: Coefficients, file: str, rows: list[Row]) -> Iterator[Check]:
    for column, (precision, engine) in COLUMN_OF.items():
        kind, pairs = column.partition("_")[0], []
        for row in rows:
            match = MATMUL.match(row.text("workload"))
            if match and knows_soc(row.text("soc")):
                work = dense(*map(int, match.groups()))
                us = calls_us(fitted, find_soc(row.text("soc")), kind, precision, engine, [work])
                if ms := row.time(column):
                    pairs.append((ms * 1e3, float(us[0])))
        note = f"as {engine}, without launching a graph"
        yield checked(file, f"wide products {precision}, {kind}", note, pairs)


def cpu_training(path: Path, fitted: Coefficients) -> Iterator[Check]:
    """Training steps on four big cores by the stock engine's CPU, of networks that are known."""
    found: Pairs = []
    unknown: Counter[str] = Counter()
    no_chip: list[LeftOut] = []
    for row in read_rows(path, TRAINING_COLUMNS):
        soc = soc_in(row.text("soc"))
        if soc is None:
            no_chip.append(row.left_out(NO_CHIP, row.text("soc")))
            continue
        network = NETWORKS.get(row.text("model"))
        if network is None:
            unknown[row.text("model")] += 1
            continue
        step = repeated(product_layers(*network, int(row.positive("batch"))))
        us = network_us(fitted, soc, "cpu", "float32", STOCK_MNN, step)
        found.append((row.positive("train_step_ms") * 1e3, us))
    yield checked(path.name, "steps", f"as {STOCK_MNN}: its factor is of another chip", found)
    for model, count in unknown.items():
        yield Check(path.name, model, f"not compared: layers of {count} rows are not known")
    yield from left_out_checks(no_chip)
