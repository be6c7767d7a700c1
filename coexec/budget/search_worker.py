"""The process that ``apart.py`` starts: searches for the plan that a request asks for."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from coexec.base.errors import MemoryBudgetError, ProcessorError
from coexec.budget.apart import ANSWER, MODEL, REQUEST, Refusal, Request
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.settings import MemoryPlan
from coexec.core.processor import Processor, ProcessorSpec
from coexec.frontend import load
from coexec.processors.find import open_processors


def main() -> None:
    """Answer the request in the folder that the command line names."""
    folder = Path(sys.argv[1])
    request: Request = pickle.loads((folder / REQUEST).read_bytes())  # noqa: S301  our caller's
    (folder / ANSWER).write_bytes(pickle.dumps(_answer(folder, request)))


def _answer(folder: Path, request: Request) -> MemoryPlan | Refusal:
    """A plan, or that there is none."""
    model = load(ir.load(folder / MODEL))
    processors = _opened(request.processors)
    how = (model, request.recipe, processors, request.nbytes, request.mode)
    steps = BudgetedSteps(*how, lossy=request.lossy)
    try:
        return steps.search(request)
    except MemoryBudgetError as error:
        return Refusal(str(error), error.least_bytes)


def _opened(specs: Sequence[ProcessorSpec]) -> dict[str, Processor]:
    """The processors of these descriptions by name.

    Raises:
        ProcessorError: there is none, or another one by its name.
    """
    processors = open_processors([spec.name for spec in specs])
    for spec, processor in zip(specs, processors, strict=True):
        if processor.describe() != spec:
            raise ProcessorError(f"{spec.name} is another processor here: {processor.describe()}")
    return {spec.name: processor for spec, processor in zip(specs, processors, strict=True)}
