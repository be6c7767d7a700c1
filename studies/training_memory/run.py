"""Step time against memory: python studies/training_memory/run.py [--net NAME --budgets 0.5 64MiB].

With two processors as ``--runtime A,B``, steps within the same budgets on the first alone, with the
batch in shares, and by the plan for which memory, recomputation and placement are decided together;
these go to together.json and together.md.

Writes results.json, table.md and frontier.svg beside this file: the first after every network, in
place of all rows of that network on that processor, so that a run can be continued in parts. All
forms of a step are timed in turns in one process; medians count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from figure import draw
from rich.console import Console
from rich.progress import track

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.disk import write_atomically
from coexec.base.errors import MemoryBudgetError
from coexec.budget.amounts import budget_bytes
from coexec.core.types import Array
from coexec.placement.policies.table import AUTO, BATCH_PARALLEL
from coexec.planning.planner import PlanOptions, plan_training
from coexec.zoo.catalog import CATALOG

HERE = Path(__file__).parent
BUDGETS = ("0.75", "0.5", "0.25")
"""Shares of the plain step's peak, or amounts; below what can be reached, that is taken instead."""
TURNS = 5
MEASURING_SECONDS = 30.0
"""For the costs that plans on several processors need, where they are not known."""


@dataclass(frozen=True)
class Net:
    """A network of the zoo with its batch, and its image size where that is not the usual one."""

    name: str
    batch: int
    image: int = 0

    @property
    def title(self) -> str:
        return f"{self.name}_{self.image}" if self.image else self.name

    @property
    def model(self) -> onnx.ModelProto:
        return zoo.build(
            self.name, batch=None, **({"image_size": self.image} if self.image else {})
        )

    @property
    def shape(self) -> tuple[int, ...]:
        shape = CATALOG[self.name].input_shape
        return (shape[0], self.image, self.image) if self.image else shape


NETS = {
    net.title: net
    for net in (
        Net("resnet18", 64),
        Net("mobilenetv2", 8),
        Net("mobilenetv2", 8, 96),
        Net("vit_tiny", 16),
        Net("resnet50", 8),
    )
}


def main() -> None:
    """Measure what the command line asks for and write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="opencl:intel", help="processor, or two: A,B")
    parser.add_argument("--net", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS))
    parser.add_argument("--figure", action="store_true", help="only draw what was measured")
    arguments = parser.parse_args()
    several = "," in arguments.runtime
    file = HERE / ("together.json" if several else "results.json")
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    if not arguments.figure:
        for name in track(arguments.net, "measuring", console=Console(stderr=True)):
            measured = measure_together if several else measure
            new = measured(NETS[name], arguments.runtime, arguments.budgets)
            others = [r for r in rows if (r["net"], r["runtime"]) != (name, arguments.runtime)]
            rows = others + new
            _write(file, json.dumps(rows, indent=1) + "\n")
    _write(HERE / ("together.md" if several else "table.md"), table(rows))
    if not several:
        draw(rows, HERE / "frontier.svg")
    Console().print(table(rows), markup=False)


def measure(net: Net, runtime: str, budgets: list[str]) -> list[dict[str, Any]]:
    """The plain step, and a step for each budget, in turns."""
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((net.batch, *net.shape), np.float32)}
    labels = rng.integers(0, 10, net.batch)
    plain = trainer(net, runtime)
    whole = plain.planned_bytes(feeds)
    forms = {"plain": plain}
    for budget in budgets:
        amount = budget_bytes(budget) if budget.endswith("B") else int(float(budget) * whole)
        forms[f"budget {budget}"] = within(net, runtime, amount, feeds)
    return rows_of(net, runtime, forms, whole, in_turns(forms, feeds, labels))


def measure_together(net: Net, runtime: str, budgets: list[str]) -> list[dict[str, Any]]:
    """Steps on the first of two processors and on both, in turns; shares are of the first's."""
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((net.batch, *net.shape), np.float32)}
    labels = rng.integers(0, 10, net.batch)
    first = runtime.split(",", maxsplit=1)[0]
    forms = {"plain": trainer(net, first)}
    whole = forms["plain"].planned_bytes(feeds)
    for budget in budgets:
        amount = budget_bytes(budget) if budget.endswith("B") else int(float(budget) * whole)
        forms[f"first alone, budget {budget}"] = within(net, first, amount, feeds)
        for title, policy in (("batch in shares", BATCH_PARALLEL), ("joint plan", AUTO)):
            asked = trainer(net, runtime, memory=amount)
            how = PlanOptions(policy, MEASURING_SECONDS)
            try:
                planning = plan_training(asked, feeds, how)
            except MemoryBudgetError as error:
                Console(stderr=True).print(f"{title}, budget {budget}: {error}", markup=False)
                continue
            forms[f"{title} ({planning.plan.policy}), budget {budget}"] = asked.with_plan(
                planning.plan
            )
    return rows_of(net, runtime, forms, whole, in_turns(forms, feeds, labels))


def rows_of(
    net: Net,
    runtime: str,
    forms: Mapping[str, coexec.Trainer],
    whole: int,
    times: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Rows of the table; ``whole`` is the peak of the plain step in bytes."""
    return [
        {
            "net": net.title,
            "batch": net.batch,
            "runtime": runtime,
            "form": name,
            "used": ", ".join(f"{use.technique} ({use.detail})" for use in plan.used)
            if (plan := form.memory_plan)
            else name,
            "peak_bytes": peak_of(form),
            "peak_share": peak_of(form) / whole,
            "step_ms": times[name],
            "time_ratio": times[name] / times["plain"],
            "predicted_ratio": plan.step_ms / plan.plain_ms if plan else None,
        }
        for name, form in forms.items()
    ]


def trainer(net: Net, runtime: str, **options: Any) -> coexec.Trainer:
    """A training of the network by stochastic gradient descent with momentum."""
    model = coexec.load(net.model)
    return coexec.Trainer(
        model, SoftmaxCrossEntropy(), SGD(1e-3, momentum=0.9), runtime.split(","), **options
    )


def within(net: Net, runtime: str, budget: int, feeds: Mapping[str, Array]) -> coexec.Trainer:
    """A training within a budget, or within the least that was found if that is more."""
    found = trainer(net, runtime, memory=budget)
    try:
        found.plan_memory(feeds)
    except MemoryBudgetError as error:
        found.set_memory(error.least_bytes)
    return found


def peak_of(form: coexec.Trainer) -> int:
    """Bytes on the device, as planned for the whole step."""
    return form.memory_plan.peak_bytes if form.memory_plan else form.peak_bytes


def in_turns(
    forms: Mapping[str, coexec.Trainer], feeds: Mapping[str, Array], labels: Array
) -> dict[str, float]:
    """Median milliseconds of each form over turns that alternate; the first does not count."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(TURNS + 1):
        for name, form in forms.items():
            start = time.perf_counter()
            form.step(feeds, labels)
            if turn:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: median(each) for name, each in times.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Memory and time beside the plain step."""
    names = (
        "network | batch | processor | step | techniques | peak | of plain | step time | of plain"
    )
    lines = [f"| {names} |", "|---|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row['net']} | {row['batch']} | {row['runtime']} | {row['form']} | {row['used']} "
        f"| {row['peak_bytes'] / 2**20:.1f} MiB | {row['peak_share']:.2f} "
        f"| {row['step_ms']:.0f} ms | {row['time_ratio']:.2f} |"
        for row in sorted(rows, key=lambda r: (r["net"], r["runtime"], -r["peak_share"]))
    ]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
