"""Measure the ladder: python studies/phone_gpu_training/run.py [--models M1 M4] [--runtimes ...].

Writes results.json, table.md and ladder.svg beside this file: results.json after every measurement,
which replaces the one of the same net, runtime and rung, so that a run can be continued in parts. A
step is timed untraced (median) and attributed from a traced one; the CPU baseline is PyTorch where
it is installed, else the NumPy reference.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from baseline import cpu_baseline
from figure import draw
from ladder import LADDER, Rung
from nets import BATCH, NETS
from rich.console import Console
from rich.progress import track

import coexec
from coexec.base.disk import write_atomically
from coexec.core.types import Array
from coexec.processors.find import list_processors
from coexec.profile import ProfileOptions, profile_training

HERE = Path(__file__).parent
MOVEMENT = ("layout", "transfer", "map", "dispatch", "sync", "idle")
"""Everything that is not a kernel's own arithmetic or streaming."""
RATE = 1e-4
SLOW_S = 2.0
"""Steps that take longer than this are profiled once: warm-up is a small part of them."""


def main() -> None:
    """Measure what the command line asks for and write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--runtimes", nargs="+", default=_runtimes())
    parser.add_argument("--rungs", nargs="+", choices=[r.name for r in LADDER])
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    record = _known()
    rungs = [rung for rung in LADDER if rung.name in (arguments.rungs or rung.name)]
    work = [(m, r, rung) for m in arguments.models for r in arguments.runtimes for rung in rungs]
    for model, runtime, rung in track(work, "measuring", console=Console(stderr=True)):
        row = measure(model, runtime, rung, arguments.steps)
        record["rows"] = _replaced(record["rows"], row)
        _write("results.json", json.dumps(record, indent=1))
    for model in arguments.models:
        record["baselines"][model] = cpu_baseline(model, batch(model), RATE)
    _write("results.json", json.dumps(record, indent=1))
    _write("table.md", table(record))
    draw(record, HERE / "ladder.svg")
    Console().print(table(record), markup=False)


def _known() -> dict[str, Any]:
    """What earlier runs measured."""
    path = HERE / "results.json"
    if not path.exists():
        return {"rows": [], "baselines": {}, "batch": BATCH}
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _replaced(rows: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """``rows`` with a new one in place of its predecessor, by net, runtime and rung."""
    nets, rungs = list(NETS), [rung.name for rung in LADDER]

    def key(row: dict[str, Any]) -> tuple[int, str, int]:
        return nets.index(row["model"]), row["runtime"], rungs.index(row["rung"])

    return sorted([*(row for row in rows if key(row) != key(new)), new], key=key)


def _write(name: str, text: str) -> None:
    write_atomically(HERE / name, lambda file: file.write(text.encode()))


def measure(name: str, runtime: str, rung: Rung, steps: int) -> dict[str, Any]:
    """Median step and shares of one rung."""
    model = coexec.load(NETS[name]())
    trainer = coexec.Trainer(
        model,
        coexec.losses.SoftmaxCrossEntropy(),
        coexec.optim.SGD(learning_rate=RATE),
        processors=[f"{runtime}{rung.options}"],
        mode=rung.mode,
    )
    x, labels = batch(name)
    trainer.step({"x": x}, labels)  # compiles
    start = time.perf_counter()
    trainer.step({"x": x}, labels)
    slow = time.perf_counter() - start > SLOW_S
    how = ProfileOptions(steps=1, warm_up=0) if slow else ProfileOptions(steps=steps)
    record = profile_training(trainer, {"x": x}, labels, name, how).record
    categories = record["categories"][next(iter(trainer.processors))]
    wall = record["wall_ms"]
    return {
        "model": name,
        "runtime": runtime,
        "rung": rung.name,
        "remedy": rung.remedy,
        "step_ms": record["overhead"]["untraced_ms"],
        "peak_bytes": trainer.peak_bytes,
        "profiling_overhead": record["overhead"]["fraction"],
        "residual": record["residual"],
        "shares": {str(key): float(value) / wall for key, value in categories.items()},
    }


def batch(name: str) -> tuple[Array, Array]:
    """Seeded data of the net's shape."""
    model: ir.Model = NETS[name]()
    rng = np.random.default_rng(0)
    shape = model.graph.inputs[0].shape
    output = model.graph.outputs[0].shape
    assert shape is not None
    assert output is not None
    x = rng.standard_normal(tuple(shape.numpy())).astype(np.float32)
    return x, rng.integers(0, int(output.numpy()[-1]), BATCH)


def table(record: dict[str, Any]) -> str:
    """Step time per rung, and how much of it is not a kernel's own work."""
    rungs = list(dict.fromkeys(row["rung"] for row in record["rows"]))
    header = ["| net | runtime | " + " | ".join(rungs) + " | CPU baseline |"]
    header.append("|---" * (len(rungs) + 3) + "|")
    return "\n".join([*header, *_lines(record, rungs)]) + "\n"


def _lines(record: dict[str, Any], rungs: Sequence[str]) -> list[str]:
    lines = []
    for model, runtime in dict.fromkeys((r["model"], r["runtime"]) for r in record["rows"]):
        rows = [r for r in record["rows"] if (r["model"], r["runtime"]) == (model, runtime)]
        measured = {r["rung"]: f"{r['step_ms']:.2f} ms ({_movement(r):.0%})" for r in rows}
        cells = [measured.get(rung, "-") for rung in rungs]
        base = record["baselines"][model]
        cells.append(f"{base['step_ms']:.2f} ms ({base['engine']})")
        lines.append(f"| {model} | {runtime} | " + " | ".join(cells) + " |")
    return lines


def _movement(row: dict[str, Any]) -> float:
    return float(sum(row["shares"][key] for key in MOVEMENT))


def _runtimes() -> Sequence[str]:
    names = [c.name for c in list_processors() if c.spec is not None]
    return [name for name in names if name.startswith("opencl:") and name != "opencl:oclgrind"]


if __name__ == "__main__":
    main()
