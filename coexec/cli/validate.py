"""``coexec validate``: predictions of phones against measurements."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
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
    BY_FAMILY,
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

LONGEST = 240
"""Characters of a reason why rows are not predicted: it may name hundreds of networks."""


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
    families: Annotated[
        bool,
        typer.Option("--families", help="Fit again with whole families of models held out, too."),
    ] = False,
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
            splits = (BY_MODEL, BY_FAMILY, BY_SOC) if families else (BY_MODEL, BY_SOC)
            outcomes += _held_out(found.samples, splits, lambda name: status.update(escape(name)))
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


def _held_out(samples: Sequence[Sample], splits: Sequence[str], observe: Observer) -> list[Outcome]:
    """By each of ``splits`` and from data sheets: those that there are enough rows for."""
    outcomes = [cross_validate(samples, split, observe) for split in splits]
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
    for split in dict.fromkeys(score["split"] for score in record["scores"]):
        scores = [score for score in record["scores"] if score["split"] == split]
        console.print(_score_table(f"Against {record['data']}, {split}", scores))
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


def _score_table(title: str, scores: Sequence[Mapping[str, Any]]) -> Table:
    """Each dataset above its groups; all numbers but tau are percent."""
    table = _numbers(title, "rows", "MAPE", "±10", "±20", "bias", "FLOP/peak", "tau")
    for score in sorted(scores, key=lambda each: (each["dataset"], each["group"] != "all")):
        whole = score["group"] == "all"
        table.add_row(
            escape(score["dataset"] if whole else f"  {score['group']}"),
            f"{score['rows']:,}",
            *(f"{100 * score[each]:.1f}" for each in ("mape", "within_10", "within_20")),
            f"{100 * score['bias']:+.1f}",
            f"{100 * score['baseline_mape']:.1f}",
            "" if score["tau"] != score["tau"] else f"{score['tau']:.2f}",
        )
    return table


def _numbers(title: str, *names: str) -> Table:
    """A table of numbers that 80 columns are enough for."""
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("%", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _plain(check: Check) -> dict[str, object]:
    """As JSON has it: numbers where there are rows."""
    record = asdict(check)
    return record if check.rows else {key: record[key] for key in ("file", "what", "note", "rows")}


def _show_checks(checks: Sequence[Check]) -> None:
    """What is compared without being fitted, and why the rest is not."""
    compared = [check for check in checks if check.rows]
    table = _numbers("What nothing is fitted to", "rows", "MAPE", "bias", "±20")
    for check in compared:
        table.add_row(
            escape(f"{check.file}: {check.what}"),
            f"{check.rows:,}",
            f"{100 * check.mape:.0f}",
            f"{100 * check.bias:+.0f}",
            f"{100 * check.within_20:.0f}",
        )
    if compared:
        console.print(table)
    for check in checks:
        if not check.rows:
            text = f"{check.file}, {check.what}: {check.note}"
            text = textwrap.shorten(text, LONGEST, placeholder=" ... (all with --json)")
            console.print(text, markup=False, highlight=False)


def _show_known(used: Coefficients, as_json: bool) -> None:
    """What calibration wrote down when it fitted."""
    if as_json:
        print_json({"fitted": used.date, "rows": used.rows, "errors": used.errors})
        return
    console.print(f"Fitted {used.date}; mean errors on models that were held out:")
    for group, error in used.errors.items():
        rows = used.rows[group]
        console.print(f"  {group:<40} {100 * error:5.1f} %  ({rows:,} rows)", highlight=False)
