"""The published phones in virtual time: python studies/phone_gpu_training/phones.py [--nets M1 M4].

What would make training on their GPUs win? Each rung changes one option of the simulated
processors; the last ones take both processors, and half precision. Writes phones.json, phones.md
and phones.svg beside this file. The costs are predictions (docs/phones.md), not measurements here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from phones_figure import draw
from rich.console import Console
from rich.progress import track

import coexec
from coexec.base.disk import write_atomically
from coexec.core.soc_file import find_soc
from coexec.cost.soc.engine_profile import COEXEC, STOCK_MNN
from coexec.cost.soc.predict import predict_workload
from coexec.cost.soc.workload import CONV, Workload
from coexec.placement.policies.table import ALL, AUTO
from coexec.processors.simulated.options import FLAG, STEP
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.simulate import Setup, Simulation, Subject, simulate
from coexec.steps.builder import Recipe
from coexec.zoo.catalog import build
from coexec.zoo.mlp import mlp

HERE = Path(__file__).parent
PHONES = ("snapdragon-765g", "snapdragon-845", "snapdragon-865")
SIZES: Mapping[str, tuple[int, ...]] = {
    "M1": (16, 16),
    "M2": (16, 16, 16, 16),
    "M3": (256, 256),
    "M4": (784, 256, 128, 16),
}
"""Features between the layers of the published nets."""
IMAGES: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "LeNet": ("lenet5", (1, 28, 28)),
    "ResNet-18": ("resnet18", (3, 32, 32)),
}
NETS = (*SIZES, *IMAGES)
BATCH, BATCHES = 32, (32, 128, 512)
LARGE = "ResNet-18"
"""Planned by one policy, not by all, and not for the larger batches: it takes too long."""
PRODUCTS = (32, 64, 128, 256, 512)
STOCK_CPU, OWN_CPU = "stock CPU", "coexec CPU"
CPUS = {STOCK_CPU: STOCK_MNN, OWN_CPU: COEXEC}


@dataclass(frozen=True)
class Rung:
    """``options`` are fields of :class:`coexec.simulate.Setup`."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    processors: tuple[str, ...] = ("gpu",)
    mode: ExecutionMode = DEFAULT


OURS = {"engine": COEXEC, "wait": FLAG}
LADDER = (
    Rung("0 through the host", {"engine": STOCK_MNN}, mode=ExecutionMode(residency="host")),
    Rung("1 resident", {"engine": STOCK_MNN}),
    Rung("2 one wait a step", {"engine": STOCK_MNN, "queue": STEP}),
    Rung("3 flag", {"engine": STOCK_MNN, "queue": STEP, "wait": FLAG}),
    Rung("4 kernels", OURS),
    Rung("5 with the CPU", OURS, ("cpu", "gpu")),
    Rung("6 float16", {**OURS, "precision": "float16"}),
)
KERNELS = LADDER[4]


def main() -> None:
    """Simulate what the command line asks for; write tables and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phones", nargs="+", choices=PHONES, default=list(PHONES))
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    arguments = parser.parse_args()
    record = _known()
    cells = [(phone, net) for net in arguments.nets for phone in arguments.phones]
    for phone, net in track(cells, "simulating", console=Console(stderr=True)):
        record["ladder"][f"{net} {phone}"] = ladder(phone, net)
        if net != LARGE:
            record["batches"][f"{net} {phone}"] = batches(phone, net)
        _write("phones.json", json.dumps(record, indent=1) + "\n")
    record["products"] = {phone: list(products(phone)) for phone in PHONES}
    _write("phones.json", json.dumps(record, indent=1) + "\n")
    text = "\n".join(tables(record))
    _write("phones.md", text)
    draw(record["ladder"], HERE / "phones.svg")
    Console().print(text, markup=False)


def ladder(phone: str, net: str) -> dict[str, float]:
    """Milliseconds of a training step on the CPU by both engines, and on every rung."""
    found = {
        name: step(phone, net, BATCH, Rung(name, {"engine": engine}, ("cpu",))).ms
        for name, engine in CPUS.items()
    }
    return found | {rung.name: step(phone, net, BATCH, rung).ms for rung in LADDER}


def batches(phone: str, net: str) -> dict[str, float]:
    """How many times the CPU's time a step takes on the GPU, by batch, both with coexec."""
    cpu = Rung(OWN_CPU, {"engine": COEXEC}, ("cpu",))
    return {
        str(batch): step(phone, net, batch, KERNELS).ms / step(phone, net, batch, cpu).ms
        for batch in BATCHES
    }


