"""Plans that are run before one is taken: when that is done, and how the commands show it.

Also what earlier runs say of predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from coexec.base.errors import DeviceMemoryError, NonFiniteLoss, UsageError
from coexec.cli.output import console, notes
from coexec.core.types import Array
from coexec.placement.policies.table import ALL, AUTO
from coexec.planning.planner import Planning
from coexec.planning.verification import Verified, verify_training
from coexec.training.trainer import Trainer

NOT_RUN = (DeviceMemoryError, NonFiniteLoss)
"""What keeps plans from being tried, but not a plan from being followed: they are all in memory at
once, and their steps repeat one batch."""


def runs_plans(
    asked: bool | None, policy: str, seconds: float, specs: Sequence[str], memory: str
) -> bool:
    """Whether the best plans are run before one is taken; by default where that can be done.

    ``asked`` is what ``--verify`` or ``--no-verify`` says (``None``: neither), ``seconds`` the time
    for measuring, ``memory`` the budget of a training step.

    Raises:
        UsageError: it is asked for and cannot be done.
    """
    if asked and policy not in (AUTO, ALL):
        raise UsageError(
            f"--verify needs --policy {AUTO} or {ALL}: a named policy is taken as it is"
        )
    if asked and memory:
        raise UsageError(
            "--verify runs plans beside each other, which --memory has no room for: leave out one"
        )
    simulated = any(spec.startswith("sim:") for spec in specs)
    by_default = policy == AUTO and seconds > 0 and not simulated and not memory
    return by_default if asked is None else asked


def tried_steps(
    trainer: Trainer,
    feeds: Mapping[str, Array],
    labels: Array | None,
    planning: Planning,
    seconds: float,
) -> Verified | None:
    """:func:`verify_training`, or a note on stderr why no step can be tried."""
    try:
        return verify_training(trainer, feeds, labels, planning, seconds)
    except NOT_RUN as error:
        notes.print(f"[yellow]plans were not run before one was taken:[/] {escape(str(error))}")
        return None


def corrections_record(planning: Planning) -> list[dict[str, Any]]:
    """By what runs of whole programs correct predictions, for JSON."""
    known = planning.ground.corrections
    return [
        {
            "of": name,
            "factor": each.factor,
            "more_us_per_node": each.each_us,
            "other_programs": each.programs,
        }
        for name, each in (*known.alone.items(), *known.ways.items())
    ]


def show_corrections(planning: Planning) -> None:
    """The same in a line for each."""
    for each in corrections_record(planning):
        others = each["other_programs"]
        runs = f"runs of {others} other programs" if others else "runs of this program"
        more = f" and {each['more_us_per_node']:.0f} us a node" if each["more_us_per_node"] else ""
        text = f"{each['of']}: {each['factor']:.2f} of what calls alone say{more}, by {runs}"
        console.print(f"[dim]{escape(text)}[/]", highlight=False)


def verified_record(tried: Verified) -> dict[str, Any]:
    """Plans that were run, for JSON; times in milliseconds."""
    times = [
        {"plan": name, "measured_ms": us / 1e3, "predicted_ms": tried.predicted_us[name] / 1e3}
        for name, us in tried.measured_us.items()
    ]
    return {"plan": tried.name, "runs": times}


def show_verified(tried: Verified) -> None:
    """The same as a table."""
    table = Table(title="Run", title_justify="left", box=None, pad_edge=False)
    for column in ("", "ms measured", "predicted"):
        table.add_column(column, no_wrap=True, justify="right" if column else "left")
    for run in verified_record(tried)["runs"]:
        marked = "[bold]" if run["plan"] == tried.name else ""
        numbers = (f"{run[key]:.3f}" for key in ("measured_ms", "predicted_ms"))
        table.add_row(f"{marked}{escape(run['plan'])}", *numbers)
    console.print()
    console.print(table)
