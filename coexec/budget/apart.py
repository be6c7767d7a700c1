"""Searches for a budget by another process: what a search leaves in memory goes with it.

Hundreds of thousands of small objects come and go while plans are compared. Few stay, but they lie
between the others, so that the heap keeps tens of MiB, which training then has no use for. Where
steps go on meanwhile, they do not share the interpreter with the search either.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from coexec.base.errors import MemoryBudgetError
from coexec.base.knobs import SEARCH_APART
from coexec.budget.settings import MemoryPlan
from coexec.core.processor import ProcessorSpec
from coexec.core.types import Array
from coexec.frontend import is_parameter
from coexec.runtime.mode import ExecutionMode
from coexec.steps.builder import Recipe

MODEL, WEIGHTS, REQUEST, ANSWER = "model.onnx", "weights", "request", "answer"
LEAST_TENSOR_BYTES = 64 << 10
"""Of weights that the other process gets zeros for: a plan depends on shapes, not on weights."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is searched for: steps of a recipe on batches of these shapes, within ``nbytes``.

    ``optimizer_stays``: techniques may not change the states, which other plans share. ``runs``:
    who searches may run forms of the step, as nothing else does meanwhile.
    """

    recipe: Recipe
    processors: tuple[ProcessorSpec, ...]
    nbytes: int
    mode: ExecutionMode
    lossy: bool
    optimizer_stays: bool
    batch: Mapping[str, tuple[tuple[int, ...], str]]
    runs: bool = False

    def arrays(self) -> dict[str, Array]:
        """Arrays of the batch's shapes and types that take no memory."""
        return {
            name: np.broadcast_to(np.zeros((), dtype), shape)
            for name, (shape, dtype) in self.batch.items()
        }


@dataclass(frozen=True)
class Refusal:
    """What the other process found instead of a plan: the fields of a ``MemoryBudgetError``."""

    message: str
    least_bytes: int


def worth_a_process(model: ir.Model) -> bool:
    """Whether the search for a plan of this model is to be left to another process."""
    return bool(sys.executable) and 0 < SEARCH_APART.number <= len(model.graph)


def plan_apart(model: ir.Model, request: Request) -> MemoryPlan | None:
    """The plan that another process finds; none if it cannot search, and the log says why.

    Raises:
        MemoryBudgetError: nothing fits.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="coexec-search-") as name:
            folder = Path(name)
            _write(model, folder)
            (folder / REQUEST).write_bytes(pickle.dumps(request))
            _run(folder)
            # Written by our own process, in a folder that only this user may enter.
            answer = pickle.loads((folder / ANSWER).read_bytes())  # noqa: S301
    except (OSError, pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
        log.warning("no other process searches for a plan (%s): this one does", error)
        return None
    if isinstance(answer, Refusal):
        raise MemoryBudgetError(answer.message, answer.least_bytes)
    assert isinstance(answer, MemoryPlan)
    return answer


def _run(folder: Path) -> None:
    """Have ``search_worker.py`` answer the request in a folder.

    Raises:
        RuntimeError: it could not.
    """
    start = f"import sys; sys.path[:] = {sys.path!r}"
    worker = "from coexec.budget.search_worker import main; main()"
    done = subprocess.run(  # noqa: S603  this very interpreter
        [sys.executable, "-c", f"{start}; {worker}", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        process_group=0,  # Ctrl-C is for this process, which then ends the other one
    )
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.strip().splitlines()[-1:]) or done.returncode)


def _write(model: ir.Model, folder: Path) -> None:
    """The model as a file, its large weights zeros of a file that takes no room on disk."""
    copy = model.clone()
    large = {
        name: value.const_value
        for name, value in copy.graph.initializers.items()
        if is_parameter(value) and value.const_value is not None
        if value.const_value.nbytes >= LEAST_TENSOR_BYTES
    }
    for name, tensor in large.items():
        kind, shape = tensor.dtype, ir.Shape(tensor.shape.numpy())
        zeros = ir.ExternalTensor(
            WEIGHTS, 0, tensor.nbytes, kind, shape=shape, name=name, base_dir=folder
        )
        copy.graph.initializers[name].const_value = zeros
    with (folder / WEIGHTS).open("wb") as file:
        file.truncate(max((tensor.nbytes for tensor in large.values()), default=0))
    ir.save(copy, folder / MODEL)
