"""Loads mutated models and writes one JSON object; run by ``test_bad_models`` as a process.

``python -m tests.pipeline.fuzz_models COUNT FOLDER``: half of the files are real ones with bytes
flipped, deleted or inserted, half have single fields set to extreme values (these reach deeper).
The file at hand always lies in FOLDER, so that a crash leaves its cause behind.
"""

from __future__ import annotations

import json
import logging
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from onnx.backend.test.loader import load_model_tests

from coexec.base.errors import CoexecError
from coexec.frontend import load
from coexec.ops.table import OPERATORS

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT_MODELS = ("light_squeezenet.onnx", "light_bvlc_alexnet.onnx")
LIGHT_SHARE = 0.1
HANG_S = 15
EXTREMES = (0, 1, 2, 3, 7, -1, 255, 65536, 100000, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63))
SIZES = (0, 1, 2, 3, 1000, 100000, 2**20, 2**31)
OPSETS = (0, 1, 7, 9, 10, 11, 12, 13, 17, 18, 20, 21, 23, 24, 99, -1)
REAL_NUMBERS = (0.0, -1.0, 1e38, float("nan"), float("inf"))
TEXTS = (b"", b"x", b"SAME_UPPER", b"VALID", b"linear")
OTHER_OPERATORS = ("If", "Loop", "Upsample", "Scatter", "NonZero")


class HangError(BaseException):
    """Raised by the alarm; no handler of the code under test may catch it."""


def main() -> None:
    """Fuzz ``sys.argv[1]`` files."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _alarm)
    folder, rng = Path(sys.argv[2]), random.Random(20240917)
    cases = [test.model.SerializeToString() for test in load_model_tests(kind="node") if test.model]
    light = [(LIGHT / name).read_bytes() for name in LIGHT_MODELS]
    outcomes: Counter[str] = Counter()
    unexpected: list[str] = []
    slowest = 0.0
    for number in range(int(sys.argv[1])):
        start = rng.choice(light if rng.random() < LIGHT_SHARE else cases)
        data = mutate_fields(start, rng) if number % 2 else mutate_bytes(start, rng)
        (folder / "current.onnx").write_bytes(data)
        begun = time.perf_counter()
        outcome = attempt(data)
        slowest = max(slowest, time.perf_counter() - begun)
        if outcome.startswith("!"):
            unexpected.append(outcome)
            (folder / f"unexpected{number}.onnx").write_bytes(data)
        outcomes[outcome.splitlines()[0]] += 1
    peak = _peak_bytes()
    sys.stdout.write(json.dumps(_result(outcomes, unexpected, slowest, peak)) + "\n")


def _peak_bytes() -> int:
    """Largest resident size of this process; ``ru_maxrss`` would start at that of its parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _result(
    outcomes: Counter[str], unexpected: list[str], slowest: float, peak: int
) -> dict[str, Any]:
    return {
        "outcomes": dict(outcomes),
        "unexpected": unexpected,
        "slowest_s": slowest,
        "peak_bytes": peak,
    }


def attempt(data: bytes) -> str:
    """Name of the error, "ok", or "!" and a traceback for anything that must not happen."""
    signal.alarm(HANG_S)
    try:
        load(data)
    except CoexecError as error:
        return type(error).__name__
    except (Exception, HangError):  # noqa: BLE001 - what this program is here to find
        return "!\n" + traceback.format_exc()
    finally:
        signal.alarm(0)
    return "ok"


def _alarm(_signal: int, _frame: object) -> None:
    raise HangError


def mutate_bytes(start: bytes, rng: random.Random) -> bytes:
    """Flip, delete, insert or cut off bytes."""
    data = bytearray(start)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, kind = rng.randrange(len(data)), rng.random()
        if kind < 0.75:
            data[at] = rng.randrange(256)
        elif kind < 0.85:
            del data[at : at + rng.randrange(1, 8)]
        elif kind < 0.95:
            data[at:at] = rng.randbytes(rng.randrange(1, 8))
        else:
            del data[at:]
        if not data:
            return b"\0"
    return bytes(data)


def mutate_fields(start: bytes, rng: random.Random) -> bytes:
    """Set attributes, dimensions, names or tensor data to something extreme."""
    proto = onnx.ModelProto.FromString(start)
    for _ in range(rng.choice((1, 2, 4))):
        node = rng.choice(proto.graph.node)
        kind = rng.random()
        if kind < 0.45 and node.attribute:
            _mutate_attribute(rng.choice(node.attribute), rng)
        elif kind < 0.6 and proto.graph.initializer:
            _mutate_tensor(rng.choice(proto.graph.initializer), rng)
        elif kind < 0.75 and proto.graph.input:
            _mutate_type(rng.choice(proto.graph.input).type.tensor_type, rng)
        elif kind < 0.95:
            _mutate_node(node, rng)
        else:
            proto.opset_import[0].version = rng.choice(OPSETS)
    data: bytes = proto.SerializeToString()
    return data


def _mutate_attribute(attribute: onnx.AttributeProto, rng: random.Random) -> None:
    kinds = onnx.AttributeProto
    if attribute.type == kinds.INT:
        attribute.i = rng.choice(EXTREMES)
    elif attribute.type == kinds.INTS and attribute.ints and rng.random() < 0.8:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(EXTREMES)
    elif attribute.type == kinds.INTS:
        attribute.ints.append(rng.choice(EXTREMES))
    elif attribute.type == kinds.STRING:
        attribute.s = rng.choice(TEXTS)
    elif attribute.type == kinds.FLOAT:
        attribute.f = rng.choice(REAL_NUMBERS)
    elif attribute.type == kinds.TENSOR:
        _mutate_tensor(attribute.t, rng)


def _mutate_tensor(tensor: onnx.TensorProto, rng: random.Random) -> None:
    if tensor.int64_data:
        tensor.int64_data[rng.randrange(len(tensor.int64_data))] = rng.choice(EXTREMES)
    elif tensor.raw_data and rng.random() < 0.7:
        tensor.raw_data = bytes(rng.choice((0, 1, 2, 127, 255)) for _ in tensor.raw_data)
    elif tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(EXTREMES)


def _mutate_type(kind: onnx.TypeProto.Tensor, rng: random.Random) -> None:
    if kind.shape.dim and rng.random() < 0.7:
        kind.shape.dim[rng.randrange(len(kind.shape.dim))].dim_value = rng.choice(SIZES)
    elif rng.random() < 0.5:
        kind.elem_type = rng.randrange(24)
    else:
        kind.shape.dim.add().dim_value = rng.choice(SIZES)


def _mutate_node(node: onnx.NodeProto, rng: random.Random) -> None:
    choice = rng.randrange(5)
    if choice == 0:
        node.op_type = rng.choice([*OPERATORS, *OTHER_OPERATORS])
    elif choice == 1 and node.input:
        del node.input[-1]
    elif choice == 2 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(["", *node.input, *node.output])
    elif choice == 3:
        node.output.append(f"extra{rng.randrange(3)}")
    elif node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


if __name__ == "__main__":
    main()
