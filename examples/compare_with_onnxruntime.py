"""Run a classifier on coexec and on ONNX Runtime: do they say the same, and are they right?

An example: python examples/compare_with_onnxruntime.py out/digits.onnx out/validation.npz

Exits with 1 where a prediction differs, where the logits differ by more than 1e-3 of the largest,
or where the accuracy is below --least-accuracy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import coexec

TOLERANCE = 1e-3

Logits = NDArray[np.float32]


def coexec_logits(model: Path, x: Logits, processor: str) -> Logits:
    """``y`` of the model on a coexec processor."""
    session = coexec.compile(coexec.load(model, shapes={"x": x.shape}), processors=[processor])
    return np.asarray(session.run({"x": x})["y"])


def onnxruntime_logits(model: Path, x: Logits) -> Logits:
    """``y`` of the model in ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def compare(ours: Logits, theirs: Logits, labels: NDArray[np.int64], least: float) -> bool:
    """Print accuracies and differences; True where all is well."""
    difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    predictions, other = ours.argmax(-1), theirs.argmax(-1)
    accuracy = float((predictions == labels).mean())
    same = int((predictions == other).sum())
    print(f"accuracy on {len(labels)} held-out samples: {accuracy:.2%} (at least {least:.0%})")
    print(f"ONNX Runtime: {float((other == labels).mean()):.2%}; {same} of {len(labels)} agree")
    print(f"largest difference of logits: {difference:.1e} of the largest logit")
    return accuracy >= least and same == len(labels) and difference <= TOLERANCE


def main() -> int:
    """Compare and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX file with input x and output y")
    parser.add_argument("data", type=Path, help="npz file with x and labels")
    parser.add_argument("--processor", default="opencl", help="coexec's processor")
    parser.add_argument("--least-accuracy", type=float, default=0.0)
    arguments = parser.parse_args()
    data = np.load(arguments.data)
    well = compare(
        coexec_logits(arguments.model, data["x"], arguments.processor),
        onnxruntime_logits(arguments.model, data["x"]),
        data["labels"],
        arguments.least_accuracy,
    )
    print("the same predictions" if well else "FAILED")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
