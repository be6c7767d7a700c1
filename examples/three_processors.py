"""A quantised MobileNetV2 on three processors at once: an NPU, an OpenCL device and a CPU.

An example: python examples/three_processors.py out/train.npz out/validation.npz

Trains the zoo's MobileNetV2 on enlarged handwritten digits (examples/prepare_digits.py writes
them), quantises it to 8 bits with ONNX Runtime's quantiser, and runs it: the first blocks on the
OpenCL device, the rest on the NPU, and on the CPU what the NPU refuses. Prints where nodes went,
every refusal with its reason, and the accuracy beside that of the float network and of the 8-bit
one on the OpenCL device alone. Times are not printed: on Linux x86-64 Qualcomm's package simulates
the NPU (pip install 'coexec[npu]').
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from rich.console import Console

import coexec
from coexec.api import open_all
from coexec.compression.effect import accuracy, agreement
from coexec.compression.techniques import Settings, compress
from coexec.core.plan import Plan
from coexec.core.types import Array
from coexec.training.data import Dataset, load_npz
from coexec.training.fit import FitOptions, fit
from coexec.zoo.mobilenet import mobilenetv2

CALIBRATION = 64
BATCH, RATE = 32, 2e-3


def enlarged(file: Path, size: int) -> Dataset:
    """Digits (N, 1, 8, 8) as colour images (N, 3, size, size)."""
    data = load_npz(file)
    times = size // data.inputs["x"].shape[-1]
    x = data.inputs["x"].repeat(3, 1).repeat(times, 2).repeat(times, 3)
    return Dataset({"x": x}, data.labels)


def networks(arguments: argparse.Namespace, data: Dataset) -> tuple[ir.Model, ir.Model]:
    """The trained float network and its 8-bit form, both for one image."""
    size = arguments.image_size
    width, classes = arguments.width, arguments.classes
    built = mobilenetv2(classes=classes, width=width, image_size=size, dropout_ratio=0)
    trainer = coexec.Trainer(
        coexec.load(built),
        loss=coexec.losses.SoftmaxCrossEntropy(),
        optimizer=coexec.optim.Adam(RATE),
        processors=[arguments.opencl],
    )
    fit(trainer, data, None, FitOptions(epochs=arguments.epochs, batch_size=BATCH))
    trained = coexec.load(trainer.trained_model(), {"x": (1, 3, size, size)})
    typical = {"x": data.inputs["x"][:CALIBRATION]}
    quantised, _ = compress(trained, ["int8"], Settings(calibration=typical))
    return trained, coexec.load(quantised)


def three_ways(preferred: Plan, npu: str, opencl: str, blocks: int) -> Plan:
    """``preferred`` with the nodes in front of block ``blocks`` moved from the NPU to OpenCL."""
    names = list(preferred.processors)
    end = next(i for i, name in enumerate(names) if f"features.{blocks}." in name)
    moved = {name: opencl for name in names[:end] if preferred.processors[name] == npu}
    return replace(preferred, processors={**preferred.processors, **moved})


def answers(session: Any, x: Array) -> Array:
    """Logits of all images, one at a time: (images, classes)."""
    return np.concatenate([session.run({"x": image[None]})["y"] for image in x])


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run it, and say where and how well."""
    wanted = (arguments.npu, arguments.cpu, arguments.opencl)
    trained, quantised = networks(arguments, enlarged(arguments.train, arguments.image_size))
    preferred = coexec.compile(quantised, wanted).plan
    npu, _, opencl = (next(iter(open_all([spec]))) for spec in wanted)
    plan = three_ways(preferred, npu, opencl, arguments.blocks)
    session = coexec.compile(quantised, wanted, plan=plan)
    held_out = enlarged(arguments.validation, arguments.image_size).take(
        np.arange(arguments.images)
    )
    x, labels = held_out.inputs["x"], held_out.truth
    found = answers(session, x)
    floats, integers = (
        answers(coexec.compile(model, [arguments.opencl]), x) for model in (trained, quantised)
    )
    return {
        "width": arguments.width,
        "classes": arguments.classes,
        "image_size": arguments.image_size,
        "images": len(labels),
        "nodes": dict(Counter(session.plan.processors.values())),
        "refusals": [asdict(refusal) for refusal in plan.refusals],
        "accuracy_float": accuracy(floats, labels),
        "accuracy_8_bits": accuracy(integers, labels),
        "accuracy_three_processors": accuracy(found, labels),
        "agreement_with_float": agreement(found, floats),
        "agreement_with_8_bits": agreement(found, integers),
    }


def show(record: dict[str, Any]) -> None:
    """The record for people."""
    for name, count in record["nodes"].items():
        print(f"{count:4} nodes on {name}")
    for refusal in record["refusals"]:
        print("{operator} {node!r} not on {processor}: {reason}".format(**refusal))
    print(f"accuracy on {record['images']} held-out images:")
    print(f"  float, OpenCL alone      {record['accuracy_float']:.1%}")
    print(f"  8 bits, OpenCL alone     {record['accuracy_8_bits']:.1%}")
    print(f"  8 bits, three processors {record['accuracy_three_processors']:.1%}")
    print(f"same answer as in float {record['agreement_with_float']:.1%}, ", end="")
    print(f"as in 8 bits on OpenCL alone {record['agreement_with_8_bits']:.1%}")


def main() -> int:
    """Print the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path, help="npz file with x and labels")
    parser.add_argument("validation", type=Path, help="the same, held out")
    parser.add_argument("--epochs", type=int, default=3, help="of training")
    parser.add_argument("--width", type=float, default=0.35, help="of MobileNetV2 [0.35]")
    parser.add_argument("--classes", type=int, default=1000, help="10 of them occur [1000]")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--images", type=int, default=64, help="held-out images to answer")
    parser.add_argument("--blocks", type=int, default=4, help="blocks on the OpenCL device")
    parser.add_argument("--npu", default="ort:qnn")
    parser.add_argument("--opencl", default="opencl")
    parser.add_argument("--cpu", default="ort:cpu")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with Console(stderr=True).status("training, quantising, asking the NPU, running"):
        record = measure(arguments)
    if arguments.json:
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        show(record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
