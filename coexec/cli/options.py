"""Options that several commands have, and the check of names that they take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from coexec.autodiff.losses import LOSSES
from coexec.autodiff.optimizers import OPTIMIZERS
from coexec.base.errors import UsageError
from coexec.base.names import known_names
from coexec.passes.float16 import PRECISIONS

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
]
ProcessorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--processor",
        "-p",
        metavar="SPEC",
        help="Processor by preference, may be repeated: opencl, opencl:pocl, reference, ...",
    ),
]
LossOption = Annotated[str, typer.Option("--loss", help=f"One of: {', '.join(LOSSES)}.")]
LossOutputOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Output of the model that the loss judges, or is (--loss model). Default: the first.",
    ),
]
OptimizerOption = Annotated[
    str, typer.Option("--optimizer", help=f"One of: {', '.join(OPTIMIZERS)}.")
]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="Where the model leaves it open.")
]
MemoryOption = Annotated[
    str,
    typer.Option(
        metavar="512MiB",
        help="Budget for all that a training step has on the devices; auto: what is available.",
    ),
]
MemoryLossyOption = Annotated[
    bool,
    typer.Option(
        "--memory-lossy",
        help="--memory may use what loses precision: rounded activations, float16, 8-bit states.",
    ),
]
BatchStatisticsOption = Annotated[
    str,
    typer.Option(
        help="Of batch normalisation: whole; ghost: --memory may divide batches, each part has its "
        "own; frozen: the stored ones, which stay (fine-tuning with small batches)."
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help=f"{' or '.join(PRECISIONS)}; of training float32 or mixed. Others are refused.",
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1x3x224x224", help="Shape of an input left open."),
]


def require_known(flag: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that an option does not know.

    Raises:
        UsageError: with all that it knows.
    """
    names = list(known)
    if name not in names:
        raise UsageError(f"{flag} {name!r} is unknown; {known_names(name, names)}")
