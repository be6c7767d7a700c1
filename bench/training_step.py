"""Time a training step of LeNet and ResNet-18 on coexec's OpenCL runtimes, beside PyTorch.

An example: python bench/training_step.py --torch-python ../torchenv/bin/python --json

Every peer is a process of its own. They take turns, a few steps each, so that noise of the machine
meets all of them; a process that waits uses no core. All train the same weights on the same batch
with the same optimizer (SGD, rate 0.01, momentum 0.9), and their first losses must agree.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from coexec import zoo
from coexec.base.units import bytes_text
from coexec.frontend.export import save_model
from coexec.processors.find import list_processors

HERE = Path(__file__).parent
PAUSE = 0.3
"""Seconds between two turns: threads that spin on the last step's end come to rest."""

SAME_LOSS = 1e-3
notes = Console(stderr=True)


@dataclass(frozen=True)
class Peer:
    """Something that trains: a worker's command line, without model and data."""

    name: str
    python: str
    script: str
    form: str
    options: tuple[str, ...] = ()

    def command(self, model: Path, data: Path) -> list[str]:
        started = ["--started", str(time.time())]
        files = [str(model), str(data), self.form]
        return [
            self.python,
            "-W",
            "ignore",
            str(HERE / self.script),
            *files,
            *self.options,
            *started,
        ]


@dataclass
class Result:
    """What was measured of a peer on a model; times in milliseconds, starts in seconds."""

    peer: str
    ready: dict[str, Any]
    ms: list[float] = field(default_factory=list)
    process_bytes: int = 0
    start_cold_s: float | None = None
    start_warm_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "peer": self.peer,
            "median_ms": median(self.ms),
            "min_ms": min(self.ms),
            "steps": len(self.ms),
            "loss_first": self.ready["loss_first"],
            "peak_bytes": self.ready.get("peak_bytes"),
            "naive_bytes": self.ready.get("naive_bytes"),
            "process_bytes": self.process_bytes,
            "start_cold_s": self.start_cold_s,
            "start_warm_s": self.start_warm_s,
        }


class Worker:
    """A running peer that has made its first step."""

    def __init__(self, process: subprocess.Popen[str], peer: Peer) -> None:
        self.process, self.peer = process, peer
        self.ready = self._answer()

    def steps(self, count: int) -> dict[str, Any]:
        """Make so many steps; their times."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.peer.name} ended early, status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running(peer: Peer, model: Path, data: Path, environment: dict[str, str]) -> Iterator[Worker]:
    """Start a peer, stop it at the end."""
    process = subprocess.Popen(  # noqa: S603 - the command is ours
        peer.command(model, data),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield Worker(process, peer)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait()


def measure(peers: list[Peer], files: tuple[Path, Path], turns: int, steps: int) -> list[Result]:
    """All peers by turns; the first turn warms up and does not count."""
    with ExitStack() as stack:
        workers = [stack.enter_context(running(peer, *files, {})) for peer in peers]
        results = [Result(worker.peer.name, worker.ready) for worker in workers]
        for turn in range(turns + 1):
            for worker, result in zip(workers, results, strict=True):
                time.sleep(PAUSE)
                answer = worker.steps(steps)
                result.process_bytes = answer["process_bytes"]
                if turn:
                    result.ms.extend(answer["ms"])
    check_losses(results)
    return results


def check_losses(results: list[Result]) -> None:
    """The peers train the same thing, or their times say nothing."""
    losses = [result.ready["loss_first"] for result in results]
    if max(losses) - min(losses) > SAME_LOSS * max(losses):
        named = dict(zip((result.peer for result in results), losses, strict=True))
        raise SystemExit(f"the first losses differ: {named}")


def measure_start(peer: Peer, files: tuple[Path, Path], result: Result) -> None:
    """From launch to the end of the first step: with empty caches, then with what that left."""
    caches = Path(tempfile.mkdtemp(prefix="coexec-bench-"))
    try:
        names = ("COEXEC_CACHE_DIR", "POCL_CACHE_DIR", "XDG_CACHE_HOME")
        environment = {name: str(caches / name.lower()) for name in names}
        starts = []
        for _ in range(2):
            with running(peer, *files, environment) as worker:
                starts.append(float(worker.ready["first_step_s"]))
        result.start_cold_s, result.start_warm_s = starts
    finally:
        shutil.rmtree(caches, ignore_errors=True)


def write_files(name: str, batch: int, folder: Path) -> tuple[Path, Path]:
    """The model as ONNX and one batch of random images."""
    model, data = folder / f"{name}.onnx", folder / f"{name}.npz"
    save_model(zoo.build(name, batch=batch, classes=10), model)
    rng = np.random.default_rng(0)
    shape = (batch, *zoo.CATALOG[name].input_shape)
    np.savez(data, x=rng.standard_normal(shape, np.float32), labels=rng.integers(0, 10, batch))
    return model, data


def known_peers(torch_python: str, threads: int) -> list[Peer]:
    """coexec on every OpenCL runtime of this machine; PyTorch where there is one."""
    runtimes = [c.name for c in list_processors() if c.spec and c.name.startswith("opencl:")]
    peers = [
        Peer(f"coexec {name}", sys.executable, "step_coexec.py", name)
        for name in runtimes
        if name != "opencl:oclgrind"
    ]
    if not torch_python:
        notes.print("PyTorch: not installed here; name an interpreter that has it: --torch-python")
        return peers
    options = ("--threads", str(threads))
    return peers + [
        Peer(f"PyTorch {form}", torch_python, "step_torch.py", form, options)
        for form in ("eager", "channels-last")
    ]


def table(name: str, batch: int, results: list[Result]) -> Table:
    """One model's results."""
    shown = Table(title=f"{name}, batch {batch}: one training step")
    shown.add_column("peer", no_wrap=True)
    for column in ("median ms", "min ms", "start cold s", "start warm s", "planned", "process"):
        shown.add_column(column, justify="right")
    for result in results:
        record = result.to_json()
        planned = bytes_text(record["peak_bytes"]) if record["peak_bytes"] else "-"
        starts = [record["start_cold_s"], record["start_warm_s"]]
        shown.add_row(
            result.peer,
            f"{record['median_ms']:.2f}",
            f"{record['min_ms']:.2f}",
            *("-" if start is None else f"{start:.1f}" for start in starts),
            planned,
            bytes_text(record["process_bytes"]),
        )
    return shown


def arguments_of() -> argparse.Namespace:
    """The command line."""
    here = sys.executable if importlib.util.find_spec("torch") else ""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["lenet5", "resnet18"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=10, help="turns that count")
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--torch-python", default=here, help="interpreter that has torch and onnx")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-start", action="store_true", help="leave out start-up times")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = arguments_of()
    peers = known_peers(arguments.torch_python, arguments.threads)
    record: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        },
        "models": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            files = write_files(name, arguments.batch, Path(folder))
            results = measure(peers, files, arguments.turns, arguments.steps)
            for peer, result in zip(peers, results, strict=True):
                if not arguments.no_start:
                    measure_start(peer, files, result)
            record["models"][name] = [result.to_json() for result in results]
            if not arguments.json:
                Console().print(table(name, arguments.batch, results))
    if arguments.json:
        print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
