"""``coexec validate``: predictions of phones against measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from coexec.base.errors import UsageError
from coexec.cli.options import JsonFlag
from coexec.cli.output import (
    console,
    notes,
    print_json,
    require_writable,
)
from coexec.cost.calibration import training
from coexec.cost.calibration.check import Check, left_out_checks
from coexec.cost.calibration.checks import check_folder
from coexec.cost.calibration.consistency import Closest, closest
from coexec.cost.calibration.folder import Measurements, read_files, require_samples
from coexec.cost.calibration.left_out import reasons
from coexec.cost.calibration.sample import Sample
from coexec.cost.calibration.score import Score
from coexec.cost.calibration.validate import (
    BY_MODEL,
    BY_SOC,
    Observer,
    Outcome,
    as_shipped,
    cross_validate,
    from_data_sheets,
)
from coexec.cost.soc.coefficients import Coefficients, read_coefficients, shipped
from coexec.report.validation_page import write_validation_page


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate", epilog="Example: coexec validate --data phones --html validate.html")(
        validate
    )


def validate(
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of CSV files; without, what is known already."),
    ] = None,
    coefficients: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="Of coexec calibrate, in place of the shipped ones."
        ),
    ] = None,
    cross: Annotated[
        bool,
        typer.Option(
            "--cross/--no-cross",
            help="Fit again with models, with chips, with all measured on a chip held out.",
        ),
    ] = True,
    html: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how far predictions are from measurements, beside FLOP over peak on the same rows."""
    used = read_coefficients(coefficients) if coefficients is not None else shipped()
    if data is None:
        if html is not None:
            raise UsageError("--html goes with --data: a page shows rows")
        _show_known(used, as_json)
        return
    require_writable(html, "--html")
    found = read_files(data)
    checks = [*left_out_checks(found.left_out), *check_folder(data, used)]
    if not any(check.rows for check in checks):
        require_samples(data, found)
    with notes.status("predicting") as status:
        outcomes = [as_shipped(used, found.samples)] if found.samples else []
        if cross and found.samples:
            outcomes += _held_out(found.samples, lambda name: status.update(escape(name)))
    record = _record(data, used, outcomes, found)
    record["checks"] = [_plain(check) for check in checks]
    if html is not None:
        write_validation_page(record, html)
    if as_json:
        print_json({key: value for key, value in record.items() if key != "plots"})
        return
    _show(record)
    _show_checks(checks)
    if html is not None:
        console.print(f"written {escape(str(html))}")


def _held_out(samples: Sequence[Sample], observe: Observer) -> list[Outcome]:
    """By model, by chip and from data sheets: those that there are enough rows for."""
    outcomes = [cross_validate(samples, split, observe) for split in (BY_MODEL, BY_SOC)]
    outcomes.append(from_data_sheets(samples, observe))
    return [outcome for outcome in outcomes if outcome is not None]


def _record(
    data: Path, used: Coefficients, outcomes: Sequence[Outcome], found: Measurements
) -> dict[str, Any]:
    scores = [score for outcome in outcomes for score in outcome.scores()]
    return {
        "data": data.name,
        "fitted": used.date,
        "verdict": _verdict(scores),
        "skipped": found.skipped,
        "left_out": [asdict(each) for each in reasons(found.left_out)],
        "scores": [asdict(score) | {"gain": score.gain} for score in scores],
        "chips": [asdict(score) for outcome in outcomes for score in _chips(outcome)],
        "ratios": [ratio for outcome in outcomes for ratio in _ratios(outcome)],
        "closest": [asdict(each) for each in _closest(outcomes[0])] if outcomes else [],
        "plots": [plot for outcome in outcomes for plot in _plots(outcome)],
    }


def _verdict(scores: Sequence[Score]) -> str:
    """The strictest split that there is, over all of each dataset."""
    if not scores:
        return "No row is predicted; figures are compared below."
    last = scores[-1].split
    totals = [score for score in scores if score.group == "all" and score.split == last]
    parts = [
        f"{score.dataset} {100 * score.mape:.1f} % off (FLOP over peak "
        f"{100 * score.baseline_mape:.0f} %)"
        for score in totals
    ]
    return f"{last.capitalize()}: {'; '.join(parts)}."


def _chips(outcome: Outcome) -> Iterator[Score]:
    for name in sorted({sample.soc.name for sample in outcome.samples}):
        yield from outcome.of_chip(name)


