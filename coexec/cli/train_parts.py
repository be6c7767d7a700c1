"""What ``coexec train`` trains with: losses, optimizers and schedules by their options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from coexec.autodiff.losses import LOSSES, Loss
from coexec.autodiff.optimizers import OPTIMIZERS, Optimizer
from coexec.autodiff.schedules import (
    Constant,
    Cosine,
    Linear,
    OneCycle,
    Schedule,
    StepDecay,
    Warmup,
)
from coexec.base.errors import UsageError
from coexec.cli.options import require_known
from coexec.training.data import LastBatch

MOMENTUM = 0.9
"""Of SGD, where none is asked for."""
STATE_BITS = {"float32": 32, "8bit": 8}

FLAGS = {"delta": "--huber-delta", "output": "--loss-output"}
"""Options of losses that are called otherwise than their fields."""

IgnoreIndexOption = Annotated[
    int | None, typer.Option(metavar="LABEL", help="For cross-entropy: labels that do not count.")
]
ClassWeightsOption = Annotated[
    str, typer.Option(metavar="W,W,...", help="For cross-entropy: what each class costs.")
]
PosWeightOption = Annotated[
    str, typer.Option(metavar="W[,W...]", help="For bce: what a label of 1 costs, by class.")
]


EmaOption = Annotated[
    float | None,
    typer.Option(
        metavar="DECAY",
        help="Exponential moving average of parameters, as 0.999: evaluated, and saved in --out.",
    ),
]
ClipNormOption = Annotated[
    float | None, typer.Option(help="Bound of the norm of all gradients together.")
]
ClipValueOption = Annotated[
    float | None, typer.Option(help="Bound of each number of the gradients, before --clip-norm.")
]
ScheduleOption = Annotated[str, typer.Option(help="constant, step, linear, cosine or one-cycle.")]
LastBatchOption = Annotated[
    str,
    typer.Option(help="Samples that do not fill a batch: drop them from the epoch, or keep them."),
]
NoDecayOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT",
        help="No weight decay for these: a PATTERN of names, or vectors (biases, norms); repeat.",
    ),
]
RateOfOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT=FACTOR", help="Learning rate of these: 'backbone.*=0.1'; may be repeated."
    ),
]


def check_choice(validation: Path | None, every: int, *, chooses: bool) -> None:
    """Refuse ``--patience`` and ``--keep-best``, which choose, where there is nothing to choose.

    Raises:
        UsageError: there are no evaluations, or there is one at the end alone.
    """
    if chooses and validation is None:
        raise UsageError("--patience and --keep-best go by the loss on --validation FILE.npz")
    if chooses and not every:
        raise UsageError(
            "--patience and --keep-best compare evaluations: --validate-every 0 makes one alone"
        )


def check_companions(given: Mapping[str, tuple[object, str, object]]) -> None:
    """Refuse options that do nothing without another one.

    By option: whether it was given, what it needs and what for, and what was given of that.

    Raises:
        UsageError: one is without what it needs.
    """
    for flag, (asked, needed, companion) in given.items():
        if asked and not companion:
            raise UsageError(f"{flag} needs {needed}")


def last_batch_of(text: str, *, one_size: bool) -> LastBatch:
    """What becomes of the last batch; other steps may have to be of ``one_size``.

    Raises:
        UsageError: an unknown word, or such steps with a batch of another size.
    """
    require_known("--last-batch", text, get_args(LastBatch))
    if text == "keep" and one_size:
        raise UsageError("--last-batch keep: --plan, --processors and --memory are for one size")
    return "keep" if text == "keep" else "drop"


def loss_of(name: str, **options: Any) -> Loss:
    """The loss of this name, with options that differ from its defaults.

    Raises:
        UsageError: there is no such loss, or it has no such option or value.
    """
    require_known("--loss", name, LOSSES)
    chosen = LOSSES[name]
    taken = {field.name for field in fields(chosen)}
    for option, value in options.items():
        if option not in taken:
            flag = FLAGS.get(option, f"--{option.replace('_', '-')}")
            having = [n for n, loss in LOSSES.items() if option in {f.name for f in fields(loss)}]
            raise UsageError(f"{flag} is for --loss {' or '.join(having)}, not {name}: {value}")
    return chosen(**options)


def loss_on(name: str, output: str, **options: Any) -> Loss:
    """The loss of this name on an output of the model; the first one if ``output`` is empty.

    Raises what :func:`loss_of` does.
    """
    return loss_of(name, **options, **({"output": output} if output else {}))


def loss_options(
    label_smoothing: float,
    class_axis: int,
    ignore_index: int | None,
    class_weights: str,
    pos_weight: str,
    huber_delta: float | None,
    output: str,
) -> dict[str, Any]:
    """Options of a loss that were given, by the names of its fields.

    Raises:
        UsageError: one has no meaning.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise UsageError(f"--label-smoothing must be in [0, 1), not {label_smoothing}")
    if huber_delta is not None and not 0 < huber_delta < math.inf:
        raise UsageError(f"--huber-delta must be finite and above 0, not {huber_delta}")
    weights = numbers("--pos-weight", pos_weight)
    given = {
        "label_smoothing": label_smoothing or None,
        "class_axis": None if class_axis == 1 else class_axis,
        "ignore_index": ignore_index,
        "class_weights": numbers("--class-weights", class_weights) or None,
        "pos_weight": (weights if len(weights) > 1 else weights[0]) if weights else None,
        "delta": huber_delta,
        "output": output or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """Numbers between commas; none of an empty text.

    Raises:
        UsageError: something else stands there.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError(f"{flag} {text!r}: numbers between commas are wanted") from error


def groups_of(no_decay: list[str] | None, rate_of: list[str] | None) -> dict[str, Any]:
    """Options of an optimizer for some parameters, by the names of its fields.

    Raises:
        UsageError: an item without a factor, or a factor that is none.
    """
    rates = []
    for item in rate_of or ():
        what, _, text = item.rpartition("=")
        try:
            factor = float(text)
        except ValueError:
            factor = math.nan
        if not what or not 0 <= factor < math.inf:
            raise UsageError(f"--rate-of {item!r}: WHAT=FACTOR is wanted, such as 'backbone.*=0.1'")
        rates.append((what, factor))
    return {"no_decay": tuple(no_decay or ()), "rates": tuple(rates)}


def optimizer_of(
    name: str,
    rate: Schedule,
    momentum: float | None,
    weight_decay: float | None,
    state: str,
    groups: Mapping[str, Any],
) -> Optimizer:
    """The optimizer of this name, with what :func:`groups_of` says.

    Raises:
        UsageError: there is none, or an option has no meaning.
    """
    require_known("--optimizer", name, OPTIMIZERS)
    if momentum is not None and not 0.0 <= momentum < 1.0:
        raise UsageError(f"--momentum must be in [0, 1), not {momentum}")
    if weight_decay is not None and not weight_decay >= 0:
        raise UsageError(f"--weight-decay must be at least 0, not {weight_decay}")
    require_known("--optimizer-state", state, STATE_BITS)
    moved = MOMENTUM if name == "sgd" and momentum is None else momentum
    bits = None if state == "float32" else STATE_BITS[state]
    given = {"weight_decay": weight_decay, "momentum": moved, "state_bits": bits}
    options = {option: value for option, value in given.items() if value is not None}
    _require_taken(name, options)
    chosen: Optimizer = OPTIMIZERS[name](rate, **options, **groups)
    return chosen


def _require_taken(name: str, options: Mapping[str, float]) -> None:
    """Refuse options that the optimizer of this name does not have.

    Raises:
        UsageError: with those that have them.
    """
    taken = {n: {field.name for field in fields(each)} for n, each in OPTIMIZERS.items()}
    for option in options.keys() - taken[name]:
        flag = "--optimizer-state 8bit" if option == "state_bits" else f"--{option}"
        having = " or ".join(n for n in OPTIMIZERS if option in taken[n])
        raise UsageError(f"{flag} is for --optimizer {having}, not {name}")


def check_above_0(flag: str, given: float | None) -> None:
    """Refuse what is there and no finite number above 0.

    Raises:
        UsageError: it is such.
    """
    if given is not None and not 0 < given < math.inf:
        raise UsageError(f"{flag} must be finite and above 0, not {given}")


def schedule_of(name: str, rate: float, steps: int, warmup_steps: int) -> Schedule:
    """The schedule of this name; step decay divides by ten after each third of the training.

    Raises:
        UsageError: there is none, or the rate has no meaning.
    """
    if not rate > 0:  # NaN is not either
        raise UsageError(f"--learning-rate must be above 0, not {rate}")
    known: dict[str, Schedule] = {
        "constant": Constant(rate),
        "step": StepDecay(rate, every=max(steps // 3, 1)),
        "linear": Linear(rate, steps=max(steps - warmup_steps, 1)),
        "cosine": Cosine(rate, steps=max(steps - warmup_steps, 1)),
        "one-cycle": OneCycle(rate, steps=max(steps, 1)),
    }
    require_known("--schedule", name, known)
    if warmup_steps and name == "one-cycle":
        raise UsageError("--schedule one-cycle rises by itself: leave out --warmup-steps")
    return Warmup(known[name], warmup_steps) if warmup_steps else known[name]
