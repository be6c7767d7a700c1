"""``coexec calibrate``: fit the costs of phones' processors to measurements."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from coexec.cli.options import JsonFlag
from coexec.cli.output import (
    console,
    notes,
    print_json,
    require_writable,
)
from coexec.cost.calibration.fit import fit
from coexec.cost.calibration.folder import read_folder
from coexec.cost.calibration.left_out import reasons
from coexec.cost.calibration.score import Score
from coexec.cost.calibration.validate import BY_MODEL, cross_validate
from coexec.cost.soc.coefficients import write_coefficients


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "calibrate", epilog="Example: coexec calibrate --data phones --out coefficients.json"
    )(calibrate)


def calibrate(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of CSV files.")],
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Coefficients to write.")],
    as_json: JsonFlag = False,
) -> None:
    """Fit what engines reach of processors' limits, and how far off that is on unseen models."""
    require_writable(out, "--out")
    found = read_folder(data)
    with notes.status("fitting") as status:
        coefficients = fit(found.samples)
        outcome = cross_validate(
            found.samples, BY_MODEL, lambda name: status.update(f"judging: {escape(name)}")
        )
    scores = [score for score in outcome.scores() if score.group != "all"] if outcome else []
    coefficients = replace(coefficients, errors=_errors(scores), date=date.today().isoformat())
    write_coefficients(coefficients, out)
    if as_json:
        print_json(
            {
                "out": out,
                "date": coefficients.date,
                "rows": coefficients.rows,
                "errors": coefficients.errors,
                "skipped": found.skipped,
            }
        )
        return
    for group, error in coefficients.errors.items():
        rows = coefficients.rows[group]
        console.print(f"{group:<40} {rows:6} rows, {100 * error:5.1f} % off", highlight=False)
    for each in reasons(found.left_out):
        note = f"{each.file}: {each.rows:,} rows {each.note()}"
        console.print(f"[dim]{escape(note)}[/]", highlight=False)
    console.print(f"written {escape(str(out))}")


def _errors(scores: list[Score]) -> dict[str, float]:
    """The mean error of each group; a group of several datasets counts by its rows."""
    groups = dict.fromkeys(score.group for score in scores)
    return {
        group: sum(s.mape * s.rows for s in scores if s.group == group)
        / sum(s.rows for s in scores if s.group == group)
        for group in groups
    }
