"""Peak growth of the process beside PyTorch: python -m studies.training_memory.growth [--torch PY].

Each training runs in a process of its own: how much larger its resident memory ever was than before
the model was loaded (PyTorch or the OpenCL runtime is there by then), over three steps of SGD with
momentum. Budgets are what a quarter of PyTorch's growth leaves beside what the process of a plain
step takes above its plan (code, graphs), or the least that is found if that is more. Writes
growth.json and growth.md beside this file, in place of rows of the same network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import coexec
from bench.case import Case
from bench.environment import default, python_of
from bench.protocol import ROOT
from bench.resident import forget_peak, peak_bytes
from bench.suites.train import write_files
from coexec.api import open_all
from coexec.base.disk import write_atomically
from coexec.base.errors import MemoryBudgetError

HERE = Path(__file__).parent
NETS: dict[str, tuple[int, dict[str, int]]] = {
    "resnet18": (32, {}),
    "mobilenetv2": (8, {"image_size": 96}),
}
"""Networks of the zoo with the batch and options."""
PACKAGE = "studies.training_memory"
STEPS, RATE, SHARE = 3, 1e-3, 0.25


def main() -> None:
    """Measure what the command line asks for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=NETS, action="append")
    parser.add_argument("--runtime", default="opencl:intel")
    parser.add_argument("--torch", type=Path, default=python_of(default()), help="its Python")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        sys.stdout.write(json.dumps(steps_here(json.loads(given.worker))) + "\n")
        return
    file = HERE / "growth.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    for net in given.net or NETS:
        new = measure(net, given.runtime, given.torch)
        rows = [row for row in rows if row["net"] != net] + new
        _write(file, json.dumps(rows, indent=1) + "\n")
    _write(HERE / "growth.md", table(rows))
    Console().print(table(rows), markup=False)


def measure(net: str, runtime: str, torch: Path) -> list[dict[str, Any]]:
    """PyTorch, then coexec without a budget, by exact techniques, and by all."""
    with tempfile.TemporaryDirectory(prefix="coexec-growth-") as name:
        case = write_case(net, Path(name)) | {"runtime": runtime}
        peer = in_process([str(torch), "-m", f"{PACKAGE}.growth_peer"], case)
        rows = [{"form": "PyTorch", "used": ""} | peer]
        ours = [sys.executable, "-m", f"{PACKAGE}.growth", "--worker"]
        plain = in_process(ours, case | {"options": {}})
        rows.append({"form": "coexec"} | plain)
        beside = plain["grown_bytes"] - plain["planned_bytes"]
        budget = int(SHARE * peer["grown_bytes"]) - beside
        for form, how in (
            ("budget, exact", {"memory": budget}),
            ("budget, lossy", {"memory": budget, "lossy": True}),
        ):
            rows.append({"form": form} | in_process(ours, within(case | {"options": how})))
    for row in rows:
        row |= {"net": net, "ratio": row["grown_bytes"] / peer["grown_bytes"]}
    return rows


def write_case(net: str, folder: Path) -> dict[str, Any]:
    """The network and a batch of random data as files."""
    batch, options = NETS[net]
    files = write_files(
        Case("", "training", {"model": net, "batch": batch, "options": options}), folder
    )
    return {
        **files,
        "rate": RATE,
        "steps": STEPS,
    }


def in_process(command: list[str], case: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker measured; its last line is JSON."""
    done = subprocess.run(  # noqa: S603  our own scripts
        [*command, json.dumps(case)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[:2]}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def steps_here(case: Mapping[str, Any]) -> dict[str, Any]:
    """Steps of coexec in this process; its plan of memory counts, as all else from the model on.

    The runtime of OpenCL is loaded before, as PyTorch is by then.
    """
    open_all([case["runtime"]])
    before = forget_peak()
    data = np.load(case["data"])
    x, labels = data["x"], data["labels"]
    trainer = trainer_of(case)
    trainer.plan_memory({"x": x})
    prepared = peak_bytes() - before
    for _ in range(case["steps"]):
        trainer.step({"x": x}, labels)
    plan = trainer.memory_plan
    used = ", ".join(f"{each.technique} ({each.detail})" for each in plan.used) if plan else ""
    return {
        "grown_bytes": peak_bytes() - before,
        "prepared_bytes": prepared,
        "planned_bytes": plan.peak_bytes if plan else trainer.peak_bytes,
        "device_bytes": getattr(next(iter(trainer.processors.values())), "peak_bytes", None),
        "used": used,
    }


def trainer_of(case: Mapping[str, Any]) -> coexec.Trainer:
    """A training of the case's model."""
    return coexec.Trainer(
        coexec.load(case["onnx"]),
        coexec.losses.SoftmaxCrossEntropy(),
        coexec.optim.SGD(case["rate"], momentum=0.9),
        [case["runtime"]],
        **case["options"],
    )


def within(case: Mapping[str, Any]) -> dict[str, Any]:
    """The case with the least budget that is found, if its own cannot be kept."""
    x = np.load(case["data"])["x"]
    try:
        trainer_of(case).plan_memory({"x": x})
    except MemoryBudgetError as error:
        return {**case, "options": {**case["options"], "memory": error.least_bytes}}
    return dict(case)


def table(rows: list[dict[str, Any]]) -> str:
    """Growth beside PyTorch's, with what was planned and what the device's allocator saw."""
    lines = [
        "| network | training | growth | of PyTorch's | planned | allocated | techniques |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['net']} | {row['form']} | {_mib(row['grown_bytes'])} | {row['ratio']:.2f} "
        f"| {_mib(row.get('planned_bytes'))} | {_mib(row.get('device_bytes'))} "
        f"| {row['used']} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _mib(nbytes: int | None) -> str:
    return "" if nbytes is None else f"{nbytes / 2**20:.0f} MiB"


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
