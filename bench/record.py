"""Results as JSON: what the tables, the page and the README are made of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.case import Case, Suite
from bench.contenders import HALF, SINGLE
from bench.statistics import geomean
from bench.turns import Row, best_peer, ratio_to
from coexec.base.disk import write_atomically

SCHEMA = 1
"""Changes when the meaning of a field does."""

Record = dict[str, Any]


class RecordError(Exception):
    """A file is no record of results that this version understands."""


def case_record(suite: Suite, case: Case, rows: Sequence[Row]) -> Record:
    """A case with a row for everybody who took part."""
    best = {precision: best_peer(rows, suite.statistic, precision) for precision in (SINGLE, HALF)}
    return {
        "name": case.name,
        "date": now(),
        "group": case.group,
        "flop": case.flop,
        "bytes": case.bytes,
        "rows": [_row_record(suite, case, row, best[row.contender.precision]) for row in rows],
    }


def _row_record(suite: Suite, case: Case, row: Row, best: Row | None) -> Record:
    contender = row.contender
    record: Record = {
        "peer": contender.name,
        "ours": contender.ours,
        "precision": contender.precision,
        "facts": row.facts,
    }
    seconds = row.seconds(suite.statistic)
    if seconds is None:
        return record | {"error": row.error or "was not timed"}
    record |= {"seconds": seconds, "turns": row.turns}
    if case.flop:
        record["gflops"] = case.flop / seconds / 1e9
    if case.bytes:
        record["gbps"] = case.bytes / seconds / 1e9
    found = ratio_to(best, row, suite.statistic)
    if found is not None and best is not None:
        spread = {"value": found.value, "low": found.low, "high": found.high}
        record["ratio"] = spread | {"to": best.contender.name}
    return record


def suite_record(suite: Suite, cases: Sequence[Record], machine: Record, began: str = "") -> Record:
    """All cases with a summary for each of ours, and what took part in this run.

    ``began`` is when the round did (:mod:`bench.rounds`): now, if nothing is said.
    """
    return {
        "title": suite.title,
        "date": now(),
        "began": began or now(),
        "statistic": suite.statistic,
        "roof": suite.roof,
        "limits": machine["limits"],
        "contenders": machine["contenders"],
        "cases": list(cases),
        "summary": summary_of(cases),
    }


def summary_of(cases: Sequence[Record]) -> list[Record]:
    """Geometric mean and worst ratio of each of ours, per group and over all groups."""
    groups = list(dict.fromkeys(case["group"] for case in cases))
    wanted = [*groups, ""] if len(groups) > 1 else [""]
    found = []
    for peer in _our_names(cases):
        for group in wanted:
            ratios = {
                case["name"]: row["ratio"]["value"]
                for case in cases
                if not group or case["group"] == group
                for row in case["rows"]
                if row["peer"] == peer and "ratio" in row
            }
            if ratios:
                worst = max(ratios, key=lambda name: ratios[name])
                found.append(
                    {
                        "peer": peer,
                        "group": group,
                        "cases": len(ratios),
                        "geomean": geomean(list(ratios.values())),
                        "worst": ratios[worst],
                        "worst_case": worst,
                    }
                )
    return found


def _our_names(cases: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(r["peer"] for case in cases for r in case["rows"] if r["ours"]))


def write(path: Path, record: Record) -> None:
    """Write a record, readable, whole or not at all.

    Raises:
        SaveError: the folder or the disk refused.
    """
    text = json.dumps(_rounded(record), indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text.encode()))


def _rounded(value: Any) -> Any:
    """Floats with five digits: more is noise, and a long file."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def read(path: Path) -> Record:
    """A record from a file.

    Raises:
        RecordError: there is none, or it is of another schema; the message says what to do.
    """
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: no results: {error}") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise RecordError(f"{path}: results of another schema than {SCHEMA}: measure again")
    return record


def merged(old: Record | None, machine: Record, suites: Mapping[str, Record]) -> Record:
    """New cases over those that a file has; every case keeps its own date."""
    kept = old["suites"] if old else {}
    joined = {name: _joined(kept.get(name), suite) for name, suite in suites.items()}
    return {
        "schema": SCHEMA,
        "date": now(),
        "machine": machine,
        "suites": {**kept, **joined},
    }


def _joined(old: Record | None, new: Record) -> Record:
    """A suite with the cases of both; what took part and the limits are the newer run's."""
    if old is None:
        return new
    cases = {case["name"]: case for case in (*old["cases"], *new["cases"])}
    contenders = old["contenders"] | new["contenders"]
    everything = {"cases": list(cases.values()), "summary": summary_of(list(cases.values()))}
    return {**new, "contenders": contenders, **everything}


def now() -> str:
    """The time, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def slug(text: str) -> str:
    """A file name from a machine's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