def step(phone: str, net: str, batch: int, rung: Rung) -> Simulation:
    """A training step in virtual time; on several processors, by the policy that is fastest."""
    policy = ALL if len(rung.processors) > 1 and net != LARGE else AUTO
    setup = Setup(phone, rung.processors, policy=policy, runs=1, **rung.options)  # type: ignore[arg-type]  # names of text fields
    return simulate(subject(net, batch, rung.mode), setup)[0]


def subject(net: str, batch: int, mode: ExecutionMode) -> Subject:
    """A step of plain SGD on zeros: its time does not depend on values."""
    model, shape = _model(net, batch)
    return Subject(
        coexec.load(model),
        {"x": np.zeros(shape, np.float32)},
        recipe=Recipe(coexec.losses.SoftmaxCrossEntropy(), coexec.optim.SGD(learning_rate=1e-3)),
        labels=np.zeros(batch, np.int64),
        mode=mode,
    )


def _model(net: str, batch: int) -> tuple[ir.Model, tuple[int, ...]]:
    if net in SIZES:
        sizes = SIZES[net]
        return mlp(batch, sizes[-1], sizes=sizes[:-1]), (batch, sizes[0])
    name, image = IMAGES[net]
    return build(name, batch=batch), (batch, *image)


def products(phone: str) -> Iterator[Mapping[str, float]]:
    """GFLOP/s of square products of float32 by engine and processor."""
    soc = find_soc(phone)
    for n in PRODUCTS:
        work = Workload(
            CONV, 2.0 * n**3, n * n, n * n, n * n, out_pixels=n, in_channels=n, out_channels=n
        )
        row: dict[str, float] = {"n": n}
        for engine in (STOCK_MNN, COEXEC):
            for processor in ("cpu", "gpu"):
                us = predict_workload(soc, processor, work, "float32", engine).compute_us
                row[f"{engine} {processor}"] = work.flop / us / 1e3
        yield row


def tables(record: Mapping[str, Any]) -> Iterator[str]:
    """Markdown: the ladder, the batches, the products."""
    columns = [STOCK_CPU, OWN_CPU, *(rung.name for rung in LADDER)]
    yield from _table(("net", "phone", *columns), _ladder_rows(record["ladder"], columns))
    yield from _table(("net", "phone", *map(str, BATCHES)), _batch_rows(record["batches"]))
    names = [name for name in next(iter(record["products"].values()))[0] if name != "n"]
    rows = [
        (phone, f"{row['n']}", *(f"{row[name]:.1f}" for name in names))
        for phone, found in record["products"].items()
        for row in found
    ]
    yield from _table(("phone", "n", *names), rows)


def _ladder_rows(found: Mapping[str, Any], columns: Sequence[str]) -> Iterator[Sequence[str]]:
    """Milliseconds; bold where the GPU beats coexec's own CPU."""
    for cell, row in _in_order(found):
        texts = [f"{ms:,.0f}" if (ms := row[name]) >= 1e3 else f"{ms:.3g}" for name in columns]
        wins = [row[name] < 0.995 * row[OWN_CPU] for name in columns]
        yield (*cell, *(f"**{t}**" if won else t for t, won in zip(texts, wins, strict=True)))


def _batch_rows(found: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for cell, row in _in_order(found):
        yield (*cell, *(f"{row[str(batch)]:.2f}" for batch in BATCHES))


def _in_order(found: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Mapping[str, float]]]:
    for net in NETS:
        for phone in PHONES:
            if f"{net} {phone}" in found:
                yield (net, phone), found[f"{net} {phone}"]


def _table(
    header: Sequence[str], rows: Iterator[Sequence[str]] | list[tuple[str, ...]]
) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _known() -> dict[str, Any]:
    """What earlier runs found."""
    path = HERE / "phones.json"
    if not path.exists():
        return {"ladder": {}, "batches": {}, "products": {}}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _write(name: str, text: str) -> None:
    write_atomically(HERE / name, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