def _ratios(outcome: Outcome) -> Iterator[dict[str, object]]:
    places = [i for i, s in enumerate(outcome.samples) if s.dataset == training.DATASET]
    samples = [outcome.samples[place] for place in places]
    for ratio in training.ratios(samples, outcome.predicted[places]):
        yield {**ratio, "split": outcome.split}


def _closest(outcome: Outcome) -> list[Closest]:
    """How close to the ratios of training any sum of costs can come."""
    places = [i for i, s in enumerate(outcome.samples) if s.dataset == training.DATASET]
    samples = [outcome.samples[place] for place in places]
    return closest(samples, outcome.predicted[places].tolist(), training.DIGIT_US)


def _plots(outcome: Outcome) -> Iterator[dict[str, Any]]:
    for dataset in dict.fromkeys(sample.dataset for sample in outcome.samples):
        yield {
            "title": f"{dataset}, {outcome.split}",
            "points": [
                {
                    "measured_us": sample.measured_us,
                    "predicted_us": float(guess),
                    "kind": sample.kind,
                    "label": f"{sample.model}, {sample.soc.name} {sample.processor}",
                }
                for sample, guess in zip(outcome.samples, outcome.predicted, strict=True)
                if sample.dataset == dataset
            ],
        }


def _show(record: dict[str, Any]) -> None:
    table = Table(title=f"Predictions against {escape(record['data'])}")
    for name in ("split", "data", "group"):
        table.add_column(name)
    for name in ("rows", "MAPE", "within 10 %", "within 20 %", "bias", "FLOP/peak", "tau"):
        table.add_column(name, justify="right")
    for score in record["scores"]:
        shares = (score["mape"], score["within_10"], score["within_20"])
        table.add_row(
            score["split"],
            score["dataset"],
            escape(score["group"]),
            f"{score['rows']:,}",
            *(f"{100 * share:.1f} %" for share in shares),
            f"{100 * score['bias']:+.1f} %",
            f"{100 * score['baseline_mape']:.1f} %",
            "" if score["tau"] != score["tau"] else f"{score['tau']:.2f}",
        )
    console.print(table)
    for ratio in record["ratios"]:
        console.print(
            f"{ratio['split']}: training {ratio['model']} on {ratio['soc']}, {ratio['ratio']}: "
            f"measured {ratio['measured']:.2f}, predicted {ratio['predicted']:.2f}",
            highlight=False,
        )
    for each in record["closest"]:
        console.print(
            f"{each['ratio']} of {each['rows']} training steps: no sum of costs is less than "
            f"{100 * each['error']:.0f} % off in the worst of them, fitted to them all "
            f"({100 * each['rounded']:.0f} % where printed digits are rounded so as to suit it)",
            highlight=False,
        )
    for name, count in record["skipped"].items():
        console.print(f"[dim]{escape(name)}: {count} rows are not predicted, see below[/]")
    console.print(escape(record["verdict"]))


def _plain(check: Check) -> dict[str, object]:
    """As JSON has it: numbers where there are rows."""
    record = asdict(check)
    return record if check.rows else {key: record[key] for key in ("file", "what", "note", "rows")}


def _show_checks(checks: Sequence[Check]) -> None:
    """What is compared without being fitted, and why the rest is not."""
    table = Table(title="What nothing is fitted to, and what is not predicted")
    for name in ("file", "what", "note"):
        table.add_column(name)
    for name in ("rows", "MAPE", "bias", "within 20 %"):
        table.add_column(name, justify="right")
    for check in checks:
        shares = (check.mape, check.bias, check.within_20) if check.rows else ()
        texts = [f"{100 * share:.0f} %" for share in shares] or ["", "", ""]
        count = f"{check.rows:,}" if check.rows else ""
        table.add_row(escape(check.file), escape(check.what), escape(check.note), count, *texts)
    console.print(table)


def _show_known(used: Coefficients, as_json: bool) -> None:
    """What calibration wrote down when it fitted."""
    if as_json:
        print_json({"fitted": used.date, "rows": used.rows, "errors": used.errors})
        return
    console.print(f"Fitted {used.date}; mean errors on models that were held out:")
    for group, error in used.errors.items():
        rows = used.rows[group]
        console.print(f"  {group:<40} {100 * error:5.1f} %  ({rows:,} rows)", highlight=False)
