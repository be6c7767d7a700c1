"""What ``coexec train`` trains: items of ``--trainable``, adapters of ``--lora``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
from rich.markup import escape

from coexec.base.units import bytes_text
from coexec.cli.output import notes
from coexec.passes.lora import ADAPTERS, add_adapters, parse_lora
from coexec.training.data import Dataset
from coexec.training.sparse_choice import SparseChoice, choose_parameters, parse_auto
from coexec.training.trainer import Trainer


def with_adapters(model: ir.Model, lora: str, seed: int) -> ir.Model:
    """``model`` with adapters as ``RANK[:PATTERN]`` says; as it is for an empty text."""
    if lora:
        rank, pattern = parse_lora(lora)
        add_adapters(model, rank, pattern, seed=seed)
    return model


def items_to_train(trainable: Sequence[str] | None, lora: str) -> tuple[str, ...]:
    """Items of ``trainable`` in :mod:`coexec.autodiff.selection`'s words."""
    return (*(trainable or ()), *([ADAPTERS] if lora else []))


def chosen_to_fit(
    items: Sequence[str],
    make: Callable[[Sequence[str]], Trainer],
    data: Dataset,
    batch_size: int,
) -> SparseChoice | None:
    """What ``auto:BYTES`` comes to, told on stderr; none if ``items`` do not ask for it."""
    budget = parse_auto(items)
    if budget is None:
        return None
    with notes.status("choosing parameters") as status:
        choice = choose_parameters(
            make, data, batch_size, budget, lambda text: status.update(escape(text))
        )
    planned, full = bytes_text(choice.planned_bytes), bytes_text(choice.full_bytes)
    notes.print(
        f"training {len(choice.names)} parameters with {choice.share:.0%} of the contribution: "
        f"{planned} planned, {full} for all",
        highlight=False,
    )
    return choice


def choice_record(choice: SparseChoice | None) -> dict[str, Any] | None:
    """A choice for ``--json``."""
    return None if choice is None else {**vars(choice), "names": list(choice.names)}
