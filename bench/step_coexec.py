"""A training step on coexec, timed on request: a worker of training_step.py.

Prints one JSON line when the first step is done. Then, for each line with a number on stdin, makes
that many steps and prints their times; an empty line or the end of the input ends it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np

import coexec


def main() -> None:
    """Build, make the first step, then serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="ONNX file with input x and output y")
    parser.add_argument("data", help=".npz with x and labels: one batch")
    parser.add_argument("processor", help="spec, such as opencl:pocl")
    parser.add_argument("--started", type=float, required=True, help="time.time() of the launch")
    arguments = parser.parse_args()
    data = np.load(arguments.data)
    x, labels = data["x"], data["labels"]
    trainer = coexec.Trainer(
        coexec.load(arguments.model, shapes={"x": x.shape}),
        coexec.losses.SoftmaxCrossEntropy(),
        coexec.optim.SGD(0.01, momentum=0.9),
        [arguments.processor],
    )
    loss = trainer.step({"x": x}, labels)
    if trainer.plan.table():
        raise SystemExit(f"not all on {arguments.processor}:\n{trainer.plan.table()}")
    ready = {
        "first_step_s": time.time() - arguments.started,
        "loss_first": loss,
        "peak_bytes": trainer.peak_bytes,
        "naive_bytes": trainer.program.naive_bytes,
    }
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            loss = trainer.step({"x": x}, labels)
            times.append((time.perf_counter() - start) * 1e3)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"ms": times, "loss": loss, "process_bytes": rss}), flush=True)


if __name__ == "__main__":
    main()
